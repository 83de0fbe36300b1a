"""The text that prompt_prefix hashes, by the map of its file and by what njs computes."""

import json

import pytest

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.nginxconf import methods, sources, variables
from nginx_llm_lab.nginxconf.methods import Choice
from nginx_llm_lab.nginxconf.prompt import MAP, NJS, Prefix
from nginx_llm_lab.nginxconf.request import Request

SYSTEM, USER = "You are kind.", "Why is the sky blue?"
BOTH = pytest.mark.parametrize("reader", [MAP, NJS])


def hashed(body, *prefix):
    """The hash key of a request with that body, a JSON value or bytes."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    group, scope = sources.from_method(
        "prompt_prefix", ["a:1"], "", "", "header", True, Prefix(*prefix)
    )
    request = Request("/v1/chat/completions", method="POST", body=sent)
    return variables.evaluate(group.key, request, scope).decode()


def chat(*texts):
    """A chat request with these messages."""
    return {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}


@BOTH
@pytest.mark.parametrize(
    "body",
    [
        chat(SYSTEM, USER),
        {"messages": [{"content": SYSTEM, "role": "system"}, {"content": USER}], "model": "m"},
        {"messages": [{"content": [{"type": "text", "text": text}]} for text in (SYSTEM, USER)]},
        {"messages": [{"content": None}, {"content": ""}, *chat(SYSTEM, USER)["messages"]]},
        chat(SYSTEM, USER, "Because.", "Really?"),
        json.dumps(chat(SYSTEM, USER), indent=4).encode(),
        {"input": chat(SYSTEM, USER)["messages"]},
    ],
)
def test_the_same_prompt_has_one_key_whatever_its_json_looks_like(body, reader):
    """Key order, blanks, content parts, empty texts and later turns do not matter."""
    assert hashed(body, 100, 0, reader) == SYSTEM + USER


@BOTH
def test_a_long_first_message_alone_is_hashed(reader):
    """Its first characters: the question after it does not matter."""
    assert hashed(chat("x" * 50, USER), 40, 0, reader) == "x" * 40


@BOTH
def test_a_shared_preamble_is_passed_over(reader):
    """A message that is no longer than the preamble is hashed from its start."""
    assert hashed(chat(SYSTEM, USER), 4, 8, reader) == "kind"
    assert hashed(chat(SYSTEM, USER), 10, 8, reader) == "kind." + USER[:10]
    assert hashed(chat(SYSTEM), 4, 13, reader) == "You "


@BOTH
@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({"prompt": "Once upon"}, "Once"),
        ({"prompt": ["Once upon", "a time"]}, "Once"),
        ({"message": "hello"}, "hell"),
        ({"input": "hello"}, "hell"),
        (b"plain text", "plai"),
        (b'{"messages": [', '{"me'),
        (b"", "/v1/chat/completions"),
    ],
)
def test_other_bodies_are_hashed_by_their_prompt_or_their_start(body, key, reader):
    """A request without a body is hashed by its URI."""
    assert hashed(body, 4, 0, reader) == key


def test_the_map_reads_the_text_as_json_writes_it():
    """An escape is one character; a character outside of ASCII is its bytes or its escape."""
    assert hashed(b'{"messages": [{"content": "a\\"b\\nc"}]}', 5, 0, MAP) == 'a\\"b\\nc'
    assert hashed(b'{"messages": [{"content": "\\u00e9tude"}]}', 2, 0, MAP) == "\\u0"


def test_njs_reads_the_text_itself():
    """Two spellings of one text have one key, cut after characters and not after bytes."""
    escaped, plain = chat("étude 😀 " * 9), json.dumps(chat("étude 😀 " * 9), ensure_ascii=False)

    assert hashed(escaped, 8, 0, NJS) == hashed(plain.encode(), 8, 0, NJS) == "étude 😀 "


def test_njs_finds_no_prompt_beyond_its_depth_of_json():
    """It parses 31 arrays and objects inside each other; the body's start is hashed beyond."""
    deep = json.loads("[" * 30 + "]" * 30)

    assert hashed({**chat(USER), "x": deep}, 3, 0, NJS) == "Why"
    assert hashed({"x": [deep], **chat(USER)}, 3, 0, NJS) == '{"x'


def test_a_prompt_above_nginxs_usual_buffer_is_read():
    """The lab's nginx holds 1 MB in memory, so `lab predict` reads the map's subject whole."""
    body = {"model": "m" * 20_000, **chat(SYSTEM, USER)}

    assert hashed(body, 13, 0, MAP) == SYSTEM


def test_what_is_used_is_what_is_predicted():
    """The config that `lab use` writes has the numbers of the choice in it."""
    text = methods.render(Choice("prompt_prefix", ("a",), prefix=Prefix(77, 5)))

    assert "{77}" in text
    assert "{1,76}" in text
    assert text.index("{5}") < text.index("{0}")
    assert "{200}" not in text


@pytest.mark.parametrize("wrong", [(0,), (1, -1), (1, 0, "lua")])
def test_a_prefix_that_cannot_be_is_refused(wrong):
    """With the option that is wrong."""
    with pytest.raises(UsageError, match=r"--(characters|skip|reader)"):
        Prefix(*wrong)


def test_a_method_that_hashes_no_prompt_takes_no_prefix():
    """The option would have no effect."""
    with pytest.raises(UsageError, match="least_conn hashes no prompt"):
        methods.render(Choice("least_conn", ("a",), prefix=Prefix(77)))


@BOTH
def test_a_client_computes_the_key_of_what_it_sends(tmp_path, reader):
    """From the upstream.conf that the lab wrote."""
    conf = tmp_path / "upstream.conf"
    choice = Choice("prompt_prefix", ("backend-1", "backend-2"), prefix=Prefix(8, 0, reader))
    conf.write_text(methods.render(choice))
    key_of = sources.key_as_sent(conf)
    body = json.dumps(chat(SYSTEM, USER)).encode()

    assert key_of is not None
    assert key_of(Request("/v1/chat/completions", method="POST", body=body)) == b"You are "


@pytest.mark.parametrize(
    ("key", "computed"),
    [
        ("$http_x_session", b"s7"),
        ("${arg_q}-$cookie_user", b"1-u"),
        ("$host", None),
        ("$remote_addr$arg_q", None),
        ("$request_id", None),
        ("same", None),
    ],
)
def test_a_client_computes_only_keys_that_it_knows(tmp_path, key, computed):
    """Of the request line, headers and body; nginx's own variables it leaves to nginx."""
    conf = tmp_path / "upstream.conf"
    conf.write_text(methods.render(Choice("hash", ("backend-1", "backend-2"), key=key)))
    key_of = sources.key_as_sent(conf)
    request = Request("/?q=1", headers={"X-Session": "s7", "Cookie": "user=u"})

    assert (key_of(request) if key_of else None) == computed
