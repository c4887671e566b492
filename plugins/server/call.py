"""A call: one request on its way to its answer, in three steps that may run in three places.

`begin` asks who it is from and whether they may, and `decode` what they say; `run` is the endpoint's function;
`finish` encodes what it returned. What goes wrong in any of them is the answer, as JSON.
"""
import functools
import io
import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from orkosi import MAX_BODY, NOBODY, Damaged, Document, Endpoint, Problem, Request, acting, admit, clean, here, settings, strict, translate
from plugins.fields import wrong
from plugins.once import once
from plugins.server import gauges, tunnel
from plugins.server.feeds import Feed
from plugins.server.flow import NoRoom, flow, taken
from plugins.server.limits import limiter
from plugins.server.parked import Parked
from plugins.vault import canaries

if TYPE_CHECKING:
    from plugins.server.application import Application

log = logging.getLogger("orkosi")

SECRET = ("/api/credentials", "/api/auth/")  # where a secret belongs, or a password is what it is
SEALED = {"/api/hooks": "secret", "/api/integrations/": "fields"}  # fields that are sealed themselves: another may have the same secret
API_POLICY = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
ALWAYS = [API_POLICY, ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"), ("Referrer-Policy", "no-referrer"),
          ("Cross-Origin-Resource-Policy", "same-origin")]
