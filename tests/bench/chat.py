"""POST /chat under ab -c 50: the lab against the article's own stack, in one run.

Run with the lab up: .venv/bin/python tests/bench/chat.py
"""

import statistics
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nginx_llm_lab.evidence import ab_report
from nginx_llm_lab.experiment import fleet
from nginx_llm_lab.stack import compose
from nginx_llm_lab.stack.shell import run
from nginx_llm_lab.traffic import ab

HERE = Path(__file__).parent
BODY = b'{"message": "Hello, this is a test message"}'
ROUNDS = 5


@contextmanager
def article_stack(lab: compose.Lab) -> Iterator[str]:
    """Nginx and two `http.server` processes in one network namespace; the address of its door."""
    name = f"article-{uuid.uuid4().hex[:8]}"
    images = {each: compose.container(lab, each).image for each in ("nginx", "backend-1")}
    tags = {each: str(image.id) for each, image in images.items() if image}
    mount = ["-v", f"{HERE}:/bench:ro", "--read-only", "--tmpfs", "/tmp:mode=1777"]
    common = ["docker", "run", "-d", "--rm", *mount]
    network = f"{lab.project}_inside"
    nginx = ["nginx", "-e", "stderr", "-c", "/bench/article.conf", "-g", "daemon off;"]
    started = []
    try:
        door = [*common, "--name", name, "--network", network, tags["nginx"], *nginx]
        started.append(run(door).stdout.strip())
        for port in ("8001", "8002"):
            python = ["python3", "/bench/article_server.py", port]
            joined = ["--network", f"container:{name}", "--entrypoint", "", tags["backend-1"]]
            started.append(run([*common, *joined, *python]).stdout.strip())
        yield f"http://{name}:8080"
    finally:
        for each in reversed(started):
            run(["docker", "rm", "-f", each], check=False)


def rate(lab: compose.Lab, base: str, requests: int, keepalive: bool) -> float:
    """Requests a second of one ab call against a door; every one must be answered 2xx."""
    call = ab.Ab(requests, 50, keepalive, "/chat", BODY)
    report = ab_report.parse(ab.ab(lab, call, base))
    assert report.failed_requests == report.non_2xx_responses == 0, report
    return float(report.requests_per_second or 0)


def compare(lab: compose.Lab, article: str, keepalive: bool) -> None:
    """Measure both by turns, so that the machine's moods hit both."""
    rates: dict[str, list[float]] = {"article": [], "lab": []}
    for _ in range(ROUNDS):
        rates["article"].append(rate(lab, article, 3000, keepalive))
        rates["lab"].append(rate(lab, ab.INSIDE, 15000, keepalive))
    print(f"ab -c 50{' -k' if keepalive else ''}")
    for name, found in rates.items():
        each = ", ".join(f"{value:,.0f}" for value in found)
        print(f"  {name:8} median {statistics.median(found):,.0f} requests/s  ({each})")
    ratios = [ours / theirs for ours, theirs in zip(rates["lab"], rates["article"], strict=True)]
    print(f"  ratio    median {statistics.median(ratios):.1f}, lowest {min(ratios):.1f}")


def main() -> None:
    """The article's call as it stands, and with the client's connections kept."""
    lab = compose.running(compose.from_environment())
    fleet.use(lab, fleet.choose(lab, "least_conn"))
    with article_stack(lab) as article:
        rate(lab, article, 200, False)
        for keepalive in (False, True):
            compare(lab, article, keepalive)


if __name__ == "__main__":
    main()
