"""Random configurations through real nginx, request by request against the prediction."""

import itertools

import pytest

from nginx_llm_lab.stack import nginx
from tests.heavy import configs

GROUPS, EACH, HITS = 20, 11, 100


def methods_of(five):
    """The exact methods that this nginx has."""
    old = nginx.version(five.lab) < (1, 29, 6)
    return tuple(name for name in configs.EXACT if not (old and name == "sticky"))


@pytest.mark.parametrize("group", range(GROUPS))
def test_every_request_goes_where_it_was_predicted(five, tmp_path, group):
    """220 configurations, 22,000 requests one after the other; every fourth config has failures."""
    for number in range(EACH):
        seed = group * EACH + number
        config = configs.config(seed, methods_of(five), failing=seed % 4 == 0)

        verdict = configs.observe(five.lab, config, configs.requests(config, HITS), tmp_path)

        assert verdict.hits == HITS
        assert verdict.word == "PASS", f"seed {seed}: {verdict}\n{config.text}"


def test_the_seeds_cover_what_they_should():
    """At least 200 configurations, 50 of them with failures, every method, every size."""
    drawn = [
        configs.config(seed, configs.EXACT, failing=seed % 4 == 0) for seed in range(GROUPS * EACH)
    ]

    assert len(drawn) >= 200
    assert sum("fail_timeout" in config.text for config in drawn) >= 50
    assert {config.method for config in drawn} == set(configs.EXACT)
    sizes = [config.text.count("server backend") for config in drawn]
    assert {1, 2, 3, 5} <= set(sizes)
    assert len({a.text for a in itertools.islice(drawn, 200)}) > 190