JSON = ("Content-Type", "application/json")
_PLAIN = "".join(f"{name}: {value}\r\n" for name, value in (JSON, *ALWAYS))
REASONS = {200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 206: "Partial Content", 303: "See Other", 304: "Not Modified",
            400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
            409: "Conflict", 413: "Payload Too Large", 415: "Unsupported Media Type", 416: "Range Not Satisfiable",
            422: "Unprocessable Entity",
            429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable", 507: "Insufficient Storage"}
STATUS_LINES = {status: f"{status} {reason}" for status, reason in REASONS.items()}


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return canaries.blotted_text(value)
    if isinstance(value, dict):
        return {canaries.blotted_text(key): _without_secrets(one) for key, one in value.items()}
    return [_without_secrets(one) for one in value] if isinstance(value, list) else value


Words = Callable[[Request, Problem], Document | None]
_in_words: list[Words] = []


def in_words(tell: Words) -> Words:
    """Register who may tell a problem to a person, as a page; None where no person asks."""
    _in_words.append(tell)
    return tell


def _nobody() -> None:
    """Whom an answered call rings for."""


class Call:
    """One request, and what has become of it so far. `status` is 0 until it is answered."""
    __slots__ = ("application", "request", "endpoint", "path", "missed", "values", "began", "begun", "status", "headers", "body", "heavy",
                 "channel", "rung", "quick")

    def __init__(self, application: "Application", environ: dict[str, Any], ring: Callable[["Call"], None] = lambda call: None):
        self.began = time.perf_counter()
        self.application, self.request = application, Request(environ)
        self.request.again = lambda: ring(self)
        self.endpoint: Endpoint | None = None
        self.missed: Problem | None = None
        self.endpoint, self.path, self.missed = application.route(self.request)
        self.request.endpoint = self.endpoint
        self.values: dict[str, Any] | None = None
        self.status, self.headers, self.body = 0, [JSON], b""
        self.heavy = 0        # bytes of it that count against the whole server's share
        self.begun = False
        self.quick = False    # the writer runs it
        self.rung = False     # it is to be asked again as soon as it waits
        self.channel: Any = None

    @property
    def waits(self) -> Parked:
        """What it waits for, once it does."""
        place: Parked = self.request.waits
        return place

    @property
    def tunnelled(self) -> bool:
        """Whether it came in by the tunnel's door."""
        return tunnel.THROUGH in self.request.environ

    # ── the three steps ──

    def begin(self) -> bool:
        """Ask who it is from, and whether they may; whether it goes on. Asked again, it counts against no limit."""
        self.finish(*self._try(self._begin), unless_well=True)
        self.begun = self.begun or not self.answered
        return not self.answered

    def _begin(self) -> None:
        if self.tunnelled:
            tunnel.require(self.request, self.endpoint, again=self.begun)
        else:
            self.application.hosts.require(self.request.header("Host"))
        if self.endpoint is None:
            assert self.missed
            with suppress(Problem):  # who asks for what is not there is known all the same: a key's requests are counted
                self.request.actor = self.application.authenticate(self.request)
            raise self.missed
        if not self.endpoint.anonymous:
            self.request.actor = self.application.authenticate(self.request)
        actor = self.request.actor
        admit(self.endpoint.auth, actor)
        if self.endpoint.limit and not self.begun:
            limiter.take(self.endpoint.limit, actor.ref if actor is not NOBODY else self.request.address)

    def decode(self) -> bool:
        """Understand what they say; whether it goes on."""
        self.finish(*self._try(self._decode), unless_well=True)
        return not self.answered

    def _decode(self) -> None:
        assert self.endpoint
        if self.values is None:
            if self.request.method != "GET" and self.request.actor.host and not self.endpoint.path.startswith(SECRET):
                self._blot()
            self._refuse_what_nobody_reads(self.endpoint.takes)
            self.values = self.endpoint.values(self.request, self.path)

    def _refuse_what_nobody_reads(self, takes: list[str]) -> None:
        """A field that is accepted and does nothing misleads whoever sent it. Pages may be linked to with anything."""
        if not self.request.path.startswith("/api/") or "request" in takes:
            return
        environ = self.request.environ
        if "query" not in takes and (name := environ.get("QUERY_STRING", "").partition("=")[0]):
            raise wrong(clean(name, 60), "Unknown field; this operation has none in its query")
        if "body" not in takes and self.request.method != "GET" and "json" in environ.get("CONTENT_TYPE", ""):
            given = strict(self.request.json())
            if given:
                raise wrong(clean(str(next(iter(given))), 60) if isinstance(given, dict) else "body", "Unknown field; this operation takes no body")

    def _blot(self) -> None:
        """Take out of the body what is sealed in the vault: whatever keeps a text would keep it."""
        environ = self.request.environ
        length = int(environ.get("CONTENT_LENGTH") or 0)
        assert self.endpoint
        if 0 < length <= max(MAX_BODY, self.endpoint.max_body):
            raw = environ["wsgi.input"].read(length)
            fresh = canaries.blotted(raw)
            if fresh != raw:
                fresh = self._blotted(raw, fresh)
            environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(fresh), str(len(fresh))

    def _blotted(self, raw: bytes, fresh: bytes) -> bytes:
        """A JSON body whose texts are blotted one by one: its fields keep their names, and the one that goes into the vault what was sent."""
        assert self.endpoint
        name = next((name for path, name in SEALED.items() if self.endpoint.path.startswith(path)), "")
        with suppress(Problem):  # of a body that is wrong, whoever reads it says so
            sent = strict(raw)
            if not isinstance(sent, dict):
                return json.dumps(_without_secrets(sent), ensure_ascii=False).encode()
            kept = {key: one if key == name else _without_secrets(one) for key, one in sent.items()}
            return json.dumps(kept, ensure_ascii=False).encode()
        return fresh

    def run(self) -> Any:
        """What the endpoint's function returns; whoever calls this acts in the name of whoever asks."""
        assert self.endpoint and self.values is not None
        if self.endpoint.once:
            return once(self.request, self.values.get("body"), functools.partial(self.endpoint.fn, **self.values))
        return self.endpoint.fn(**self.values)

    def finish(self, made: Any = None, error: BaseException | None = None, *, unless_well: bool = False) -> None:
        """Make the bytes of the answer; or, where it is to come later, note what it waits for. `unless_well`: only what went wrong is one."""
        if error is None and not unless_well:
            _, error = self._try(lambda: self._encode(made))
        self.heavy += taken()
        if error is not None:
            self._explain(error)

    def _encode(self, made: Any) -> None:
        assert self.endpoint
        self.status, self.headers, self.body = self.endpoint.answer(made)

    def go(self) -> None:
        """All of it, in this thread."""
        if (self.begun or self.begin()) and self.decode():
            with acting(self.request.actor):
                made, error = self._try(self.run)
            self.finish(made, error)

    @staticmethod
    def _try(step: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        """What a step made, and what went wrong: every error becomes an answer."""
        try:
            return step(), None
        except Exception as error:
            return None, error

    # ── waiting ──

    def ask_again(self) -> bool:
        """After a wait: whether whoever asks may still; where not, that is the answer."""
        if self.begin():
            return True
        self.waits.leave()
        return False

    def still_may(self) -> bool:
        """Whether whoever is being answered, without an end, would be let in now."""
        return self._try(self._begin)[1] is None

    def give_up_waiting(self) -> None:
        """Its time is over: it gets what there is for nothing found."""
        place = self.waits
        place.leave()
        self.request.waits = None
        self.finish(*((None, place.nothing) if isinstance(place.nothing, Exception) else (place.nothing, None)))

    def _wait_for_room(self, problem: NoRoom) -> None:
        place = None if hasattr(here, "patience") else flow.line_up(problem, self.request.again, self.request.waits)
        if place is None:
            self._fail(problem)
        else:
            self.request.waits = place

    # ── the answer ──

    @property
    def answered(self) -> bool:
        """Whether there is an answer, however it was read."""
        return bool(self.status)

    def _explain(self, error: BaseException) -> None:
        """Make an answer of what went wrong; or wait, where that is what it says."""
        if isinstance(error, NoRoom):
            self._wait_for_room(error)
        elif isinstance(error, Parked):
            self.request.waits = error.with_traceback(None)
        elif isinstance(error, Problem) or isinstance(error := translate(error), Problem):
            self._fail(error)
        else:
            where = self.endpoint.path if self.endpoint else "?"  # not the path itself: a link in it may be a key
            log.error("request %s %s %s failed", self.request.id, self.request.method, where, exc_info=error)
            self._fail(Problem("Internal error"))

    def _fail(self, problem: Problem) -> None:
        if isinstance(problem, Damaged):
            gauges.damaged[settings.data] = problem.message
        error = {"code": problem.code, "message": problem.message, "request_id": self.request.id}
        if problem.details is not None:
            error["details"] = problem.details
        self.status, self.headers = problem.status, [JSON, *problem.headers.items()]
        self.body = msgspec.json.encode({"error": error})
        for tell in _in_words:
            said, _ = self._try(functools.partial(tell, self.request, problem))
            if said is not None:
                self.headers, self.body = [("Content-Type", said.type), *(said.headers | problem.headers).items()], said.body

    def all_headers(self) -> list[tuple[str, str]]:
        """Every header but those that belong to the connection. What has no end has no length."""
        own = {name for name, _ in self.headers}
        return [*self.headers, *(one for one in ALWAYS if one[0] not in own), *([tunnel.SECURE] if self.tunnelled else ()),
                ("X-Request-Id", self.request.id), *([] if isinstance(self.body, Feed) else [("Content-Length", str(len(self.body)))])]

    def head(self) -> str:
        """The same as text, each with its line end."""
        if self.headers == [JSON] and not self.tunnelled:
            return f"{_PLAIN}X-Request-Id: {self.request.id}\r\nContent-Length: {len(self.body)}\r\n"
        lines = [f"{name}: {value}" for name, value in self.all_headers()]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a header has a line break")
        return "\r\n".join(lines) + "\r\n"

    def tell(self) -> None:
        """Tell whoever watches answers. Nobody asks it again: without this, it would hold itself, and wait for the garbage collector."""
        took = time.perf_counter() - self.began
        for watch in self.application.watchers:
            watch(self.request, self.status, took, len(self.body))
        self.request.again, self.request.waits, self.values = _nobody, None, None
