"""List the packages in each image of a running lab, as CycloneDX."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import LabError
from . import compose, nginx
from .compose import Lab
from .shell import CommandError

LIST = ["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${Architecture}\t${db:Status-Status}\n"]


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One installed package; `architecture` is "" if no package manager installed it."""

    name: str
    version: str
    architecture: str = ""

    @property
    def purl(self) -> str:
        """The package URL, for scanners."""
        if not self.architecture:
            return f"pkg:generic/{self.name}@{self.version}"
        return f"pkg:deb/debian/{self.name}@{_quoted(self.version)}?arch={self.architecture}"


def _quoted(version: str) -> str:
    """A version for a package URL: an epoch's colon and a plus are escaped."""
    return version.replace("%", "%25").replace(":", "%3A").replace("+", "%2B")


def read(listing: str) -> tuple[Package, ...]:
    """The installed packages from the output of `dpkg-query` with the format LIST, in order."""
    rows = (line.split("\t") for line in listing.splitlines())
    return tuple(sorted(Package(*row[:3]) for row in rows if row[3:] == ["installed"]))


def packages(lab: Lab, service: str) -> tuple[Package, ...]:
    """The packages in a service's image, with nginx even if it is not from a package."""
    try:
        installed = read(compose.execute(lab, service, LIST))
    except CommandError as error:
        last = (error.stderr.strip().splitlines() or ["no answer"])[-1]
        raise LabError(f"no package list in {service}: {last}", "lab up") from None
    if service != "nginx" or any(package.name == "nginx" for package in installed):
        return installed
    version = ".".join(map(str, nginx.version(lab)))
    return tuple(sorted((*installed, Package("nginx", version))))


def sbom(lab: Lab) -> dict[str, Any]:
    """A CycloneDX document for each image that the lab runs, by the image's name."""
    if not compose.containers(lab):
        raise compose.not_up(lab)
    return dict(_documents(lab))


def _documents(lab: Lab) -> Iterator[tuple[str, dict[str, Any]]]:
    seen = set()
    for container in compose.containers(lab):
        image = str(container.attrs["Config"]["Image"])
        if image not in seen:
            seen.add(image)
            yield image, document(image, packages(lab, compose.service(container)))


def document(image: str, installed: tuple[Package, ...]) -> dict[str, Any]:
    """The packages of one image as CycloneDX 1.5."""
    name, _, version = image.rpartition(":")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name, "version": version}},
        "components": [
            {
                "type": "library",
                "name": package.name,
                "version": package.version,
                "purl": package.purl,
            }
            for package in installed
        ],
    }
