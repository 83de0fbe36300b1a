"""The command: what it prints, and how it leaves."""

import gzip
import json
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from nginx_llm_lab.cli import main, prints_interruption_notes
from nginx_llm_lab.signals import Terminated

LAB = str(Path(sys.executable).with_name("lab"))
LINE = b'127.0.0.1:5 / - - [02/Mar/2025:21:10:11 +0800] "GET / HTTP/1.0" 200 18 "-" "ab" "-" to: '


def lab(*words, stdin=b""):
    """Run the command as a user does."""
    return subprocess.run([LAB, *words], input=stdin, capture_output=True, check=False)


@pytest.fixture
def refusal(monkeypatch, capsys):
    """Run a command that is to be refused in this process, which has its libraries; its stderr."""
    before = signal.getsignal(signal.SIGTERM)

    def refused(*words):
        monkeypatch.setattr(sys, "argv", ["lab", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert ended.value.code == 2, printed
        assert not printed.out
        return printed.err

    with patch.dict("os.environ"):  # where options such as --port go
        yield refused
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    "words",
    [
        ("use", "fair"),
        ("predict",),
        ("predict", "fair", "--servers", "a:1"),
        ("predict", "hash", "--servers", "a:1 weight=0"),
        ("predict", "--conf", "/nowhere/nginx.conf"),
        ("judge", "/nowhere"),
        ("split", "/nowhere"),
        ("load", "nowhere"),
        ("verify", "/nowhere/nginx.conf"),
        ("nonsense",),
        ("--port", "x", "up"),
        ("up", "--backends", "33"),
        ("advise", "--fleet", "fleet.yaml", "--servers", "4"),
        ("advise", "--log", "/nowhere", "--service-time", "nan"),
        ("advise", "--fleet", "fleet.yaml", "--config", "/nowhere/nginx.conf"),
        ("simulate", "uniform_chat", "--duration", "nan"),
        ("simulate", "uniform_chat", "--duration", "-1"),
        ("simulate", "uniform_chat", "--seed", "-1"),
        ("simulate", "uniform_chat", "--speed", "0"),
        ("simulate", "--validate", "--backends", "5"),
        ("load", "uniform_chat", "--limit", "5"),
        ("load", "uniform_chat", "--weights", "3,2,1"),
        ("load", "uniform_chat", "--method", "random", "--weights", "3,2"),
    ],
)
def test_wrong_usage_is_two_lines_and_exit_code_2(words, refusal):
    """No traceback for an error that a user can fix."""
    error = refusal(*words)

    assert error.strip()
    assert "Traceback" not in error


def test_the_list_of_commands_cuts_off_no_description():
    """Each fits a line of 80 columns."""
    listed = lab("--help").stdout.decode().partition("Commands:")[2].splitlines()

    assert len(listed) > 20
    assert [line for line in listed if line.endswith("...")] == []


def test_advice_on_a_log_without_durations_is_refused():
    """Requests that last no time never overlap: all methods would tie."""
    done = lab("advise", "--log", "-", stdin=(LINE + b"127.0.0.1:8001\n") * 3)

    assert done.returncode == 2
    assert b"has no durations" in done.stderr
    assert b"--service-time" in done.stderr


def test_a_log_piped_in_is_counted():
    """The article's lines, one of them broken."""
    log = (
        LINE + b"127.0.0.1:8001\n" + LINE + b"127.0.0.1:8002\nbroken\n" + LINE + b"127.0.0.1:8001\n"
    )

    done = lab("split", "--json", stdin=log)

    printed = json.loads(done.stdout)
    assert printed["split"] == {"127.0.0.1:8001": 2, "127.0.0.1:8002": 1}
    assert printed["malformed_lines"] == [3]
    assert done.returncode == 0


@pytest.mark.parametrize("verb", ["split", "whatif"])
def test_a_damaged_gzip_log_is_named(verb, tmp_path):
    """No traceback for bytes that do not unpack."""
    packed = bytearray(gzip.compress(LINE * 100, mtime=0))
    packed[10:30] = b"\xff" * 20
    log = tmp_path / "access.log.gz"
    log.write_bytes(packed)

    done = lab(verb, str(log))

    assert done.returncode == 2, done.stderr
    assert f'log "{log}" cannot be read'.encode() in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--servers", "a:1 weight=2,b:1"),
        ("--servers", "a:1 weight=2", "--servers", "b:1"),
        ("--servers", "a:1", "b:1", "--weights", "2,1"),
    ],
)
def test_servers_can_be_named_in_several_ways(words):
    """With commas, one by one, or in a row."""
    done = lab("predict", "round_robin", *words, "--requests", "-", stdin=b"{}\n{}\n{}\n")

    picks = [json.loads(line)["server"] for line in done.stdout.splitlines()]
    assert picks == ["a:1", "b:1", "a:1"]


