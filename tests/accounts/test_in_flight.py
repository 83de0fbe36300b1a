"""What nginx's log says of the requests in flight at a server."""

from nginx_llm_lab.accounts.in_flight import InFlight
from nginx_llm_lab.evidence.access_log import Hit, Unproxied

A, B = "backend-1", "backend-2"


def test_requests_in_flight_are_counted_around_a_moment() -> None:
    """From 0.1 s before to 0.1 s after it, as nginx's clock may lag by so much."""
    in_flight = InFlight(
        [
            Hit((A,), msec=11.0, request_time=9.0, upstream_response_time=(1.0,)),
            Hit((A,), msec=12.0, request_time=2.0, upstream_response_time=(2.0,)),
            Hit((B,), msec=12.0, request_time=2.0, upstream_response_time=(2.0,)),
            Unproxied(400, msec=11.0),
        ]
    )

    moments = (9.85, 9.95, 10.5, 11.05, 11.15, 12.15)
    assert [in_flight.most(A, moment) for moment in moments] == [0, 2, 2, 2, 1, 0]
    assert in_flight.most("backend-3", 10.5) == 0


def test_each_attempt_of_a_request_has_its_own_time() -> None:
    """The first attempt ends when the second begins."""
    retried = Hit((A, B), msec=20.0, request_time=6.0, upstream_response_time=(2.0, 3.0))
    in_flight = InFlight([retried])

    assert [in_flight.most(A, moment) for moment in (14.0, 16.0, 18.0)] == [0, 1, 0]
    assert [in_flight.most(B, moment) for moment in (14.0, 16.0, 18.0)] == [0, 0, 1]
