"""The settings of a backend, from its environment."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from .profiles import MOST, PROFILES, Limits, Profile

# every address of the container; the network limits access
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - as above
_MOST_OUTPUT = 16_384  # all tokens of an answer are planned when its request arrives


class SettingsError(Exception):
    """An environment variable that cannot be used: which one, its value, what is allowed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One backend: times in seconds, sizes in bytes or tokens."""

    name: str
    host: str = _EVERYWHERE
    port: int = 8000
    behaviour_port: int = 9000
    profile: Profile = PROFILES["instant"]
    time_scale: float = 1.0
    seed: int = 0
    body_limit: int = 1 << 20
    keep_alive: int = 120
    arrival: int = 30
    grace: int = 20
    model: str = "lab-llm"
    max_model_len: int = 131_072  # Llama 3.1's; recorded traces have prompts of 120,000 tokens
    journal_pause: float = 0.005

    @property
    def max_output(self) -> int:
        """The maximum tokens of one answer: at most half of those of prompt and answer together."""
        return min(_MOST_OUTPUT, self.max_model_len // 2)


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Read the settings; an empty variable counts as absent. Raises SettingsError."""
    given = _Environment(environment)
    return Settings(
        name=given.name("BACKEND_NAME", socket.gethostname()),
        host=given.text("HOST", _EVERYWHERE),
        port=given.integer("PORT", 8000, 0, 65_535),
        behaviour_port=given.integer("BEHAVIOUR_PORT", 9000, 0, 65_535),
        profile=given.profile(),
        time_scale=given.decimal("TIME_SCALE", 1.0, 0.001, 10_000.0),
        seed=given.integer("SEED", 0, 0, 2**63 - 1),
        body_limit=given.integer("BODY_LIMIT", 1 << 20, 1, 1 << 30),
        keep_alive=given.integer("KEEP_ALIVE", 120, 1, 86_400),
        arrival=given.integer("ARRIVAL", 30, 1, 86_400),
        grace=given.integer("GRACE", 20, 0, 3_600),
        model=given.name("MODEL", "lab-llm"),
        max_model_len=given.integer("MAX_MODEL_LEN", 131_072, 64, 1 << 20),
        journal_pause=given.decimal("JOURNAL_PAUSE", 0.005, 0.0, 1.0),
    )


@dataclass(frozen=True, slots=True)
class _Environment:
    values: Mapping[str, str]

    def text(self, variable: str, default: str) -> str:
        return self.values.get(variable, "").strip() or default

    def name(self, variable: str, default: str) -> str:
        value = self.text(variable, default)
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,63}", value):
            raise SettingsError(f'{variable}="{value}": 1 to 63 letters, digits, ".", "_" or "-"')
        return value

    def integer(self, variable: str, default: int, low: int, high: int) -> int:
        value = self.text(variable, str(default))
        if not re.fullmatch(r"[0-9]{1,20}", value) or not low <= int(value) <= high:
            raise SettingsError(f'{variable}="{value}": a whole number from {low} to {high}')
        return int(value)

    def decimal(self, variable: str, default: float, low: float, high: float) -> float:
        value = self.text(variable, str(default))
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise SettingsError(f'{variable}="{value}": a number from {low:g} to {high:g}')
        return number

    def profile(self) -> Profile:
        value = self.text("PROFILE", "instant")
        if value not in PROFILES:
            raise SettingsError(f'PROFILE="{value}": one of {", ".join(PROFILES)}')
        profile = PROFILES[value]
        limits = {
            name: self.integer(name.upper(), 1, 1, MOST)
            for name in Limits.__dataclass_fields__
            if self.text(name.upper(), "")
        }
        return Limits(**limits).applied_to(profile)
