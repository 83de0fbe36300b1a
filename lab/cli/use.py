"""`lab use`: switch the method."""

from ..experiment import fleet
from .here import choice_of, this_lab
from .options import Json, MethodOptions, takes_method
from .terminal import say, show


@takes_method
def use(options: MethodOptions, as_json: Json = False) -> None:
    """Switch the method without losing a request.

    Returns when only new nginx workers answer.
    """
    lab = this_lab()
    switch = fleet.use(lab, choice_of(lab, options))
    if as_json:
        seconds = round(switch.seconds, 3)
        show({"method": options.method, "seconds": seconds, "finishing": switch.finishing})
        return
    old = (
        f"; {switch.finishing} old workers are finishing their responses"
        if switch.finishing
        else ""
    )
    say(f"switched to {options.method} in {switch.seconds:.2f} s{old}")
