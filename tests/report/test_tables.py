"""Results as people and CI read them."""

from nginx_llm_lab.report import tables
from nginx_llm_lab.traffic.scenario import Event


def test_a_lab_that_is_down_is_one_line():
    """No empty table."""
    found = {"project": "p", "containers": []}

    assert tables.status(found) == 'lab "p" is not up'


def test_a_table_has_no_trailing_blanks():
    """It can be pasted."""
    drawn = tables.table("a", "b")
    drawn.add_row("1", "2")

    assert tables.text(drawn).splitlines() == ["a  b", "1  2"]


def test_an_event_reads_as_a_command_would_say_it():
    """Without the fields that it does not use."""
    events = [
        Event(1, "fault", "backend-1", "slow", 4.0),
        Event(2, "fault", "nginx", "kill"),
        Event(3, "heal"),
        Event(4, "scale", backends=5),
        Event(5, "use", method="least_conn", weights=(3, 2, 1)),
        Event(6, "reload"),
    ]

    assert [tables._event(event) for event in events] == [
        "fault backend-1 slow 4",
        "fault nginx kill",
        "heal all",
        "scale to 5 backends",
        "use least_conn 3,2,1",
        "reload",
    ]