def test_a_prompt_is_predicted_by_its_start():
    """The map in the method's own file says what is hashed."""
    body = json.dumps({"message": "x" * 300})
    lines = [json.dumps({"method": "POST", "uri": uri, "body": body}) for uri in ("/a", "/b", "/c")]

    done = lab(
        "predict", "prompt_prefix", "--servers", "a:1,b:1,c:1", stdin="\n".join(lines).encode()
    )

    assert len({json.loads(line)["server"] for line in done.stdout.splitlines()}) == 1
    assert len(done.stdout.splitlines()) == 3


def test_a_malformed_request_is_named_by_its_number():
    """What was predicted before it is there."""
    done = lab("predict", "round_robin", "--servers", "a:1,b:1", stdin=b"{}\nnot json\n")

    assert done.returncode == 2
    assert json.loads(done.stdout)["server"] == "a:1"
    assert b"stdin:2" in done.stderr


def test_every_verb_explains_itself():
    """--help of each."""
    listed = lab("--help").stdout.decode()
    verbs = ["up", "down", "status", "methods", "use", "ab", "split", "run", "judge", "predict"]
    verbs += ["verify", "chat", "complete", "stress", "load", "compare", "fault", "heal", "soak"]

    assert [verb for verb in verbs if f" {verb} " not in listed] == []
    assert lab("run", "--help").returncode == 0


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("predict round_robin --servers a --key $uri", "round_robin takes no key"),
        ("simulate heavy_tail --method random,sticky --key $uri", "random, sticky takes no key"),
        ("simulate heavy_tail --method least_conn,", 'no method ""'),
        ("simulate heavy_tail --duration -1", "seconds from 0, which is the scenario's own"),
        ("simulate --validate --speed 2", "--speed has no effect with --validate"),
        ("compare --resume folder --repeats 5", "has the options in folder/compare.json"),
        ("advise --log access.log --config .", "--config . is a folder"),
        ("report . -o no-such/r.html", "--output no-such/r.html: no folder no-such"),
        ("whatif access.log --key=", "--key is empty"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused_at_once(words, error, refusal):
    """It is named, before anything is run or written."""
    assert error in refusal(*words.split())


def test_methods_as_json_name_their_directives():
    """For programs."""
    records = {method["name"]: method for method in json.loads(lab("methods", "--json").stdout)}

    assert records["least_conn"]["directive"] == "least_conn;"
    assert records["sticky"]["needs_nginx"] == "1.29.6"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, Terminated])
def test_what_stopped_a_simulation_decides_the_exit_code(interruption):
    """typer ends a KeyboardInterrupt with 130; SIGTERM has to reach the command as itself."""

    def verb():
        raise KeyboardInterrupt from interruption()

    with pytest.raises((KeyboardInterrupt, Terminated)) as raised:
        prints_interruption_notes(verb, ["lab", "simulate"])()

    assert isinstance(raised.value, Terminated) == (interruption is Terminated)


def test_an_error_in_a_config_from_a_pipe_names_the_pipe():
    """Not the lab's temporary copy."""
    done = lab("verify", "-", stdin=b"events {}\nhttp {")

    assert done.returncode == 2
    assert b'unexpected end of file, expecting "}" in -:2' in done.stderr
