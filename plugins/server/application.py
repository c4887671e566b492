"""The WSGI application: route, authenticate, admit, call, answer - JSON whatever happens.

Owns no table. Surprise: it is made once all plugins are loaded, and binds every endpoint; a signature that
nothing fills stops the start.
"""
import logging
import re
import time
from collections.abc import Callable
from typing import Any

import bottle
import msgspec

from orkosi import (
    NOBODY,
    REASONS,
    Actor,
    Endpoint,
    NotAllowed,
    NotFound,
    Problem,
    Request,
    Unauthorized,
    acting,
    admit,
    clean,
    db,
    endpoints,
    here,
    plugins,
    snake,
    translate,
)
from plugins.server.flow import SMALL, flow, taken
from plugins.server.hosts import Hosts
from plugins.server.limits import limiter

log = logging.getLogger("orkosi")
Prepared = tuple[float, Request, tuple[int, list[tuple[str, str]], bytes]]
PATIENCE, ASIDE = 0.02, 60.0  # seconds in SQLite that the loop has for an answer; and for which one that took longer is left to threads

SECURITY_HEADERS = [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"), ("Referrer-Policy", "no-referrer"),
                    ("Cross-Origin-Resource-Policy", "same-origin")]
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
API_POLICY = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")


class Application:
    """The WSGI application: route, authenticate, admit, call, answer - JSON whatever happens."""

    def __init__(self) -> None:
        self.router = bottle.Router()
        self.slow: dict[Endpoint, float] = {}  # quick operations that were not, and until when threads answer them
        self.hosts = Hosts()
        db.before_large = flow.enter
        self.watchers = [watch for plugin in plugins.values() for watch in plugin.watchers]
        for endpoint in endpoints():
            endpoint.bind()
            rule = re.sub(r"\{(\w+)\}", lambda found: f"<{snake(found[1])}>", endpoint.path)
            self.router.add(rule, endpoint.method, endpoint)

    def allowed(self, path: str) -> str:
        """The methods that a path answers, as `Allow` lists them. (The router's own list leaves some out.)"""
        found = [method for method in METHODS if self._answers(method, path)]
        return ", ".join(["HEAD", *found] if "GET" in found else found)

    def _answers(self, method: str, path: str) -> bool:
        try:
            return bool(self.router.match({"REQUEST_METHOD": method, "PATH_INFO": path}))
        except bottle.HTTPError:
            return False

    def __call__(self, environ: dict[str, Any], start_response: Callable) -> list[bytes]:
        began, request, (status, headers, body) = environ.pop("orkosi.prepared", None) or self.prepare(environ)
        self._hand_over(request, environ.get("orkosi.owes"))
        if not any(name == "Content-Security-Policy" for name, _ in headers):
            headers.append(API_POLICY)
        headers += [*SECURITY_HEADERS, ("X-Request-Id", request.id), ("Content-Length", str(len(body)))]
        for watch in self.watchers:
            watch(request, status, time.perf_counter() - began, len(body))
        start_response(f"{status} {REASONS.get(status, 'Status')}", headers)
        return [] if request.method == "HEAD" else [body]

    def prepare(self, environ: dict[str, Any]) -> Prepared:
        """When an answer was begun, to what, and the answer itself."""
        began, request = time.perf_counter(), Request(environ)
        return began, request, self.respond(request)

    def quick(self, path: str) -> bool:
        """Whether the loop may try to answer a GET of this path by itself."""
        try:
            endpoint, _ = self.router.match({"REQUEST_METHOD": "GET", "PATH_INFO": path})
        except bottle.HTTPError:
            return False
        return bool(endpoint.quick) and self.slow.get(endpoint, 0.0) < time.monotonic()

    def prepare_at_once(self, environ: dict[str, Any]) -> Prepared | None:
        """An answer made in the loop; None where it takes too long there, or is not to be had without waiting: a thread makes it then.

        Surprise: 503 is never final here. A read that is cut off after 20 ms says so, and a large answer, too.
        """
        here.patience = PATIENCE
        try:
            prepared = self.prepare(environ)
        finally:
            del here.patience
        began, request, (status, _, body) = prepared
        if request.endpoint and (status == 503 or len(body) > SMALL):
            self.slow[request.endpoint] = time.monotonic() + ASIDE
            log.info("%s is answered by threads for %.0f s: it took %.0f ms and %d bytes", request.endpoint.operation, ASIDE,
                     (time.perf_counter() - began) * 1000, len(body))
        return None if status == 503 else prepared

    @staticmethod
    def _hand_over(request: Request, owes: Callable[[Any, int], None] | None) -> None:
        """Tell the connection what this answer weighs, and what to do where it does not arrive."""
        heavy = taken()
        if owes:
            owes(request.if_lost, heavy)
        elif heavy:
            flow.leave(heavy)

    def respond(self, request: Request) -> tuple[int, list[tuple[str, str]], bytes]:
        try:
            return self._respond(request)
        except Problem as problem:
            return _failed(request, problem)
        except Exception as error:
            known = translate(error)
            if not isinstance(known, Problem):
                where = request.endpoint.path if request.endpoint else "?"  # not the path itself: a link in it may be a key
                log.exception("request %s %s %s failed", request.id, request.method, where)
                known = Problem("Internal error")
            return _failed(request, known)

    def _respond(self, request: Request) -> tuple[int, list[tuple[str, str]], bytes]:
        self.hosts.require(request.header("Host"))
        try:
            endpoint, path = self.router.match(request.environ)
        except bottle.HTTPError as missed:
            if missed.status_code == 405:
                allow = self.allowed(request.environ.get("PATH_INFO", "") or "/")
                raise NotAllowed(f"{clean(request.path)} answers {allow}, not {request.method[:20]}", headers={"Allow": allow}) from None
            raise NotFound(f"There is no {clean(request.path)}; see /api/docs") from None
        request.endpoint = endpoint
        with acting(authenticate(request)) as actor:
            request.actor = actor
            admit(endpoint.auth, actor)
            if endpoint.limit:
                limiter.take(endpoint.limit, actor.ref if actor is not NOBODY else request.address)
            return endpoint.answer(endpoint.call(request, path))


def authenticate(request: Request) -> Actor:
    """Ask every authenticator. A credential nobody knows is Unauthorized, also where none was needed."""
    for ask in [one for plugin in plugins.values() for one in plugin.authenticators]:
        if (actor := ask(request)) is not None:
            return actor
    if request.header("Authorization") or request.header("X-API-Key"):
        if request.endpoint and request.endpoint.auth.public:
            return NOBODY
        raise Unauthorized("That token or key is unknown, expired or revoked; sign in again")
    return NOBODY


def _failed(request: Request, problem: Problem) -> tuple[int, list[tuple[str, str]], bytes]:
    error = {"code": problem.code, "message": problem.message, "request_id": request.id}
    if problem.details is not None:
        error["details"] = problem.details
    return (problem.status, [("Content-Type", "application/json"), *problem.headers.items()],
            msgspec.json.encode({"error": error}))
