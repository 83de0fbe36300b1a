"""What every live test shares: one lab, a look into its containers, no alarms in nginx's log."""

import re
import time

import pytest
import testinfra

from nginx_llm_lab.stack import compose, engine, nginx, sdk
from nginx_llm_lab.stack.shell import CommandError


@pytest.fixture
def inside(lab):
    """A service as testinfra sees it; called with the name of one."""

    def host(service):
        return testinfra.get_host(f"docker://{compose.container_id(lab.lab, service)}")

    return host


@pytest.fixture(autouse=True)
def no_alarms(request):
    """No live test may leave an [alert], [crit] or [emerg] in nginx's error log."""
    if "lab" not in request.fixturenames:
        yield
        return
    lab = request.getfixturevalue("lab").lab
    since = time.time()

    yield

    if request.node.get_closest_marker("alarms_expected"):
        return
    errors = engine.printed_since(compose.container_id(lab, "nginx"), since).stderr
    assert re.findall(rb".*\[(?:alert|crit|emerg)\].*", errors) == []


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Attach every container's log and `nginx -T` to a failing live test."""
    report = (yield).get_result()
    if not report.failed or "lab" not in getattr(item, "funcargs", {}):
        return
    lab = item.funcargs["lab"].lab
    for container in compose.containers(lab):
        tail = sdk.handle(container).logs(tail=30).decode(errors="replace")
        report.sections.append((f"log of {compose.service(container)}", tail))
    try:
        report.sections.append(("nginx -T", nginx.configuration(lab)))
    except CommandError as error:
        report.sections.append(("nginx -T", str(error)))
