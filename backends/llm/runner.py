"""The engine in real time: one wake-up per event, however many sequences it serves."""

import asyncio
import time
from collections.abc import Callable, Sequence

from .engine import Engine, Generation, Request, Step, Token
from .profiles import Profile

# an event is processed this many seconds early: the event loop's timers count milliseconds
_SLACK = 0.0005
# tokens after which other tasks run, if an engine has no delays
_TOKENS_A_TURN = 2048


class Mailbox:
    """The tokens of one call's generations, in the order in which they were generated.

    While the reader waits in `take`, each token except a generation's last is offered to `sink`,
    if it is set; it returns whether it took the token. This avoids waking the reader.
    """

    def __init__(self) -> None:
        self.generations: list[Generation] = []
        self.sink: Callable[[Token], bool] | None = None
        self._tokens: list[Token] = []
        self._left = 0
        self._waiter: asyncio.Future[None] | None = None

    def expect(self, generation: Generation) -> None:
        """Register a generation whose tokens will be delivered."""
        self.generations.append(generation)
        self._left += 1

    def put(self, token: Token) -> None:
        """Deliver a token."""
        if self.sink and not token.last and self._reader_waits() and self.sink(token):
            return
        self._tokens.append(token)
        self._left -= token.last
        self._wake()

    def close(self) -> None:
        """Discard undelivered tokens and end `take`."""
        self._tokens = []
        self._left = 0
        self._wake()

    async def take(self) -> list[Token]:
        """Wait for tokens and return them; an empty list is the end."""
        if not self._tokens and self._left:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        tokens, self._tokens = self._tokens, []
        return tokens

    def _reader_waits(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)


class Runner:
    """Runs an engine `scale` times as fast as real time; `clock` gives real seconds.

    `observe` is called with each step of the engine.
    """

    def __init__(
        self,
        engine: Engine,
        scale: float = 1.0,
        clock: Callable[[], float] = time.perf_counter,
        observe: Callable[[Step], object] = lambda _step: None,
    ) -> None:
        self.engine = engine
        self.scale = scale
        self._observe = observe
        self._clock = clock
        self._real_origin = clock()
        self._model_origin = 0.0
        self._boxes: dict[Generation, Mailbox] = {}
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._rest: list[Token] = []

    def model_time(self, real: float) -> float:
        """Convert a reading of the clock to seconds of the model."""
        return self._model_origin + (real - self._real_origin) * self.scale

    def behind(self, model: float) -> float:
        """Return by how many real seconds the clock is past a moment of the model, at least 0."""
        due = self._real_origin + (model - self._model_origin) / self.scale
        return max(0.0, self._clock() - due)

    def real_seconds(self, model: float) -> float:
        """Convert a duration of the model to real seconds."""
        return model / self.scale

    def submit(self, requests: Sequence[Request], arrived: float) -> Mailbox:
        """Start or queue the sequences of a call that arrived at a reading of the clock."""
        self._advance()
        box = Mailbox()
        for request in requests:
            generation = self.engine.submit(self.model_time(arrived), request)
            self._boxes[generation] = box
            box.expect(generation)
        self._turn()
        return box

    def cancel(self, box: Mailbox) -> None:
        """Remove a call's sequences from the engine and close its mailbox."""
        self._advance()
        for generation in box.generations:
            self.engine.cancel(generation)
            self._boxes.pop(generation, None)
        box.close()
        self._turn()

    def reconfigure(self, profile: Profile, slow: float, scale: float) -> None:
        """Change the profile and time scale from now on."""
        self._advance()
        real = self._clock()
        self._model_origin, self._real_origin = self.model_time(real), real
        self.scale = scale
        self.engine.reconfigure(profile, slow)
        self._turn()

    def _turn(self) -> None:
        """Process due events and set the timer for the next one."""
        self._advance()
        if self._timer:
            self._timer.cancel()
            self._timer = None
        due = self.engine.next_due()
        if due is None:
            return
        loop = asyncio.get_running_loop()
        delay = self.real_seconds(due - self.model_time(self._clock()))
        if delay <= _SLACK:
            self._timer = loop.call_soon(self._turn)
        else:
            self._timer = loop.call_later(delay, self._turn)

    def _advance(self) -> None:
        now = self.model_time(self._clock() + _SLACK)
        delivered = 0
        while delivered < _TOKENS_A_TURN:
            due = self.engine.next_due()
            if due is None or due > now:
                return
            delivered += self._deliver(self.engine.step())

    def _deliver(self, step: Step) -> int:
        """Deliver a step's tokens; return how much of a turn that takes.

        First tokens come first; the others follow when the readers of these have run. To write a
        hundred tokens takes several ms, by which the times to first token would be longer.
        """
        self._deliver_rest()
        self._observe(step)
        tokens = list(step.tokens())
        self._rest = [token for token in tokens if token.number]
        if len(self._rest) < len(tokens):
            for token in tokens:
                if token.number == 0:
                    self._put(token)
            asyncio.get_running_loop().call_soon(self._deliver_rest)
        else:
            self._deliver_rest()
        # a step without tokens takes its share of a turn too
        return 1 + len(tokens)

    def _deliver_rest(self) -> None:
        """Deliver the tokens of the last step that are not first tokens."""
        rest, self._rest = self._rest, []
        for token in rest:
            self._put(token)

    def _put(self, token: Token) -> None:
        if box := self._boxes.get(token.generation):  # else its call was cancelled meanwhile
            box.put(token)
            if token.last:
                del self._boxes[token.generation]
