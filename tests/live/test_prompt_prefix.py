"""prompt_prefix: the start of the prompt decides, as the map and as njs read it."""

import json
import random
import string

import pytest
import requests

from nginx_llm_lab.nginxconf import sources
from nginx_llm_lab.nginxconf.prompt import MAP, NJS, Prefix
from nginx_llm_lab.oracle import predict, prediction
from nginx_llm_lab.stack import nginx

BOTH = pytest.mark.parametrize("reader", [MAP, NJS])
ALPHABET = [
    *string.ascii_letters,
    " ",
    '"',
    "\\",
    "\n",
    "é",
    "漢",
    "😀",
    "\u2028",
    "\x7f",
]


def use(lab, prefix):
    """Switch to prompt_prefix; the test is skipped where nginx has no njs to read prompts with."""
    if prefix.reader == NJS and not nginx.has_njs(lab.lab):
        pytest.skip("--reader njs needs an nginx with njs")
    lab.use("prompt_prefix", prefix=prefix)


def text(rng):
    """Words of any characters, short ones and long ones."""
    return "".join(rng.choices(ALPHABET, k=rng.choice([0, 1, 5, 30, 300])))


def content(rng):
    """The content of a message: a text, parts, or nothing."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    parts = [image, {"type": "text", "text": text(rng)}, {"text": text(rng), "type": "text"}]
    return rng.choice([text(rng), text(rng), parts, [text(rng)], None])


def body(rng):
    """A request body of any API, as clients write it."""
    message = {"role": "user", "content": content(rng)}
    fields = rng.choice(
        [
            {"messages": [message, {"content": content(rng), "role": "user"}]},
            {"messages": [message]},
            {"messages": []},
            {"prompt": text(rng)},
            {"prompt": [text(rng), text(rng)]},
            {"message": text(rng)},
            {"input": text(rng)},
            {"unknown": text(rng)},
        ]
    )
    pairs = [*fields.items(), ("model", "lab-llm"), ("max_tokens", 1)]
    rng.shuffle(pairs)
    written = json.dumps(dict(pairs), indent=rng.choice([None, 2]), ensure_ascii=rng.random() < 0.5)
    encoded = written.encode("utf-8", "replace")
    return encoded[: rng.randrange(len(encoded))] if rng.random() < 0.05 else encoded


@BOTH
@pytest.mark.parametrize(("characters", "skip"), [(200, 0), (20, 0), (7, 4)])
def test_every_body_goes_where_it_was_predicted(lab, reader, characters, skip):
    """300 bodies of every spelling: keys in nginx's log and servers as the prediction has them."""
    prefix = Prefix(characters, skip, reader)
    rng = random.Random(characters)
    bodies = [body(rng) for _ in range(300)]
    use(lab, prefix)
    mark = nginx.log_size(lab.lab)

    with requests.Session() as session:
        answers = [session.post(f"{lab.lab.door}/v1/prompts", data=sent) for sent in bodies]

    lines = nginx.log_with(lab.lab, mark, len(bodies)).splitlines()
    keys = [json.loads(line.decode("utf-8", "replace"))["hash_key"] for line in lines]
    assert keys == [key.decode("utf-8", "replace") for key in predicted_keys(bodies, prefix)]
    assert [answer.headers["X-Backend"] for answer in answers] == predicted(bodies, prefix)


def arrivals(bodies, prefix):
    """What `lab predict` makes of requests with these bodies, beside the upstream."""
    names = ["backend-1:8000", "backend-2:8000", "backend-3:8000"]
    group, scope = sources.from_method("prompt_prefix", names, "", "", "header", True, prefix)
    lines = (
        json.dumps(
            {
                "uri": "/v1/prompts",
                "method": "POST",
                "body": sent.decode("utf-8", "surrogateescape"),
            }
        )
        for sent in bodies
    )
    return group, prediction.arrivals((line.encode() for line in lines), group, scope)


def predicted_keys(bodies, prefix):
    """The hash key of each body."""
    return [arrival.key for arrival in arrivals(bodies, prefix)[1]]


def predicted(bodies, prefix):
    """The backend of each body."""
    group, planned = arrivals(bodies, prefix)
    return [str(pick.server).removesuffix(":8000") for pick in predict(group, planned)]


@BOTH
def test_one_system_prompt_has_one_server(lab, reader):
    """1,000 chats with 40 system prompts, judged as every run is."""
    use(lab, Prefix(reader=reader))

    outcome = lab.send(600)

    assert outcome.holds, outcome


def test_njs_joins_two_spellings_that_the_map_keeps_apart(lab):
    """Eight texts of accents, written as characters and as escapes."""
    together = {}
    for reader in (MAP, NJS):
        use(lab, Prefix(reader=reader))
        together[reader] = [same_server(lab, f"{number} äöü {'é' * 50}") for number in range(8)]

    assert all(together[NJS])
    assert not all(together[MAP])


def same_server(lab, prompt):
    """Whether a prompt has one server, however its JSON is spelled."""
    servers = set()
    for escaped in (True, False):
        sent = json.dumps({"messages": [{"content": prompt}]}, ensure_ascii=escaped)
        answer = requests.post(f"{lab.lab.door}/v1/prompts", data=sent.encode(), timeout=30)
        servers.add(answer.headers["X-Backend"])
    return len(servers) == 1
