"""Open a log or a trace: decompress it, decode UTF-16, split octet-counted syslog into lines."""

import codecs
import importlib
import io
import lzma
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from ..errors import UsageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BLOCK = 1 << 16  # bytes decoded at a time
_LONGEST_COUNT = 10  # characters before a syslog message
# the modules that decompress, by a file's first bytes; a plain log is read without them
_MODULES = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\x00": "lzma"}
_UNREAD = {
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "zstdcat FILE"),
    b"PK\x03\x04": ("a zip archive", "unzip -p FILE"),
    b"LPKSHHRH": ("a binary file of systemd's journal", "journalctl --file FILE -o cat"),
}
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_FRAME = re.compile(rb"\d{1,6} <\d{1,3}>")


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """A log or a trace as plain lines; stdin's for "-".

    gzip, bzip2, xz, UTF-16 with a byte order mark and octet-counted syslog (RFC 6587) are known by
    the first bytes. OSError, also while it is read, if the file is missing or damaged; UsageError
    for a format that is recognised but not read.
    """
    try:
        with nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as file:
            yield _plain(_decompressed(cast("io.BufferedReader", file), path))
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise OSError(str(error)) from None


def _decompressed(file: io.BufferedReader, path: str) -> io.BufferedReader:
    start = file.peek(8)
    for magic, (what, command) in _UNREAD.items():
        if start.startswith(magic):
            where = "stdin" if path == "-" else f'"{path}"'
            raise UsageError(f"{where} is {what}", f"unpack it first: {command}")
    for magic, module in _MODULES.items():
        if start.startswith(magic):
            return cast("io.BufferedReader", importlib.import_module(module).open(file))
    return file


def _plain(file: io.BufferedReader) -> BinaryIO:
    """A file's lines as UTF-8, without the lengths that stand before syslog messages."""
    start = file.peek(16)
    if start.startswith(_UTF_16):
        return io.BufferedReader(_Chunks(_as_utf_8(file)))
    return io.BufferedReader(_Chunks(_messages(file))) if _FRAME.match(start) else file


def _as_utf_8(file: BinaryIO) -> Iterator[bytes]:
    blocks = iter(partial(file.read, _BLOCK), b"")
    return (text.encode() for text in codecs.iterdecode(blocks, "utf-16", "replace"))


def _messages(file: BinaryIO) -> Iterator[bytes]:
    """The messages of octet-counted syslog, one a line."""
    while count := _count(file):
        yield file.read(count).rstrip(b"\n") + b"\n"


def _count(file: BinaryIO) -> int:
    """The length that stands before a message; 0 at the end of the file."""
    text = b""
    while (byte := file.read(1)) not in (b"", b" ") and len(text) < _LONGEST_COUNT:
        text += byte
    digits = text.strip() or b"0"
    if not digits.isdigit():
        raise OSError(f"the length of a syslog message is not a number: {digits!r}")
    return int(digits)


class _Chunks(io.RawIOBase):
    """A file made of chunks of bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        """Return True: it can be read."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill a buffer; return how many bytes were written, 0 at the end."""
        view = memoryview(buffer)
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        size = min(len(view), len(self._rest))
        view[:size], self._rest = self._rest[:size], self._rest[size:]
        return size
