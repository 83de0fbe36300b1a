"""Which values of a request's variables give a text of the config a wanted value."""

from pathlib import Path

import pytest

from nginx_llm_lab.nginxconf import tree, variables
from nginx_llm_lab.nginxconf.routes import authority
from nginx_llm_lab.verify.traffic.assignments import Definitions, assignments, parts_of

MAPS = """events {} http {
    map $http_x_tier $tier { default basic; "~*^(?<t>gold|silver)-user$" $t; }
    map $http_x_region:$arg_kind $picked { default other; "eu:chat" eu_chat; }
    map $tenant $pool { "~^(?<r>eu|us)-" ${r}-pool; }
    map $pool $final { default $pool; }
    map $http_x_url $target { hostnames; big http://gpu/v1; \\default http://odd; }
    upstream u { server a; } server { location / { proxy_pass http://u; } }
}"""


@pytest.fixture(scope="module", name="known")
def _known(tmp_path_factory: pytest.TempPathFactory) -> Definitions:
    file = tmp_path_factory.mktemp("maps") / "nginx.conf"
    file.write_text(MAPS)
    conf = variables.read(tree.read(file), "u")
    return Definitions(
        conf.definitions, {"up": ("${arg_m}_v$2", "plain"), "region": ("$cookie_r",)}
    )


@pytest.mark.parametrize(
    ("text", "value", "wanted"),
    [
        ("$arg_model", "gpu", {"arg_model": "gpu"}),
        ("$arg_kind-pool", "GPU-pool", {"arg_kind": "GPU"}),
        ("$arg_a.$http_b", "x.y", {"arg_a": "x", "http_b": "y"}),
        ("svc-$name$rest$args", "svc-chat", {"name": "chat", "rest": "", "args": ""}),
        ("$region_chat", "x", {"region_chat": "x"}),
        ("${region}_chat", "eu_chat", {"cookie_r": "eu"}),
        ("$up", "llama_v2", {"arg_m": "llama", "2": "2"}),
        ("$up", "plain", {}),
        ("$picked", "eu_chat", {"http_x_region": "eu", "arg_kind": "chat"}),
        ("${tier}_llm", "gold_llm", {"t": "gold", "http_x_tier": "gold-user"}),
        ("$tier", "basic", {}),
        ("$final", "us-pool", {"r": "us", "tenant": "us-"}),
        ("$target", "http://odd", {"http_x_url": "default"}),
    ],
)
def test_variables_are_followed_to_those_of_the_request(
    known: Definitions, text: str, value: str, wanted: dict[str, str]
) -> None:
    """Through maps and sets; captures get the values with which their regex is sampled."""
    assert next(assignments(text, value, known)) == wanted


def test_of_a_url_only_the_host_has_to_be_right(known: Definitions) -> None:
    """A map may name the scheme and a path too."""
    assert list(assignments("$target", "gpu", known, part=authority)) == [{"http_x_url": "big"}]


@pytest.mark.parametrize(("text", "value"), [("$picked", "gpu"), ("plain", "gpu"), ("$a-x", "b-y")])
def test_without_such_values_there_is_none(known: Definitions, text: str, value: str) -> None:
    """A map has only the values of its lines."""
    assert list(assignments(text, value, known)) == []


def test_maps_that_read_each_other_end(tmp_path: Path) -> None:
    """nginx starts with them, and fails only the request that asks for such a value."""
    file = tmp_path / "nginx.conf"
    file.write_text("events {} http { map $b $a { default $b; } map $a $b { default $a; } }")
    blocks = {block.args[1][1:]: block for block in tree.read(file).block("http").all("map")}

    assert list(assignments("$a", "gpu", Definitions(blocks))) == [{"b": "gpu"}]


def test_parts_of_a_text_ignore_case_as_names_of_upstreams_do() -> None:
    """nginx compares them so."""
    assert parts_of("$x-Pool", "gpu-pool") == {"x": "gpu"}
    assert parts_of("Pool", "pool") == {}
    assert parts_of("$x-Pool", "-pool") == {"x": ""}
    assert parts_of("$x-Pool", "gpu-pools") is None
