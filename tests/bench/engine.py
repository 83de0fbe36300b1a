"""Print the engine's own curves and what a step costs: python -m tests.bench.engine [PROFILE …].

The engine alone, without a backend, nginx or a clock: the same figures on every machine, except for
the last line, which is the time of this one.
"""

import statistics
import sys
import time

from nginx_llm_lab.backends.llm.engine import Engine, Generation, Request
from nginx_llm_lab.backends.llm.profiles import PROFILES, Profile

USERS = (1, 5, 25, 50, 100, 150, 200, 250)
TOKENS = 200  # of each prompt and of each answer
ROUNDS = 5  # requests of a user


def closed_loop(profile: Profile, users: int) -> tuple[float, float, float]:
    """Output tokens/s, mean time to first token and mean time between tokens (ms).

    Each user sends the next request when the last is answered.
    """
    engine = Engine(profile)
    left = users * (ROUNDS - 1)
    ended: list[Generation] = []
    between: list[float] = []
    end = 0.0
    for _ in range(users):
        engine.submit(0.0, Request(TOKENS, TOKENS))
    while engine.next_due() is not None:
        step = engine.step()
        for generation in step.generations:
            if not generation.ended:
                continue
            end = step.at
            ended.append(generation)
            between.append((end - (generation.first_token_at or end)) / (TOKENS - 1))
            if left:
                left -= 1
                engine.submit(end, Request(TOKENS, TOKENS))
    firsts = [(generation.first_token_at or 0.0) - generation.arrived for generation in ended]
    return (
        len(ended) * TOKENS / end,
        statistics.mean(firsts) * 1e3,
        statistics.mean(between) * 1e3,
    )


def prefill(profile: Profile, prompts: int = 16, tokens: int = 8000) -> float:
    """Prompt tokens/s of prompts that come at once."""
    engine = Engine(profile)
    for _ in range(prompts):
        engine.submit(0.0, Request(tokens, 1))
    end = 0.0
    while engine.next_due() is not None:
        end = engine.step().at
    return prompts * tokens / end


def step_cost(running: int = 256, steps: int = 1000) -> float:
    """Microseconds of this machine's processor that a step takes, with named KV blocks."""
    engine = Engine(PROFILES["h100-8b"])
    for number in range(running):
        names = tuple((number, block) for block in range(140))
        engine.submit(0.0, Request(200 + number % 16, 2000, names))
    for _ in range(20):
        engine.step()
    began = time.process_time()
    for _ in range(steps):
        engine.step()
    return (time.process_time() - began) / steps * 1e6


def main(names: list[str]) -> None:
    """Print the curves of the named profiles, or of those with published figures."""
    for name in names or ["h100-8b", "h100x4-70b"]:
        sys.stdout.write(f"{name}: users, tok/s, TTFT ms, ITL ms\n")
        for users in USERS:
            speed, first, between = closed_loop(PROFILES[name], users)
            sys.stdout.write(f"{users:4} {speed:9,.0f} {first:8.1f} {between:7.2f}\n")
        sys.stdout.write(f"prefill at saturation: {prefill(PROFILES[name]):,.0f} tok/s\n")
    sys.stdout.write(f"a step at 256 running: {step_cost():.1f} us\n")


if __name__ == "__main__":
    main(sys.argv[1:])
