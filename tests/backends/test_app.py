"""Health, metrics, and the journal of every request."""

from collections.abc import Callable

from tests.backends.serving import Running, http


def test_health_is_ok(lab: Running):
    """For Compose's health check."""
    answer = http.get(lab.url + "/health")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_every_request_leaves_a_line_with_its_id(lab: Running):
    """On the fast path and by uvicorn, errors too, in the order of their ends."""
    for number, path in enumerate(["/a?x=1", "/%20a", "/v1/models", "/v1/nothing"]):
        http.get(lab.url + path, headers={"X-Request-ID": f"id-{number}"})

    lines = [(line["id"], line["path"], line["status"], line["fate"]) for line in lab.lines(4)]

    assert lines == [
        ("id-0", "/a?x=1", 200, "ok"),
        ("id-1", "/%20a", 200, "ok"),
        ("id-2", "/v1/models", 200, "ok"),
        ("id-3", "/v1/nothing", 404, "ok"),
    ]


def test_probes_leave_a_line_only_if_they_came_through_nginx(lab: Running):
    """Compose's own health check is not a client's request."""
    http.get(lab.url + "/health")
    http.get(lab.url + "/health", headers={"X-Request-ID": "id-1"})
    http.get(lab.url + "/metrics")
    http.get(lab.url + "/")

    assert [line["path"] for line in lab.lines(2)] == ["/health", "/"]


def test_metrics_count_what_was_generated(start: Callable[..., Running]):
    """In vLLM's names."""
    lab = start()
    call = {"model": "lab-llm", "prompt": "a b c", "max_tokens": 5, "ignore_eos": True}
    http.post(lab.url + "/v1/completions", json=call)

    lines = http.get(lab.url + "/metrics").text.splitlines()

    assert 'vllm:prompt_tokens_total{engine="0",model_name="lab-llm"} 3' in lines
    assert 'vllm:generation_tokens_total{engine="0",model_name="lab-llm"} 5' in lines
    assert (
        'vllm:request_success_total{engine="0",model_name="lab-llm",finished_reason="length"} 1'
        in lines
    )
    assert 'vllm:time_to_first_token_seconds_count{engine="0",model_name="lab-llm"} 1' in lines
    assert 'vllm:inter_token_latency_seconds_count{engine="0",model_name="lab-llm"} 4' in lines


def test_a_page_from_anywhere_may_ask(lab: Running):
    """A browser's preflight is answered, and the answer and its stream name the origin allowed."""
    url = lab.url + "/v1/chat/completions"
    origin = {"Origin": "https://page.example.com"}
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    body = {"model": "lab-llm", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}

    asked = http.options(url, headers={**origin, **preflight})
    answers = [
        http.post(url, json={**body, "stream": stream}, headers=origin) for stream in (False, True)
    ]
    refused = http.post(url, data=b"{", headers=origin)

    assert asked.status_code == 200
    assert "POST" in asked.headers["Access-Control-Allow-Methods"]
    assert "authorization" in asked.headers["Access-Control-Allow-Headers"].lower()
    for answer in (asked, *answers, refused):
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["X-Backend"] == "backend-1"
    assert refused.status_code == 400
