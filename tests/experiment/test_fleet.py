"""How a backend runs, in words."""

from nginx_llm_lab.experiment.fleet import Condition


def test_a_slow_backend_is_sound_and_shows_its_speed() -> None:
    """A scenario may change its speed; nothing about it is broken."""
    slow = Condition("healthy", "h100-8b", 1.0, slow=4.0)

    assert slow.is_sound
    assert str(slow) == "h100-8b, time scale 1, slow 4"


def test_a_backend_that_misbehaves_or_does_not_run_is_not_sound() -> None:
    """A load refuses to begin on it."""
    wrong = Condition("healthy", "instant", 1.0, wrong=("error_rate 0.5",))

    assert not wrong.is_sound
    assert str(wrong) == "instant, time scale 1, error_rate 0.5"
    assert not Condition("exited").is_sound
    assert str(Condition("exited")) == "exited"


def test_limits_that_differ_from_the_profile_are_shown() -> None:
    """A user sees why a backend queues."""
    limited = Condition("healthy", "h100-8b", 1.0, limits={"max_num_seqs": 4, "queue_limit": 9})

    assert limited.is_sound
    assert str(limited) == "h100-8b, max_num_seqs 4, queue_limit 9, time scale 1"
