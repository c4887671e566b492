"""Sealed: the form of a backup's file, in which every byte is known to be the one that was written.

A line of magic, a header in JSON that everybody may read, then chunks of compressed data, each sealed with AES-256-GCM under a key
that is derived from the vault's master key and the file's own salt. A chunk is bound to the header, to its place, and to whether it
is the last one: none can be changed, left out, moved, or taken from another backup.
Surprise: reading may fail at the very end. Nothing that was read may be used before `finish` says that all of it was there.
"""
import hashlib
import io
import json
import os
import zlib
from contextlib import suppress
from typing import Any, BinaryIO

from orkosi import Unprocessable
from plugins import vault

MAGIC = b"ORKOSI BACKUP 1\n"
CHUNK = 1 << 20
HEADER = 1 << 16  # bytes that a header has at most
TAG = 16
LOOSE = 4 << 20  # bytes that are written before the disk has to have them


class Damaged(Unprocessable):
    """The backup is not as it was written; use another one."""
    code = "backup_damaged"


def read_header(file: BinaryIO) -> dict[str, Any]:
    """What a backup says of itself, from its beginning. Damaged."""
    _, header = _begin(file)
    return header


def _begin(file: BinaryIO) -> tuple[bytes, dict[str, Any]]:
    start = file.read(len(MAGIC) + 4)
    if start[:len(MAGIC)] != MAGIC or len(start) < len(MAGIC) + 4:
        raise Damaged("That is no backup of Orkosi: its first bytes are others")
    size = int.from_bytes(start[len(MAGIC):], "big")
    raw = file.read(size) if size <= HEADER else b""
    try:
        header = json.loads(raw)
        if not isinstance(header, dict) or not isinstance(header["kek_id"], str):
            raise ValueError
        bytes.fromhex(header["salt"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Damaged("The header of the backup cannot be read") from None
    return start + raw, header


class Settling:
    """Has the disk take what is written to a file by 4 MB; a gigabyte at once would hold up whoever commits meanwhile for half a second."""

    def __init__(self, descriptor: int | None):
        self._descriptor, self._loose = descriptor, 0

    def wrote(self, size: int) -> None:
        """So many bytes more were handed to the system."""
        self._loose += size
        if self._loose >= LOOSE and self._descriptor is not None:
            self._loose = 0
            os.fsync(self._descriptor)


class Writer:
    """Takes bytes, and writes them compressed and sealed; `sha256` is that of the whole file."""

    def __init__(self, file: BinaryIO, header: dict[str, Any], key: bytes):
        raw = json.dumps(header, ensure_ascii=False).encode()
        self._file, self._cipher, self._zip = file, vault.cipher(key), zlib.compressobj(1)
        self._buffer, self._index, self.sha256, self.size = bytearray(), 0, hashlib.sha256(), 0
        self._settling = Settling(_descriptor(file))
        start = MAGIC + len(raw).to_bytes(4, "big") + raw
        self._bound = hashlib.sha256(start).digest()
        self._put(start)

    def write(self, raw: bytes) -> int:
        """Take some bytes."""
        self._buffer += self._zip.compress(raw)
        while len(self._buffer) > CHUNK:  # never the last one: that is told by `close`
            self._seal(bytes(self._buffer[:CHUNK]), False)
            del self._buffer[:CHUNK]
        return len(raw)

    def close(self) -> None:
        """Write the last chunk. Without it, the file is none."""
        self._buffer += self._zip.flush()
        while len(self._buffer) > CHUNK:
            self._seal(bytes(self._buffer[:CHUNK]), False)
            del self._buffer[:CHUNK]
        self._seal(bytes(self._buffer), True)

    def _seal(self, plain: bytes, last: bool) -> None:
        sealed = self._cipher.encrypt(_nonce(self._index), plain, _about(self._bound, self._index, last))
        self._put(bytes([last]) + len(sealed).to_bytes(4, "big") + sealed)
        self._index += 1

    def _put(self, raw: bytes) -> None:
        self._file.write(raw)
        self.sha256.update(raw)
        self.size += len(raw)
        self._settling.wrote(len(raw))


class Reader:
    """Gives the bytes back as they were taken; Damaged where they are not."""

    def __init__(self, file: BinaryIO, key: bytes):
        start, self.header = _begin(file)
        self._file, self._cipher, self._zip = file, vault.cipher(key), zlib.decompressobj()
        self._bound, self._index, self._last, self._buffer = hashlib.sha256(start).digest(), 0, False, bytearray()

    def read(self, size: int) -> bytes:
        """As many bytes as are asked for, or fewer at the end."""
        while len(self._buffer) < size and not self._last:
            self._more()
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found

    def finish(self) -> None:
        """See that nothing is missing at the end, and nothing was added."""
        while not self._last:
            self._buffer.clear()
            self._more()
        if not self._zip.eof or self._file.read(1):
            raise Damaged("The backup goes on after its end, or was cut there")

    def _more(self) -> None:
        start = self._file.read(5)
        size = int.from_bytes(start[1:], "big")
        if len(start) < 5 or start[0] > 1 or not TAG <= size <= CHUNK + TAG:
            raise Damaged(f"The backup is cut, or damaged, at chunk {self._index}")
        sealed, self._last = self._file.read(size), bool(start[0])
        try:
            plain = self._cipher.decrypt(_nonce(self._index), sealed, _about(self._bound, self._index, self._last))
            self._buffer += self._zip.decompress(plain)
        except (vault.invalid(), zlib.error, ValueError):
            raise Damaged(f"The backup is damaged at chunk {self._index}, or the key is another") from None
        self._index += 1


def _descriptor(file: BinaryIO) -> int | None:
    with suppress(io.UnsupportedOperation):
        return file.fileno()
    return None  # no file of a disk


def _nonce(index: int) -> bytes:
    return index.to_bytes(12, "big")  # the key is of this file alone


def _about(bound: bytes, index: int, last: bool) -> bytes:
    return bound + index.to_bytes(8, "big") + bytes([last])
