"""Named LLM servers, as the timing model sees them."""

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Profile:
    """The timing and the limits of one LLM server; docs/engine.md has each figure's source.

    A step of the engine lasts, in seconds, `step_base`, plus `per_token` for each token that it
    computes (one a decoding sequence, and the chunk of a prompt), plus `per_context` for each
    token of context that its decoding sequences read from the KV cache, plus `per_pair` for each
    pair of a prompt token and a token before it. `jitter` is the standard deviation of the
    logarithm of a random factor on each step; 0 is none.

    `max_num_seqs` and `max_num_batched_tokens` are vLLM's: the most sequences that run, and the
    most tokens in a step. `kv_blocks` of 16 tokens are all that running sequences and the prefix
    cache share. `max_queued` requests may wait, and the server refuses more with `queue_status`;
    0 is no limit. Outputs without a requested length are log-normal.
    """

    name: str
    step_base: float = 0.0
    per_token: float = 0.0
    per_context: float = 0.0
    per_pair: float = 0.0
    max_num_seqs: int = 1024
    max_num_batched_tokens: int = 8192
    kv_blocks: int = 8192
    max_queued: int = 0
    queue_status: int = 503
    jitter: float = 0.0
    output_median: int = 128
    output_sigma: float = 0.7


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of an engine that replace those of its profile; 0 keeps the profile's.

    `queue_limit` is the profile's `max_queued`; the others have its names.
    """

    max_num_seqs: int = 0
    max_num_batched_tokens: int = 0
    kv_blocks: int = 0
    queue_limit: int = 0

    @property
    def given(self) -> dict[str, int]:
        """The limits that are not 0, by name."""
        return {name: limit for name, limit in asdict(self).items() if limit}

    def applied_to(self, profile: Profile) -> Profile:
        """A profile with these limits in place of its own."""
        fields: dict[str, Any] = {
            _FIELDS.get(name, name): limit for name, limit in self.given.items()
        }
        return replace(profile, **fields)


_FIELDS = {"queue_limit": "max_queued"}
MOST = 10_000_000  # of any limit


def changed_limits(profile: Profile) -> Limits:
    """The limits of a profile that differ from those of the built-in profile of its name."""
    usual = PROFILES[profile.name]
    limits = {
        name: getattr(profile, _FIELDS.get(name, name)) for name in Limits.__dataclass_fields__
    }
    return Limits(
        **{
            name: limit
            for name, limit in limits.items()
            if limit != getattr(usual, _FIELDS.get(name, name))
        }
    )


# seconds; a GPU's first three figures are near what its memory bandwidth and its arithmetic give
PROFILES = {
    profile.name: profile
    for profile in (
        Profile("instant"),
        Profile(
            "h100-8b",
            step_base=0.004_6,
            per_token=21e-6,
            per_context=40e-9,
            per_pair=3.7e-9,
            max_num_seqs=1024,
            max_num_batched_tokens=12_288,
            kv_blocks=24_576,
        ),
        Profile(
            "l40s-8b",
            step_base=0.020,
            per_token=70e-6,
            per_context=150e-9,
            per_pair=10e-9,
            max_num_seqs=256,
            max_num_batched_tokens=2048,
            kv_blocks=12_288,
        ),
        Profile(
            "slow-8b",
            step_base=0.060,
            per_token=300e-6,
            per_context=300e-9,
            per_pair=20e-9,
            max_num_seqs=64,
            max_num_batched_tokens=2048,
            kv_blocks=4_096,
        ),
        Profile(
            "cpu-small",
            step_base=0.060,
            per_token=0.002,
            per_context=1e-6,
            per_pair=100e-9,
            max_num_seqs=4,
            max_num_batched_tokens=512,
            kv_blocks=512,
        ),
        Profile(
            "h100x4-70b",
            step_base=0.013,
            per_token=35e-6,
            per_context=150e-9,
            per_pair=4e-9,
            max_num_seqs=1024,
            max_num_batched_tokens=8192,
            kv_blocks=32_768,
        ),
    )
}
