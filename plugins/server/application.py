"""The WSGI application: which endpoint a request is for, and who asks.

Owns no table. It answers under any WSGI server, in the thread that calls it; this project's own server (http.py) takes
its calls apart, so that few threads do it. Surprise: it is made once all plugins are loaded, and binds every endpoint; a
signature that nothing fills stops the start.
"""
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import bottle
import msgspec

from orkosi import (
    NOBODY,
    Actor,
    Endpoint,
    NotAllowed,
    NotFound,
    Problem,
    Request,
    Struct,
    Unauthorized,
    clean,
    endpoints,
    plugins,
    settings,
    snake,
    stopping,
)
from plugins import lists
from plugins.server.call import REASONS, Call
from plugins.server.feeds import Feed
from plugins.server.flow import flow
from plugins.server.hosts import Hosts
from plugins.server.lanes import THREADS
from plugins.server.streams import Part

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
GLANCE = 0.5  # seconds between two looks whether who waits in a thread may still
Route = tuple[Endpoint | None, dict[str, str], Problem | None]


class Router(bottle.Router):
    """bottle's, which compiles all paths of a method once, and not anew with each one that is added, which took a fifth of the time of a start."""

    def _compile(self, method: str) -> None:
        """Later."""

    def compile(self) -> None:
        """All are added."""
        for method in self.dyna_routes:
            super()._compile(method)


def understand_structs() -> None:
    """Have msgspec look through each kind of struct now, in this one thread: of two that are the first to read one at once, one finds
    half of what the other is still writing down, and the process is gone (msgspec 0.22). Takes 11 ms."""
    kinds: list[type] = [Struct]
    for kind in kinds:  # which grows
        kinds += kind.__subclasses__()
        if kind.__module__.startswith(("orkosi", "plugins.")):
            with suppress(TypeError):  # one that nobody reads may have fields that no JSON has
                msgspec.json.Decoder(kind)


class Application:
    """Every endpoint by its path, and who may be asked for whom a request is from."""

    def __init__(self) -> None:
        understand_structs()
        self.router = Router()
        self.hosts = Hosts()
        lists.before_large = flow.enter
        self.watchers = [watch for plugin in plugins.values() for watch in plugin.watchers]
        self.authenticators = [ask for plugin in plugins.values() for ask in plugin.authenticators]
        for endpoint in endpoints():
            endpoint.bind()
            self._check(endpoint)
            rule = re.sub(r"\{(\w+)\}", lambda found: f"<{snake(found[1])}>", endpoint.path)
            self.router.add(rule, endpoint.method, endpoint)
        self.router.compile()

    @staticmethod
    def _check(endpoint: Endpoint) -> None:
        """Stop the start where an endpoint names a limit or a lane that is none: it would be found out by whoever asks first."""
        if endpoint.limit and f"limit_{endpoint.limit}" not in settings.known:
            raise TypeError(f"{endpoint.operation}: there is no setting limit_{endpoint.limit}")
        if endpoint.lane not in THREADS:
            raise TypeError(f"{endpoint.operation}: there is no lane {endpoint.lane!r}")

    # ── which ──

    def route(self, request: Request) -> Route:
        """The endpoint a request is for, with what its path says; or the problem that there is none."""
        try:
            endpoint, path = self.router.match(request.environ)
            return endpoint, path, None
        except bottle.HTTPError as missed:
            if missed.status_code == 405:
                allow = self.allowed(request.environ.get("PATH_INFO", "") or "/")
                return None, {}, NotAllowed(f"{clean(request.path)} answers {allow}", headers={"Allow": allow})
            return None, {}, NotFound(f"There is no {clean(request.path)}; see /api/docs")

    def allowed(self, path: str) -> str:
        """The methods that a path answers, as `Allow` lists them. (The router's own list leaves some out.)"""
        found = [method for method in METHODS if self._answers(method, path)]
        return ", ".join(["HEAD", *found] if "GET" in found else found)

    def _answers(self, method: str, path: str) -> bool:
        try:
            return bool(self.router.match({"REQUEST_METHOD": method, "PATH_INFO": path}))
        except bottle.HTTPError:
            return False

    # ── who ──

    def authenticate(self, request: Request) -> Actor:
        """Ask every authenticator. A credential nobody knows is Unauthorized, also where none was needed."""
        for ask in self.authenticators:
            if (actor := ask(request)) is not None:
                return actor
        if request.header("Authorization") or request.header("X-API-Key"):
            if request.endpoint and request.endpoint.auth.public:
                return NOBODY
            raise Unauthorized("That token or key is unknown, expired or revoked; sign in again")
        return NOBODY

    # ── under any WSGI server ──

    def __call__(self, environ: dict[str, Any], start_response: Callable) -> list[bytes]:
        bell = threading.Event()
        call = Call(self, environ, lambda _: bell.set())
        call.go()
        while not call.answered:
            self._wait(call, bell)
        if call.heavy:
            flow.leave(call.heavy)
        call.tell()
        start_response(f"{call.status} {REASONS.get(call.status, 'Status')}", call.all_headers())
        return [] if call.request.method == "HEAD" else call.body if isinstance(call.body, Part | Feed) else [call.body]

    @staticmethod
    def _wait(call: Call, bell: threading.Event) -> None:
        """Once more, when somebody rings or it may not wait any longer."""
        rung = bell.wait(max(0.0, min(GLANCE, call.waits.until - time.monotonic())))
        bell.clear()
        if not call.ask_again():
            return
        if rung:
            call.go()
        elif time.monotonic() >= call.waits.until or stopping.is_set():
            call.give_up_waiting()
