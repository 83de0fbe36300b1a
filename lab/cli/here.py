"""The lab that the options and the environment name."""

from ..experiment import fleet
from ..nginxconf import methods
from ..nginxconf.methods import Choice
from ..nginxconf.prompt import Prefix
from ..stack import compose
from ..stack.compose import Lab
from .options import MethodOptions


def this_lab() -> Lab:
    """The lab with the ports that it runs on, or with the requested ports if it is down."""
    return compose.running(compose.from_environment())


def choice_of(lab: Lab, options: MethodOptions) -> Choice:
    """The method with its options, for the running backends."""
    return fleet.choose(
        lab,
        methods.method(options.method).name,
        weights=methods.parse_weights(options.weights),
        key=options.key,
        measure=options.measure,
        parameters=methods.parse_parameters(options.server_params or ()),
        next_upstream=options.next_upstream,
        zone=options.zone,
        keepalive=options.keepalive,
        prefix=Prefix(options.characters, options.skip, options.reader),
    )
