"""Turns on the event loop for planning answers, so that others send and record in time."""

import asyncio

_TOKENS = 4096  # of one iteration of the event loop; planned in about 3 ms


class Turns:
    """Lets callers plan a limited number of tokens in each iteration of the event loop, in order.

    One call per iteration would be too few: with 128 streams an iteration can take 20 ms, and calls
    would wait here longer than the engine's model lets them.
    """

    def __init__(self) -> None:
        self._left = _TOKENS

    async def begin(self) -> None:
        """Return at once while this iteration has tokens left, else in a later one."""
        while self._left <= 0:
            await asyncio.sleep(0)

    def count(self, tokens: int) -> None:
        """Count tokens that were read or planned in this iteration."""
        if self._left == _TOKENS:
            asyncio.get_running_loop().call_soon(self._renew)
        self._left -= tokens

    def _renew(self) -> None:
        self._left = _TOKENS
