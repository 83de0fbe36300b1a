"""sticky: the cookie decides, once there is one."""

import pytest

from nginx_llm_lab.stack import nginx


@pytest.fixture(autouse=True)
def recent(lab):
    """Open source since 1.29.6."""
    if nginx.version(lab.lab) < (1, 29, 6):
        pytest.skip("sticky needs nginx 1.29.6")


def test_visitors_return_to_their_server(lab):
    """Every pick is predicted, of new visitors and of old ones."""
    lab.use("sticky")

    outcome = lab.send(300)

    assert outcome.holds, outcome
