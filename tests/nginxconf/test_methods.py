"""Methods are read from their files, and what `lab use` writes is what nginx serves."""

import ast

import crossplane
import pytest

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.nginxconf import methods, upstream
from nginx_llm_lab.nginxconf.methods import Choice
from nginx_llm_lab.paths import ROOT

THREE = ("backend-1", "backend-2", "backend-3")


def test_every_method_file_says_what_it_is_for():
    """A method without a comment could not be chosen by a newcomer."""
    records = methods.methods()

    assert all(method.about for method in records.values())


def test_the_version_a_method_needs_stands_in_its_file():
    """least_time is open source since 1.31.0."""
    assert methods.method("least_time").needs == (1, 31, 0)


def test_the_http_part_of_a_method_is_kept_apart_from_its_directive():
    """prompt_prefix needs a map beside the upstream and a hash inside it."""
    method = methods.method("prompt_prefix")

    assert method.http.startswith("map $request_body $prompt_prefix {")
    assert method.directive == "hash $prompt_prefix consistent;"


def test_every_method_file_has_a_record_and_every_record_a_file():
    """nginx/methods/ and METHODS name the same methods."""
    files = {file.stem for file in methods.FOLDER.glob("*.conf")}

    assert files == set(methods.METHODS)


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_config_with_the_directive_of_a_method_is_read_as_what_nginx_runs(name):
    """prompt_prefix runs as hash_consistent, sticky as round_robin, the others as themselves."""
    record = methods.METHODS[name]

    assert upstream.from_options(name, ["a:1", "b:1"]).method == (record.algorithm or name)


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_backup_is_refused_below_the_directives_that_do_not_take_it(name):
    """As nginx refuses it."""
    record = methods.METHODS[name]

    if record.backup:
        assert upstream.from_options(name, ["a:1", "b:1 backup"]).servers[1].backup
    else:
        with pytest.raises(UsageError, match="does not support parameter"):
            upstream.from_options(name, ["a:1", "b:1 backup"])


def test_an_unknown_method_names_the_known_ones():
    """The next step stands in the error."""
    with pytest.raises(UsageError) as caught:
        methods.method("fair")

    assert "least_conn" in caught.value.hint


@pytest.mark.parametrize("name", methods.methods())
def test_every_rendered_upstream_is_nginx_syntax(name, tmp_path):
    """crossplane reads what `lab use` writes."""
    file = tmp_path / "upstream.conf"
    file.write_text(methods.render(Choice(name, THREE, (3, 2, 1))))

    parsed = crossplane.parse(str(file), check_ctx=False, single=True)

    assert parsed["errors"] == []


def test_weights_and_parameters_stand_on_their_server_line():
    """A parameter without a name is everyone's."""
    given = methods.parse_parameters(["max_fails=3", "backend-2: down"])
    text = methods.render(Choice("least_conn", THREE, (3, 1, 1), parameters=given))

    assert "server backend-1:8000 weight=3 max_fails=3;" in text
    assert "server backend-2:8000 max_fails=3 down;" in text


def test_a_key_replaces_the_hash_key_and_is_logged():
    """The log's $hash_key is the key that nginx hashed."""
    text = methods.render(Choice("hash_consistent", THREE, key="$arg_user"))

    assert "hash $arg_user consistent;" in text
    assert 'map "" $hash_key { default $arg_user; }' in text


def test_a_key_with_blanks_is_quoted():
    """nginx takes it as one word."""
    text = methods.render(Choice("hash", THREE, key='$arg_a "x"'))

    assert 'hash "$arg_a \\"x\\"";' in text


@pytest.mark.parametrize(
    "choice",
    [
        Choice("least_conn", THREE, key="$uri"),
        Choice("hash", THREE, measure="header"),
        Choice("hash", THREE, (1, 2)),
        Choice("hash", THREE, parameters={"backend-9": "down"}),
        Choice("hash", THREE, parameters={"": "down; } evil {"}),
        Choice("hash", THREE, key="a\nb"),
    ],
)
def test_what_does_not_fit_together_is_refused(choice):
    """Before anything is written."""
    with pytest.raises(UsageError):
        methods.render(choice)


@pytest.mark.parametrize("text", ["3,x", "0", "1,,2", "-1"])
def test_bad_weights_are_refused(text):
    """Weights are whole numbers from 1."""
    with pytest.raises(UsageError):
        methods.parse_weights(text)


def test_the_article_shape_is_one_word_away():
    """No zone, HTTP/1.0 to the backends: what the article's configuration does."""
    text = methods.render(Choice("round_robin", THREE, zone=False, keepalive=False))

    assert "zone" not in text.replace("# ", "")
    assert "proxy_http_version 1.0;" in text
    assert "keepalive" not in text


# the records, nginx's directives, the oracle's table of implementations
NAMED = {"nginxconf/methods.py", "nginxconf/upstream.py", "oracle/__init__.py"}


def test_every_advised_method_has_a_rank_of_its_own():
    """The rank decides ties, so no two methods may share one."""
    ranks = [advised.rank for advised in methods.advised().values()]

    assert ranks == list(range(1, len(ranks) + 1))


def test_no_other_module_names_a_method():
    """What a method does is asked of its record, so that a new one needs no other change."""
    folder = ROOT / "lab"
    modules = {str(file.relative_to(folder)): file for file in folder.rglob("*.py")}

    named = {
        name
        for name, file in modules.items()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and node.value in methods.METHODS
    }

    assert named == NAMED
