"""Console: what a person sees of the company in a browser.

Owns no table and no rule. A page reads through the verbs and joins that the API has, and every button is an operation of the
API, shown only where the API's own policy would let this person through (`can`).
Surprise: a page and its live update are one template. Asked with `X-Orkosi-Live`, a page answers its `<main>` alone, and 304
while nothing that it may show has changed; that is known before anything is read.
"""
import functools
import gzip
import hashlib
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import bottle

from orkosi import NOBODY, Document, Plugin, Policy, Problem, Request, acting, admit, current, db, endpoints
from plugins import users

from . import look
from .acts import Acts

plugin = Plugin("Console", layer="views", needs=("users", "tasks", "agents", "logs"))

HERE = Path(__file__).parent
HTML = "text/html; charset=utf-8"
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
          "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types orkosi")
# same-origin: without it a browser would not say where a form comes from.
HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "private, no-cache", "Referrer-Policy": "same-origin",
           "Vary": "Cookie, X-Orkosi-Live, Accept-Encoding"}
BEAT = 10.0  # seconds after which a page is made anew in any case: some of what it shows changes by itself, and other processes write, too


# ── what one may ──


@cache
def _policies() -> dict[str, Policy]:
    return {f"{one.method} {one.path}": one.auth for one in endpoints()}


def can(operation: str) -> bool:
    """Whether the API would let whoever asks call an operation, as "POST /api/agents/{name}/pause"; unknown ones raise."""
    try:
        admit(_policies()[operation], current())
    except Problem:
        return False
    return True


# ── pages ──


def shown(auth: Policy) -> Callable[[Callable[..., Document]], Callable[..., Document]]:
    """A page of the console: whoever is not logged in is asked to be; a problem is told in words, with its status."""
    def around(fn: Callable[..., Document]) -> Callable[..., Document]:
        @functools.wraps(fn)
        def answer(request: Request, **path: Any) -> Document:
            fresh = users.cookies.renew(request) if request.actor is NOBODY and users.cookies.held(request)[0] else ""
            if request.actor.user is None or request.actor.scopes is not None:  # a key is nobody's log-in
                return door(request)
            with acting(request.actor):
                made = _made(request, auth, functools.partial(fn, request, **path))
            if fresh:
                made.headers = {**made.headers, "Set-Cookie": fresh}
            return made
        return answer
    return around


def _made(request: Request, auth: Policy, make: Callable[[], Document]) -> Document:
    try:
        admit(auth, request.actor)
        tag = _tag(request)
        if request.header("If-None-Match") == tag:
            return Document(b"", HTML, {**HEADERS, "ETag": tag}, 304)
        made = make()
        made.headers = {**made.headers, "ETag": tag}
        return made
    except Problem as problem:
        return page(request, "problem", {404: "Not here", 403: "Not for you"}.get(problem.status, "That did not work"), problem.status,
                    message=problem.message)


def _tag(request: Request) -> str:
    """What a page can be told by from its next version: the commits, who asks, and where."""
    facts = (assets_path(), db.commits, int(time.time() / BEAT), request.actor.ref, request.actor.rank, request.path,
             request.environ.get("QUERY_STRING", ""), request.header("X-Orkosi-Live"), "gzip" in request.header("Accept-Encoding"))
    return f'"{hashlib.blake2s(repr(facts).encode(), digest_size=8).hexdigest()}"'


def page(request: Request, view: str, title: str, status: int = 200, **facts: Any) -> Document:
    """`view` in the house's frame; its `<main>` alone for a live update."""
    said = {"title": title, "look": look, "act": Acts(can), "path": request.path, "assets": assets_path(),
            "who": users.find(request.actor.user or 0).username} | facts
    text = template(view).render(**said)
    if not request.header("X-Orkosi-Live"):
        text = template("frame").render(**said, base=text)
    return packed(request, text.encode(), HTML, HEADERS, status)


def door(request: Request, said: str = "", status: int = 200, where: str = "") -> Document:
    """The page that asks who one is, and then leads to where one wanted."""
    if request.header("X-Orkosi-Live"):
        return Document(b"", HTML, HEADERS, 401)
    # A strict cookie does not come along a link from elsewhere; asking once more, from here, sends it.
    if request.method == "GET" and request.header("Sec-Fetch-Site") == "cross-site":
        return Document(b'<!doctype html><meta http-equiv="refresh" content="0"><title>Orkosi</title>', HTML, HEADERS)
    where = where or request.path
    text = template("door").render(where="/" if where.startswith("/login") else where, said=said, assets=assets_path(),
                                   unclaimed=users.unclaimed())
    return packed(request, text.encode(), HTML, HEADERS, status)


def elsewhere(where: str, cookie: str = "") -> Document:
    """Lead to another page of this server, with another cookie."""
    safe = where if where.startswith("/") and not where.startswith(("//", "/\\")) and where.isascii() and where.isprintable() else "/"
    return Document(b"", HTML, {**HEADERS, "Location": safe} | ({"Set-Cookie": cookie} if cookie else {}), 303)


@cache
def template(name: str) -> bottle.SimpleTemplate:
    """A view, compiled once; `{{x}}` is escaped, `{{!x}}` is for what `look` and `act` made."""
    return bottle.SimpleTemplate(name=f"{name}.tpl", lookup=[str(HERE / "views")])


def packed(request: Request, body: bytes, kind: str, headers: dict[str, str], status: int = 200) -> Document:
    """A document, gzipped where the browser takes that. Nothing secret stands in a page, so its length tells nothing."""
    if "gzip" in request.header("Accept-Encoding") and len(body) > 1000:
        body, headers = gzip.compress(body, 5, mtime=0), {**headers, "Content-Encoding": "gzip"}
    return Document(body, kind, headers, status)


# ── script and style ──

KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


@cache
def assets() -> dict[str, bytes]:
    """Every file of `static/`, by name."""
    return {path.name: path.read_bytes() for path in sorted((HERE / "static").iterdir())}


@cache
def assets_path() -> str:
    """Where the files are: a path that changes with them, so that a browser may keep them for ever."""
    return "/console/" + hashlib.sha256(b"".join(assets().values())).hexdigest()[:10]
