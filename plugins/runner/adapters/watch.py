"""The watch: who stands between a tool and its model, on loopback, and sees what the tool keeps to itself.

Tools hide why they wait: a wrong key is retried for minutes, `Retry-After: 3600` is slept through, a stream that fell silent is
never given up, an answer that was cut is handed on as whole. Everything is passed on as it comes; what went wrong is noted, and
where it will not mend itself, the tool is ended. Surprise: it owns no key. The tool sends its own, and it is passed on, too.
"""
import contextlib
import http.client
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from orkosi import Struct, clean

LIMIT = 3        # faults in turn, after which it is no use to go on; silence counts twice
SOON = 60.0      # seconds of Retry-After that a tool may wait for itself
MOST_BODY = 64 << 20
MOST_JSON = 8 << 20
TAIL = 2048      # bytes at the end of a stream, in which it must say that it is whole
HOP = ("connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-authorization", "host", "content-length", "expect")
WHOLE = (b"message_stop", b"response.completed", b"response.incomplete", b"response.failed", b"[DONE]", b"finishReason",
         b'"done":true', b'"done": true')


# How the makers name what an answer took, with what stands beside and is not in it.
READ = [re.compile(rb'"(?:%s)" ?: ?(\d+)' % names) for names in (
    rb"input_tokens|prompt_tokens|promptTokenCount|prompt_eval_count", rb"cache_read_input_tokens", rb"cache_creation_input_tokens")]
WRITTEN = [re.compile(rb'"(?:%s)" ?: ?(\d+)' % names) for names in (
    rb"output_tokens|completion_tokens|candidatesTokenCount|eval_count", rb"thoughtsTokenCount")]


class HungUp(Exception):
    """The tool does not want the answer any more."""


class Fault(Struct):
    """What went wrong with a request: whether that may pass, and when."""
    message: str
    later: bool
    retry_in: float | None = None
    weight: int = 1


