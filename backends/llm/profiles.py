"""Named LLM servers, as the timing model sees them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """The timing of one LLM server, in seconds, tokens and blocks of 16 tokens.

    A prompt costs `prefill_base` and `prefill_per_token` for each token not found in the prefix
    cache. One more token for every running sequence costs `step_base`, and `step_per_sequence`
    for each running sequence beyond the first. At most `max_running` sequences run; the others
    wait, first come, first served. Outputs whose length nobody asks for are log-normal.
    """

    name: str
    prefill_base: float = 0.0
    prefill_per_token: float = 0.0
    step_base: float = 0.0
    step_per_sequence: float = 0.0
    max_running: int = 1024
    cache_blocks: int = 8192
    output_median: int = 128
    output_sigma: float = 0.7

    def prefill_seconds(self, tokens: int) -> float:
        """Seconds from a sequence's start to its first token, `tokens` of the prompt uncached."""
        return self.prefill_base + self.prefill_per_token * tokens

    def step_seconds(self, running: int) -> float:
        """Seconds between two tokens of a sequence while `running` sequences run."""
        return self.step_base + self.step_per_sequence * max(0, running - 1)


# 7-8B on an H100: first token 60-120 ms at 256 tokens, 10-15 ms between tokens;
# on an L40S: 180-280 ms and 25-35 ms (DESIGN, section 5). The cache is what 16-bit weights leave
# of the card's memory at 128 KiB a token.
PROFILES = {
    profile.name: profile
    for profile in (
        Profile("instant"),
        Profile("h100-8b", 0.030, 0.000_20, 0.010, 0.000_038, max_running=128, cache_blocks=24_576),
        Profile("l40s-8b", 0.060, 0.000_60, 0.025, 0.000_15, max_running=64, cache_blocks=12_288),
        Profile("slow-8b", 0.120, 0.001_20, 0.060, 0.000_60, max_running=32, cache_blocks=4_096),
        Profile("cpu-small", 0.050, 0.002_00, 0.060, 0.015_00, max_running=4, cache_blocks=512),
    )
}
