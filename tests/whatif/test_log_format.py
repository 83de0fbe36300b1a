"""An access log is read by its log_format."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.whatif.log_format import Malformed, Visit, visits

LINE = (
    '203.0.113.9 - - [25/Nov/2026:10:00:07 +0000] "POST /v1/chat/completions HTTP/1.1" 200 512'
    ' "-" "python-requests/2.31"'
)


def one(line: str, log_format: str = "") -> Visit | Malformed:
    """What one line holds."""
    (entry,) = visits([line.encode()], log_format)
    return entry


@pytest.mark.parametrize("tail", [" 1.250", ' "1.250"', " rt=1.250", ' rt="1.250" uct="0.001x"'])
def test_combined_with_the_request_time_behind_it_is_read_without_being_told(tail):
    """The usual way to add a time: as the last field, bare, quoted or as rt=."""
    entry = one(LINE + tail)

    assert isinstance(entry, Visit)
    assert (entry.client_ip, entry.method) == ("203.0.113.9", "POST")
    assert (entry.uri, entry.status) == ("/v1/chat/completions", 200)
    assert (entry.seconds, entry.exact) == (1.25, False)


@pytest.mark.parametrize(
    "tail",
    [
        ' uct="0.001" uht="0.050" urt="1.248" rt=1.250',
        " 0.001 0.050 1.250",
        ' urt="0.001, 1.249" request_time:1.250',
        " rt=1.250 connection=9.000",
        " 1790000001.795 1.250",
    ],
)
def test_no_time_of_the_upstream_is_taken_for_the_request_time(tail):
    """The request time has a name, or is the longest; seconds since the epoch are no duration."""
    entry = one(LINE + tail)

    assert isinstance(entry, Visit)
    assert entry.seconds == 1.25


def test_json_times_with_milliseconds_are_exact():
    """nginx's own have whole seconds; a collector may write others."""
    line = '{{"time_iso8601":"2026-11-25T10:00:07{}+00:00","request_uri":"/a"}}'
    whole, precise = one(line.format("")), one(line.format(".250"))

    assert isinstance(whole, Visit)
    assert isinstance(precise, Visit)
    assert not whole.exact
    assert precise.exact
    assert precise.end - whole.end == 0.25


def test_combined_alone_has_no_duration():
    """Then the caller says how long a request lasts."""
    entry = one(LINE)

    assert isinstance(entry, Visit)
    assert entry.seconds is None


def test_combined_may_be_named():
    """As in `access_log FILE combined`, the one format that nginx defines."""
    assert one(LINE, "combined") == one(LINE)


def test_the_labs_own_json_is_read_without_being_told():
    """The last attempt's time counts: that server did the work."""
    entry = one(
        '{"msec":"100.250","request_time":"0.9","remote_addr":"10.0.0.1","request_method":"GET",'
        '"request_uri":"/a","status":"200","upstream_addr":"10.0.0.2:80, 10.0.0.3:80",'
        '"upstream_response_time":"0.100, 0.750"}'
    )

    assert isinstance(entry, Visit)
    assert (entry.end, entry.exact, entry.seconds) == (100.25, True, 0.75)
    assert (entry.server, entry.uri) == ("10.0.0.3:80", "/a")


def test_a_format_as_nginx_writes_it_names_every_field():
    """Variables may stand in braces, beside each other's quotes, and hold lists."""
    log_format = (
        "${remote_addr}|$msec|$request_method $request_uri|[$upstream_addr]|"
        '$upstream_response_time|"$http_x_user"'
    )

    entry = one('10.0.0.9|5.5|GET /x?a=1|[a:1, b:1]|0.1, 0.2|"u-7"', log_format)

    assert isinstance(entry, Visit)
    assert (entry.uri, entry.server, entry.seconds) == ("/x?a=1", "b:1", 0.2)
    assert entry.headers == {"x-user": "u-7"}


@pytest.mark.parametrize("form", ["{}", "log_format x '{}';", "log_format x escape=json '{}';"])
def test_a_tab_is_written_as_in_the_config(form):
    r"""nginx reads `\t` in a directive as a tab."""
    entry = one("10.0.0.9\t5.5\tGET /x HTTP/1.1", form.format(r"$remote_addr\t$msec\t$request"))

    assert isinstance(entry, Visit)
    assert (entry.client_ip, entry.end, entry.uri) == ("10.0.0.9", 5.5, "/x")


def test_a_format_without_a_request_or_a_time_is_refused():
    """It names what is missing."""
    for empty in ("$remote_addr [$time_local]", "log_format ", "log_format x escape=json"):
        with pytest.raises(UsageError, match=r"no \$request"):
            list(visits([b""], empty))
    with pytest.raises(UsageError, match="no time"):
        list(visits([b""], '$remote_addr "$request"'))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("hello", "not in the format"),
        ("{", "Expecting"),
        ('{"msec": "1", "request_uri": "/"', "delimiter"),
        ('{"request_uri": "/"}', "no time"),
        ('{"msec": "1e400", "request_uri": "/"}', "not a time"),
        ('{"msec": "abc", "request_uri": "/"}', 'not a time: "abc"'),
        ('{"msec": "1", "request_uri": "/", "request_time": "3ms"}', 'not a time: "3ms"'),
        ('{"msec": "1"}', "no request line"),
        ('{"msec": "1", "request_uri": "/", "remote_addr": "gw"}', 'not an IP address: "gw"'),
        ('{"msec": "1", "request_uri": "/", "status": "OK"}', 'not a status: "OK"'),
        (LINE.replace("25/Nov", "25/Nob"), "not a time"),
        (LINE.replace("POST /v1/chat/completions HTTP/1.1", r"\x16\x03\x01"), "no request line"),
    ],
)
def test_a_line_that_holds_no_request_says_why(line, reason):
    """It is counted and named, never a traceback."""
    entry = one(line)

    assert isinstance(entry, Malformed)
    assert reason in entry.reason


