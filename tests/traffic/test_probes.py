"""The traffic that makes a method show itself."""

import json
import random

import pytest

from nginx_llm_lab.nginxconf.methods import METHODS, Decides
from nginx_llm_lab.nginxconf.request import FRAMING, Request
from nginx_llm_lab.traffic import probes
from nginx_llm_lab.verify.traffic import request_values


def test_the_same_seed_plans_the_same_requests():
    """A run can be repeated."""
    assert probes.plan("hash", "$request_uri", 50, 7) == probes.plan("hash", "$request_uri", 50, 7)


@pytest.mark.parametrize(
    ("key", "seen"),
    [
        ("$request_uri", lambda request: request.uri),
        ("$arg_user", lambda request: request.uri.split("user=")[1]),
        ("${http_x_session_id}", lambda request: request.headers["x-session-id"]),
        ("$cookie_lab", lambda request: request.headers["Cookie"]),
        ("$remote_addr", lambda request: request.client_ip),
        ("$request_body", lambda request: request.body),
    ],
)
def test_every_variable_of_a_key_varies(key, seen):
    """Or all requests would go to one server."""
    requests = probes.plan("hash", key, 50, 1).requests

    assert len({seen(request) for request in requests}) == 50


@pytest.mark.parametrize("name", sorted(FRAMING))
def test_a_header_that_frames_the_request_stays(name):
    """nginx would wait for a body that never comes, or refuse the request."""
    assert not probes.request_with_key(f"${name}", 0, random.Random(1)).headers
    assert request_values.with_variable(Request(), name, "1f") is None


def test_two_arguments_make_one_query():
    """One question mark, then ampersands."""
    uri = probes.request_with_key("$arg_a$arg_b", 0, random.Random(1)).uri

    assert uri.count("?") == 1
    assert "&b=" in uri


def test_a_uri_that_is_a_key_has_an_argument():
    """$uri leaves it out, so nginx cannot hash it instead of $request_uri unseen."""
    for key in ("$request_uri", "$uri", "$arg_a$request_uri"):
        path, _, query = probes.request_with_key(key, 0, random.Random(1)).uri.partition("?")

        assert (path.startswith("/page/"), query.endswith("turn=0")) == (True, True)


def test_addresses_are_of_both_families():
    """ip_hash treats them differently."""
    addresses = [request.client_ip for request in probes.plan("ip_hash", "", 100, 1).requests]

    assert {":" in address for address in addresses} == {True, False}


def test_sticky_visitors_come_back():
    """A cookie shows only on the second visit."""
    sessions = probes.plan("sticky", "", 200, 1).sessions

    assert len(sessions) == 200
    assert len(set(sessions)) < 100


def test_prompts_share_their_first_200_characters():
    """That is what prompt_prefix hashes."""
    bodies = [
        json.loads(request.body) for request in probes.plan("prompt_prefix", "", 400, 1).requests
    ]

    assert len({body["message"][:200] for body in bodies}) == 40
    assert len({body["message"] for body in bodies}) > 390


BY_LOAD = [name for name, record in METHODS.items() if Decides.LOAD in record.decides]


@pytest.mark.parametrize("method", BY_LOAD)
def test_methods_by_load_get_many_requests_at_a_time(method):
    """Of mixed duration: otherwise all counts are zero."""
    plan = probes.plan(method, "", 100, 1)

    assert plan.concurrency == 20
    assert len({request.headers["X-Lab-Duration"] for request in plan.requests}) > 50
