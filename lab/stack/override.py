"""The Compose override for another number of backends than compose.yaml has."""

import copy
import re
from collections.abc import Mapping
from typing import Any

import yaml

from ..paths import ROOT
from .compose import Lab


def override(base: Mapping[str, Any], backends: int) -> dict[str, Any]:
    """The Compose override for another number of backends than compose.yaml has.

    Additional backends are copies of backend-1; surplus ones get a profile that nothing starts. In
    a large fleet, later backends have less frequent health checks. No setting of a backend depends
    on their number, because Compose would then recreate the running ones.
    """
    services = base["services"]
    present = [name for name in services if re.fullmatch(r"backend-\d+", name)]
    wanted = [f"backend-{number}" for number in range(1, backends + 1)]
    result: dict[str, Any] = {}
    for number, name in enumerate(wanted, 1):
        if name not in present:
            twin = copy.deepcopy(services["backend-1"])
            twin["hostname"] = name
            twin["healthcheck"]["interval"] = f"{max(3, number)}s"
            result[name] = twin
    for name in present:
        if name not in wanted:
            result[name] = {"profiles": ["surplus"]}
    waits = {name: {"condition": "service_started"} for name in wanted}
    result["nginx"] = {"depends_on": Override(waits)}
    return {"services": result}


class Override(dict[str, Any]):
    """A mapping that replaces the one below it instead of being merged (Compose's !override)."""


class Dumper(yaml.SafeDumper):
    """Writes Override mappings with their tag, and copies instead of anchors."""

    def ignore_aliases(self, _data: Any) -> bool:
        """Ignore aliases: copies are easier to read."""
        return True


Dumper.add_representer(
    Override, lambda dumper, data: dumper.represent_mapping("!override", dict(data))
)


def write_override(lab: Lab, backends: int) -> None:
    """Write this lab's override, or remove it if compose.yaml suffices."""
    file = lab.state / "override.yaml"
    base = yaml.safe_load((ROOT / "compose.yaml").read_text())
    if backends == sum(name.startswith("backend-") for name in base["services"]):
        file.unlink(missing_ok=True)
        return
    lab.state.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f"# Generated from compose.yaml by `lab up --backends {backends}`.\n"
        + yaml.dump(override(base, backends), Dumper=Dumper, sort_keys=False)
    )
