"""Requests as they come in: waitress's parser, held to RFC 9112 where the difference would matter.

What two programs could read differently is refused and its connection closed, so that no byte behind it is ever taken
for a request: a coding beside a length, a coding twice or in HTTP/1.0, a chunk or a trailer out of shape. What can
never become a request, a TLS hello for example, is refused at its first byte.
Surprise: programs send the same head again and again. What was understood of one is kept, and taken for the next that is the same.
"""
import re
from typing import Any

from waitress.buffers import OverflowableBuffer
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.receiver import ChunkedReceiver, FixedStreamReceiver
from waitress.utilities import BadRequest

LONGEST_LINE = 4096  # bytes before a chunk
HEADS, LONGEST_HEAD = 256, 2048  # heads that are kept, and bytes of one
UNDERSTOOD = ("first_line", "request_uri", "command", "version", "proxy_scheme", "proxy_netloc", "path", "query", "fragment", "url_scheme",
              "connection_close", "expect_continue", "content_length", "headers", "said")  # all that parsing a head sets, but for the body
NAMED = {"CONTENT_TYPE": "CONTENT_TYPE", "CONTENT_LENGTH": "CONTENT_LENGTH"}  # the others have a prefix
_LINE = re.compile(rb"[^ ]+ [^ #]+ HTTP/(\d)\.(\d)")
_CODING = re.compile(rb"\r\ntransfer-encoding:([^\r]*)", re.IGNORECASE)
_LENGTH = re.compile(rb"(?<=\r\ncontent-length:)[ \t]*\d{19,}[ \t]*(?=\r\n)", re.IGNORECASE)
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*")


_heads: dict[bytes, dict[str, Any]] = {}


class Parser(HTTPRequestParser):
    """A request as it comes in. `error` is set where it is none, and then it is the last of its connection."""

    begun = False
    said: dict[str, Any]  # the head, as WSGI has it

    def received(self, data: bytes) -> int:
        if not self.begun and (first := data.lstrip(b"\r\n")[:1]):
            self.begun = True
            if not first.isalpha():  # the end of its headers would never come
                self.parse_header(b"GET / HTTP/1.0\r\n")
                self.error = BadRequest("That is no HTTP request; this port speaks plain HTTP")
                self.completed = True
                return len(data)
        consumed = int(super().received(data))
        if self.error:
            self.expect_continue = False  # nobody is asked for more
        return consumed

    def environment(self) -> dict[str, Any]:
        """The request as WSGI has it, as much of it as anybody reads."""
        said = self._said() if self.chunked else self.said  # how long a chunked body is, is known by now
        return {**said, "wsgi.input": self.get_body_stream()}

    def _said(self) -> dict[str, Any]:
        path = "/" + self.path.lstrip("/") if self.path.startswith("/") else self.path
        return {"REQUEST_METHOD": self.command.upper(), "PATH_INFO": path, "QUERY_STRING": self.query, "SERVER_PROTOCOL": f"HTTP/{self.version}",
                **{NAMED.get(name, "HTTP_" + name): value for name, value in self.headers.items()}}

    def parse_header(self, header_plus: bytes) -> None:
        known = _heads.get(header_plus)
        if known is None:
            return self._parse_header(header_plus)
        self.__dict__.update(known)
        if self.content_length:
            self.body_rcv = FixedStreamReceiver(self.content_length, OverflowableBuffer(self.adj.inbuf_overflow))

    def _parse_header(self, raw: bytes) -> None:
        header_plus = raw
        line, _, _ = header_plus.partition(b"\r\n")
        self.command, self.path = "HEAD" if line.startswith(b"HEAD ") else "", "/"  # for what looks at a request that could not be parsed
        found = _LINE.fullmatch(line.rstrip())
        if found is None and not re.search(rb"[\r\n]", line):
            raise ParsingError("Start line is invalid: it is METHOD /path HTTP/1.1")
        if found and found[1] != b"1":
            raise ParsingError("This port speaks HTTP/1.1")
        if found and found[2] not in b"01":  # a later one is read as the latest that is known
            header_plus = header_plus.replace(line, line.rstrip()[:-1] + b"1", 1)
        header_plus = _LENGTH.sub(_readable, header_plus)
        self._framed(header_plus, old=bool(found and found[2] == b"0"))
        super().parse_header(header_plus)
        self._hosted()
        if self.chunked:
            self.body_rcv = Chunks(OverflowableBuffer(self.adj.inbuf_overflow))
            return
        if not self.content_length:
            self.expect_continue = False  # there is nothing to wait for
        self.said = self._said()
        if len(raw) <= LONGEST_HEAD:
            if len(_heads) >= HEADS:
                _heads.clear()
            _heads[raw] = {name: getattr(self, name) for name in UNDERSTOOD}

    @staticmethod
    def _framed(header_plus: bytes, *, old: bool) -> None:
        """See to it that there is one way to tell where the body ends."""
        codings = _CODING.findall(header_plus)
        if not codings:
            return
        if old:
            raise ParsingError("Transfer-Encoding is no part of HTTP/1.0")
        if re.search(rb"\r\ncontent-length:", header_plus, re.IGNORECASE):
            raise ParsingError("Content-Length and Transfer-Encoding stand together")
        words = [word.strip().lower() for word in b",".join(codings).split(b",")]
        if words.count(b"chunked") > 1 or not all(words):
            raise ParsingError("Transfer-Encoding is invalid: only chunked is known, and once")

    def _hosted(self) -> None:
        """A target with a host of its own counts more than the header."""
        if self.proxy_scheme:
            if not self.proxy_netloc or "@" in self.proxy_netloc:
                raise ParsingError("The target names no host")
            self.headers["HOST"] = self.proxy_netloc
        if self.version == "1.1" and not self.headers.get("HOST"):
            raise ParsingError("Host is missing")


def _readable(length: re.Match[bytes]) -> bytes:
    """A length that Python reads as a number, and too large where it was."""
    digits = length[0].strip().lstrip(b"0") or b"0"
    return digits if len(digits) < 19 else b"9" * 18


class Chunks(ChunkedReceiver):
    """A chunked body. waitress reads over empty lines between chunks, and whatever a trailer holds; this does not."""

    def received(self, data: bytes) -> int:
        taken = 0
        while taken < len(data) and not self.completed and not self.error:
            taken += super().received(self._next(data[taken:]))
        trailer = self.trailer.rstrip(b"\r\n")  # half of a line end, where that came in two pieces, is none
        if self.completed and trailer and not all(map(_TRAILER.fullmatch, trailer.split(b"\r\n"))):
            self.error = BadRequest("Invalid trailer")
        return taken

    def _next(self, data: bytes) -> bytes:
        """As much as belongs together: a line, a chunk, or what ends it."""
        if self.chunk_remainder:
            return data[:self.chunk_remainder]
        if self.validate_chunk_end:
            return data[:2 - len(self.chunk_end)]
        if self.all_chunks_received:
            return data
        piece = data[:data.find(b"\n") + 1 or len(data)]
        line = self.control_line + piece
        if line == b"\r\n" or len(line) > LONGEST_LINE:
            self.error = BadRequest("Invalid chunk size")
            self.all_chunks_received = True
        return piece