COMBINED = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
    '"$http_referer" "$http_user_agent"'
)


def test_the_combined_format_by_name_reads_the_same_line():
    """nginx's own text of its combined format."""
    told, untold = one(LINE, COMBINED), one(LINE)

    assert isinstance(told, Visit)
    assert isinstance(untold, Visit)
    assert (told.end, told.uri, told.client_ip) == (untold.end, untold.uri, untold.client_ip)


PREFIXES = [
    "nginx-1  | ",
    "nginx-1  | 2026-11-26T10:00:00.000000000Z ",
    "<190>Nov 26 10:00:00 gw nginx: ",
    "<190>Nov  6 10:00:00 nginx: ",
    "2026-11-26T10:00:00.123456+00:00 gw nginx[12]: ",
    "<190>1 2026-11-26T10:00:00.123Z gw nginx 12 - - ",
    '1 - gw nginx - access [a@1 x="[y\\]"][b@2 z=""] \ufeff',
    "Nov 26 10:00:00.123456 gw nginx[12]: ",
    "Thu 2026-11-26 10:00:00 UTC gw nginx[12]: ",
    "[pod/gw-7c9/nginx] ",
    "\ufeff",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_a_collector_puts_before_a_line_is_skipped(prefix):
    """docker compose logs, kubectl, syslog, a byte order mark: before text and before JSON."""
    json_line = '{"msec":"5.0","request_uri":"/a"}'

    assert one(prefix + LINE) == one(LINE)
    assert one(prefix + LINE, COMBINED) == one(LINE, COMBINED)
    assert one(prefix + json_line) == one(json_line)


@pytest.mark.parametrize("attrs", ["", '"attrs":{"tag":"gw"},'])
def test_a_line_in_dockers_own_file_is_the_line_that_nginx_wrote(attrs):
    """The json-file driver writes the line as JSON, and the labels of `log-opts` after it."""
    around = f'{{"log":%s,"stream":"stdout",{attrs}"time":"2026-11-26T10:00:00.1Z"}}'
    json_line = '{"msec":"5.0","request_uri":"/a\\u0022"}'

    for line, log_format in ((LINE, ""), (LINE, COMBINED), (json_line, "")):
        entry = one(around % json.dumps(f"{line}\n"), log_format)

        assert isinstance(entry, Visit)
        assert entry == one(line, log_format)


def test_a_line_of_journalctl_as_json_is_the_line_that_nginx_wrote():
    """The key of the message stands anywhere among the others."""
    entry = {"MESSAGE": LINE, "__REALTIME_TIMESTAMP": "1", "PRIORITY": "6"}

    assert one(json.dumps(entry)) == one(LINE)
    assert one(json.dumps(entry), COMBINED) == one(LINE)


@pytest.mark.parametrize(
    ("escape", "logged", "uri"),
    [
        ("", r"/a\x22b\xC3\xA9", '/a"bé'),
        ("escape=default ", r"/a\x5Cb", "/a\\b"),
        ("escape=json ", r"/a\"b\\c\u001F", '/a"b\\c\x1f'),
        ("escape=none ", r'/a"b\x22', r'/a"b\x22'),
    ],
)
def test_the_uri_is_the_one_that_the_client_sent(escape, logged, uri):
    """nginx escapes it in three ways; the hash is of what was sent. The directive says which."""
    directive = f"""log_format main {escape}'$remote_addr $msec '
        '"$request_uri" $status';"""

    entry = one(f'::1 5.0 "{logged}" 200', directive)

    assert isinstance(entry, Visit)
    assert entry.uri == uri


def test_combined_and_json_without_an_escape_are_unescaped_too():
    """A JSON format without `escape=json` writes a quote as JSON does not."""
    text = one(LINE.replace("completions", r"a\x22b\xFF"))
    json_line = one(r'{"msec":"5.0","request_uri":"/a\x22b\x5C\xC3\xA9"}')

    assert isinstance(text, Visit)
    assert isinstance(json_line, Visit)
    assert text.uri == '/v1/chat/a"b\udcff'
    assert json_line.uri == '/a"b\\é'


@pytest.mark.parametrize("client", ["unix:", "::ffff:10.0.0.1"])
@pytest.mark.parametrize("user", ["-", "bob", "Bob Smith"])
def test_any_client_and_user_stand_in_a_combined_line(client, user):
    """A unix socket has no address; a user of Basic authorization may have spaces."""
    entry = one(LINE.replace("203.0.113.9 - -", f"{client} - {user}"))

    assert isinstance(entry, Visit)
    assert entry.client_ip == client


@pytest.mark.parametrize("address", ["[::1]:80", "10.0.0.1:80, [::1]:80", "u : [::1]:80"])
def test_a_list_of_attempts_may_stand_in_brackets(address):
    """The last of several addresses, in IPv6's brackets inside of the format's."""
    entry = one(f"5.0 /a [{address}] 0.1, 0.2|", "$msec $uri [$upstream_addr] $request_time|")

    assert isinstance(entry, Visit)
    assert entry.server == "[::1]:80"


def test_a_long_line_of_another_format_is_malformed_at_once():
    """It is not searched for every way to split it into lists."""
    log_format = "$msec $uri $upstream_addr $upstream_status $upstream_response_time $request_time"
    for text in ("a, ", "a : ", "[", "a|", "\\x"):
        assert isinstance(one("5.0 /a " + text * 20_000 + '"', log_format), Malformed)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_visit_or_malformed(line):
    """No line stops the reading."""
    assert len(list(visits([line]))) == 1
