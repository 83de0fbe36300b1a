"""A log is opened whatever it is packed in."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.evidence.log_file import opened
from nginx_llm_lab.evidence.split import count_file

LINES = "".join(f'"GET /{n}\u2028é" to: 10.0.0.{n % 2}:80\n' for n in range(20_000)).encode()


def read(path: Path, content: bytes) -> bytes:
    """What is read from a file of that content, line by line."""
    path.write_bytes(content)
    with opened(str(path)) as log:
        return b"".join(log)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_log_is_known_by_its_first_bytes(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """Rotated logs are compressed by any of them."""
    assert read(tmp_path / "access.log.1", pack(LINES)) == LINES


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_decoded(tmp_path: Path, codec: str) -> None:
    """PowerShell writes it; a character may end in the next block, and U+2028 ends no line."""
    text = "\ufeff" + LINES.decode()

    assert read(tmp_path / "log", text.encode(codec)) == LINES


@pytest.mark.parametrize("between", [b"", b"\n"])
def test_octet_counted_syslog_has_one_message_a_line(tmp_path: Path, between: bytes) -> None:
    """RFC 6587 has no newline between messages; some collectors write one."""
    messages = [b"<190>Nov 25 10:00:07 web nginx: " + line for line in LINES.splitlines()[:99]]
    log = b"".join(b"%d %s%s" % (len(text), text, between) for text in messages)

    assert read(tmp_path / "log", log).splitlines() == messages


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bz2.compress(LINES)[:200], "cannot be read: "),
        (b"BZhnonsense", "cannot be read: "),
        (lzma.compress(LINES)[:200], "cannot be read: "),
        (lzma.compress(LINES)[:100] + b"x" * 200, "cannot be read: "),
        (b"9 <190>a: bx <190>", "length of a syslog message is not a number: b'x'"),
        (b"\x28\xb5\x2f\xfd1234", r"is compressed with zstd\ntry:   unpack it first: zstdcat FILE"),
        (b"PK\x03\x04xyz", "is a zip archive"),
        (b"LPKSHHRH", "is a binary file of systemd's journal"),
    ],
)
def test_what_is_damaged_or_not_read_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    """The error says what the file is, and what to do next."""
    path = tmp_path / "access.log"
    path.write_bytes(content)

    with pytest.raises(UsageError, match=message) as error:
        count_file(str(path))
    assert str(path) in error.value.message