class Watch(ThreadingHTTPServer):
    """A server for one tool, in front of `base_url`. `verdict` is set as soon as it is of no use to go on."""
    daemon_threads = True

    def __init__(self, base_url: str, patience: float, most_calls: int):
        super().__init__(("127.0.0.1", 0), Passing)
        self.base, self.patience, self.most_calls = urlsplit(base_url), patience, most_calls
        self.calls = self.in_turn = 0
        self.cut = False                   # some answer ended before it was whole
        self.last: Fault | None = None     # of the latest question to the model; None where it was answered
        self.verdict: Fault | None = None
        self.tokens_in = self.tokens_out = 0  # as the answers say; of use where the tool does not live to tell
        self._noting = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where the tool finds its model."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def connect(self) -> http.client.HTTPConnection:
        """A connection to where the model is."""
        kind = http.client.HTTPSConnection if self.base.scheme == "https" else http.client.HTTPConnection
        return kind(self.base.hostname or "", self.base.port, timeout=self.patience)

    def ask(self) -> bool:
        """Count a question to the model; False where there were too many."""
        with self._noting:
            self.calls += 1
            if self.calls > self.most_calls and self.verdict is None:
                self.verdict = Fault(f"It asked its model more than {self.most_calls} times; brain_most_calls allows more", False)
        return self.verdict is None

    def well(self, tail: bytes) -> None:
        """A question was answered, and the answer, of which this is the end, is whole."""
        with self._noting:
            self.last, self.in_turn = None, 0
            self.tokens_in += sum(int((found.findall(tail) or [b"0"])[-1]) for found in READ)
            self.tokens_out += sum(int((found.findall(tail) or [b"0"])[-1]) for found in WRITTEN)

    def went_wrong(self, fault: Fault) -> None:
        """Note what went wrong, and whether it is of no use to go on."""
        with self._noting:
            self.last, self.in_turn = fault, self.in_turn + fault.weight
            hopeless = self.in_turn >= LIMIT or (fault.retry_in or 0) > SOON
            if self.verdict is None and (hopeless or not fault.later and fault.weight > 1):
                self.verdict = fault

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A tool that hangs up is no news."""


def fault_of(status: int, headers: Any, body: bytes) -> Fault:
    """What an answer with an error means. A wrong key does not mend itself, and weighs as much as it takes to stop."""
    retry = None
    with contextlib.suppress(ValueError, TypeError):
        retry = float(headers.get("Retry-After"))
    later = status in (408, 409, 425, 429) or status >= 500
    refused = " the key" if status in (401, 403) else ""
    text = clean(body.decode(errors="replace"), 300).strip()
    return Fault(f"The model's server refused{refused} with {status}: {text}", later, retry if later else None, LIMIT if refused else 1)


def is_whole(kind: str, tail: bytes) -> bool:
    """Whether an answer of this type, of which this is the end, is all that was to be said."""
    if kind.startswith("application/json") and len(tail) < MOST_JSON:
        with contextlib.suppress(ValueError):
            return json.loads(tail) is not None
        return False
    return not kind.startswith(("text/event-stream", "application/x-ndjson")) or any(mark in tail for mark in WHOLE)


class Passing(BaseHTTPRequestHandler):
    """One request of the tool, passed on, and its answer passed back."""
    protocol_version = "HTTP/1.1"
    server: Watch

    def log_message(self, format: str, *args: Any) -> None:
        """It keeps no log."""

    def do_GET(self) -> None:
        """Ask the model's server."""
        self._pass_on()

    do_POST = do_HEAD = do_PUT = do_DELETE = do_OPTIONS = do_GET

    def _pass_on(self) -> None:
        asks, body = self.command == "POST", self._body()
        if asks and not self.server.ask():
            return self._refuse()
        connection = self.server.connect()
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            connection.request(self.command, self.server.base.path.rstrip("/") + self.path, body or None, headers | {
                "Host": self.server.base.netloc.rpartition("@")[2], "Content-Length": str(len(body))})
            answer = connection.getresponse()
            self._pass_back(answer, asks)
        except HungUp:
            self.close_connection = True
        except TimeoutError:
            self._broken(asks, Fault(f"The model said nothing for {self.server.patience:g} s", True, weight=2))
        except (OSError, http.client.HTTPException) as error:
            self._broken(asks, Fault(f"The model at {self.server.base.netloc} cannot be reached: {error}", True))
        finally:
            connection.close()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(min(int(self.headers.get("Content-Length") or 0), MOST_BODY))
        pieces = bytearray()
        while (size := int(self.rfile.readline(100).split(b";")[0], 16)) and len(pieces) < MOST_BODY:
            pieces += self.rfile.read(size)
            self.rfile.readline(100)
        self.rfile.readline(100)
        return bytes(pieces)

    def _pass_back(self, answer: http.client.HTTPResponse, asks: bool) -> None:
        length = answer.getheader("Content-Length")
        bare = self.command == "HEAD" or answer.status in (204, 304)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header(*(("Content-Length", length or "0") if length is not None or bare else ("Transfer-Encoding", "chunked")))
        self._give(b"", head=True)
        got, tail, keep = 0, b"", MOST_JSON if (answer.getheader("Content-Type") or "").startswith("application/json") else TAIL
        while not bare and (piece := answer.read1(65536)):
            self._give(piece if length is not None else b"%x\r\n%s\r\n" % (len(piece), piece))
            got, tail = got + len(piece), (tail + piece)[-keep:]
        if not bare and length is not None and got < int(length):
            raise http.client.IncompleteRead(tail)
        if length is None and not bare:
            self._give(b"0\r\n\r\n")
        if asks:
            self._judge(answer, tail)

    def _give(self, raw: bytes, head: bool = False) -> None:
        try:
            if head:
                self.end_headers()
            self.wfile.write(raw)
            self.wfile.flush()
        except OSError:
            raise HungUp from None

    def _judge(self, answer: http.client.HTTPResponse, tail: bytes) -> None:
        if answer.status >= 400:
            self.server.went_wrong(fault_of(answer.status, answer.headers, tail))
        elif answer.getheader("Content-Encoding") is None and not is_whole(answer.getheader("Content-Type") or "", tail):
            self.server.cut = True
            self.server.went_wrong(Fault("The model's answer ended before it was whole", True))
        else:
            self.server.well(tail[-TAIL:])

    def _broken(self, asks: bool, fault: Fault) -> None:
        """The tool gets no end of an answer that has none."""
        self.close_connection = True
        if asks:
            self.server.went_wrong(fault)

    def _refuse(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.send_error(503)
