"""Granted credentials: fetched for a run, given to the brain's environment alone, and blotted out of all that comes back.

Surprise: a value has more faces than one. It may come back in base64, whose letters depend on what stands before it,
URL-encoded, escaped as JSON, or a line at a time; each face is replaced by the credential's name. Values shorter than four
characters are not looked for: they are in every text.
"""
import base64
import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import IO
from urllib.parse import quote, quote_plus

from .client import Client

LEAST, LEAST_OF_A_PART = 4, 8  # characters of a value, and of a line or an encoding of it, that is looked for


class Refused(Exception):
    """A granted credential cannot be read now."""


class Wallet:
    """The values that were granted, by version: one that did not change is not asked for again in this cycle."""

    def __init__(self, client: Client):
        self.client = client
        self._values: dict[tuple[str, int], str] = {}

    def open(self) -> dict[str, str]:
        """The value of every granted credential by its key. Refused with the reason."""
        status, found = self.client.call("GET", "/credentials")
        if status != 200:
            raise Refused(f"The credentials cannot be listed: {found['message']}")
        mine = [(one["key"], one["version"]) for one in found]
        self._values = {name: self._values.get(name) or self._read(name[0]) for name in mine}
        return {key: value for (key, _), value in self._values.items()}

    def _read(self, key: str) -> str:
        status, found = self.client.call("GET", f"/credentials/{key}")
        if status != 200:
            raise Refused(f"The credential {key} cannot be read: {found['message']}")
        return str(found["value"])


class Blotter:
    """Replaces every face of some values by their names."""

    def __init__(self, values: dict[str, str]):
        self.names = {face: f"[{key}]" for key, value in values.items() for face in faces(value)}
        either = "|".join(re.escape(face) for face in sorted(self.names, key=len, reverse=True))
        self.pattern = re.compile(either) if either else None
        self.longest = max(map(len, self.names), default=0)

    def __call__(self, text: str) -> str:
        return self.pattern.sub(lambda found: self.names[found[0]], text) if self.pattern else text

    def lines(self, pipe: IO[bytes], width: int) -> Iterator[str]:
        """The lines of a pipe, blotted; very long ones in pieces."""
        text = Blotted(self, width)
        while raw := pipe.readline(width):
            yield from text.take(raw)
        yield from text.rest()


class Blotted:
    """A stream of bytes as blotted text, in lines that keep their ends; very long ones in pieces, where no value is cut before it is looked for."""

    def __init__(self, blot: Blotter, width: int):
        self.blot, self.width, self._held = blot, width, ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, raw: bytes) -> Iterator[str]:
        """What is whole by now."""
        *whole, last = (self._held + self._decoder.decode(raw)).split("\n")
        for line in whole:
            yield self.blot(line + "\n")
        self._held = last
        if len(last) > self.width + self.blot.longest:
            held = self.blot(last)
            at = max(0, len(held) - self.blot.longest)
            yield held[:at]
            self._held = held[at:]

    def rest(self) -> Iterator[str]:
        """What is left at the end."""
        if held := self.blot(self._held + self._decoder.decode(b"", final=True)):
            yield held


def faces(value: str) -> set[str]:
    """How a value may look in a text."""
    if len(value) < LEAST:
        return set()
    whole = {value, quote(value, safe=""), quote(value), quote_plus(value), json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    parts = {line.strip() for line in value.splitlines()} | set(_in_base64(value.encode(), base64.b64encode)) | set(
        _in_base64(value.encode(), base64.urlsafe_b64encode))
    return whole | {part for part in parts if len(part) >= LEAST_OF_A_PART}


def _in_base64(raw: bytes, encode: Callable[[bytes], bytes]) -> Iterator[str]:
    """The letters that only these bytes decide, for each of three places where they may begin in a group."""
    for before in range(3):
        first, last = (8 * before + 5) // 6, 8 * (before + len(raw)) // 6
        yield encode(b"\0" * before + raw).decode()[first:last]
