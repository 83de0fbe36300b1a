"""Log lines that the tests of verdicts build."""

from typing import Any

from nginx_llm_lab.evidence.access_log import Hit


def hit(server: str, start: int, end: int, *refused: str, **more: Any) -> Hit:
    """A request from `start` to `end`, in ms, that other servers refused first."""
    lasted = (end - start) / 1000
    tries = len(refused)
    fields: dict[str, Any] = {
        "upstream_status": (*[502] * tries, 200),
        "upstream_connect_time": (*[None] * tries, 0.0),
        "upstream_header_time": (*[None] * tries, lasted),
        "upstream_response_time": (*[0.0] * tries, lasted),
        **more,
    }
    return Hit((*refused, server), 200, end / 1000, lasted, **fields)
