"""`lab methods`: the balancing methods."""

from ..nginxconf import methods as known
from ..report import tables
from .options import Json
from .terminal import say, show


def methods(as_json: Json = False) -> None:
    """List the methods, with their directives and when to use them."""
    all_methods = known.methods().values()
    if as_json:
        show([method.as_dict() for method in all_methods])
    else:
        say(tables.methods(all_methods))
