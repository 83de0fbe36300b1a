"""Docker's own library, for actions on containers, images and networks."""

from functools import cache

import docker
import docker.errors
from docker.models.containers import Container

from ..errors import LabError
from ..paths import SETUP
from . import engine as light


@cache
def engine() -> docker.DockerClient:
    """The engine's client; LabError if no engine answers."""
    try:
        return docker.from_env(timeout=120)
    except docker.errors.DockerException as error:
        raise LabError(f"no Docker engine answers: {error}", SETUP) from None


def handle(container: light.Container) -> Container:
    """A container's handle in Docker's library, to stop, start or connect it."""
    return engine().containers.get(container.id)
