"""Streams: answers that are a part of a file, sent as their client reads them.

Neither memory nor a thread holds them: the loop reads the next few kilobytes when the socket takes them. Surprise: the file is
open from the moment it is answered, so that a name which is removed or replaced meanwhile changes nothing of what is being sent.
"""
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from waitress.buffers import ReadOnlyFileBasedBuffer

from orkosi import Document, Problem
from plugins import folders

BLOCK = 64 << 10


class NoSuchPart(Problem):
    """The part of the file that was asked for is not in it; `Content-Range` says how long it is."""
    status, code = 416, "range_not_satisfiable"


class Part:
    """Some bytes of an open file; as long as they are many."""

    def __init__(self, file: BinaryIO, start: int, size: int):
        self.file, self.size = file, size
        file.seek(start)

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        left = self.size
        while left and (block := self.file.read(min(BLOCK, left))):
            left -= len(block)
            yield block
        self.close()

    def buffer(self) -> ReadOnlyFileBasedBuffer:
        """The same for waitress, which closes it."""
        made = ReadOnlyFileBasedBuffer(self.file, BLOCK)
        made.prepare(self.size)
        return made

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()


def download(path: Path, name: str, wanted: str = "") -> Document:
    """A file as a download called `name`, or the part of it that a `Range` header names. OSError, NoSuchPart."""
    file = os.fdopen(folders.open_plain(path), "rb")
    whole = os.fstat(file.fileno()).st_size
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Accept-Ranges": "bytes", "Cache-Control": "no-store"}
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", wanted.strip())
    if not found or not (found[1] or found[2]):  # several parts, or another unit: all of it, as is allowed
        return _sent(Part(file, 0, whole), headers, 200)
    start = int(found[1]) if found[1] else max(0, whole - int(found[2]))
    end = min(whole, int(found[2]) + 1) if found[1] and found[2] else whole
    if start >= end:
        file.close()
        raise NoSuchPart(f"The file has {whole} bytes", headers={"Content-Range": f"bytes */{whole}"})
    return _sent(Part(file, start, end - start), headers | {"Content-Range": f"bytes {start}-{end - 1}/{whole}"}, 206)


def _sent(part: Any, headers: dict[str, str], status: int) -> Document:
    return Document(part, "application/octet-stream", headers, status)
