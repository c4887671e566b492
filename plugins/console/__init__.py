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
from urllib.parse import parse_qsl

import bottle

from orkosi import NOBODY, Document, Invalid, Plugin, Policy, Problem, Request, acting, admit, db
from plugins import users
from plugins.server.call import in_words

from . import asking, forms, look
from .acts import Acts
from .asking import can

plugin = Plugin("Console", layer="views", needs=("users", "tasks", "agents", "logs", "dashboard", "queue", "costs", "health"))

HERE = Path(__file__).parent
HTML = "text/html; charset=utf-8"
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
          "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types orkosi")
# same-origin: without it a browser would not say where a form comes from.
HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "private, no-cache", "Referrer-Policy": "same-origin",
           "Vary": "Cookie, X-Orkosi-Live, Accept-Encoding"}
BEAT = 10.0  # seconds after which a page is made anew in any case: some of what it shows changes by itself, and other processes write, too


# ── pages ──


# What stands in the frame: a page, its word, its key after g, its shape on a phone.
PAGES = (("/", "Now", "n", "dot"), ("/tasks", "Tasks", "t", "ring"), ("/agents", "Agents", "a", "play"), ("/agent-runs", "Runs", "r", "clock"),
         ("/task-queue", "Queues", "q", "bars"), ("/costs", "Costs", "c", "coin"), ("/more", "More", "m", "more"))


def asked(request: Request) -> dict[str, str]:
    """The query of a page. Invalid."""
    try:
        return dict(parse_qsl(request.environ.get("QUERY_STRING", ""), errors="replace", max_num_fields=50))
    except ValueError:
        raise Invalid("The address has more than 50 fields") from None


def shown(auth: Policy | str) -> Callable[[Callable[..., Document]], Callable[..., Document]]:
    """A page of the console, for whom a policy lets through, or that of an operation: whoever is not logged in is asked to be; a problem is
    told in words, with its status."""
    def around(fn: Callable[..., Document]) -> Callable[..., Document]:
        @functools.wraps(fn)
        def answer(request: Request, **path: Any) -> Document:
            fresh = users.cookies.renew(request) if request.actor is NOBODY and users.cookies.held(request)[0] else ""
            if request.actor.user is None or request.actor.scopes is not None:  # a key is nobody's log-in
                return door(request)
            with acting(request.actor):
                made = _made(request, asking.policy(auth) if isinstance(auth, str) else auth, functools.partial(fn, request, **path))
            if fresh:
                made.headers = {**made.headers, "Set-Cookie": fresh}
            return made
        answer.shows = auth  # type: ignore[attr-defined]  # for whoever asks who may see a page
        return answer
    return around


def _made(request: Request, auth: Policy, make: Callable[[], Document]) -> Document:
    try:
        admit(auth, request.actor)
        tag = _tag(request)
        if request.header("If-None-Match") == tag:
            return Document(b"", HTML, {**HEADERS, "ETag": tag}, 304)
        if request.header("X-Orkosi-Live") != "follow":
            _followed.pop(_facts(request), None)  # whoever follows from here on sees nothing older
            made = make()
            made.headers = {**made.headers, "ETag": tag}
            return made
        return _following(request, tag, make)
    except Problem as problem:
        return page(request, "problem", {404: "Not here", 403: "Not for you"}.get(problem.status, "That did not work"), problem.status,
                    message=problem.message)


@in_words
def told(request: Request, problem: Problem) -> Document | None:
    """What stands in the way of somebody who is logged in and went to an address of no page, or with a number that is none."""
    person = request.actor.user is not None and request.actor.scopes is None and "text/html" in request.header("Accept")
    if not person or request.method != "GET" or request.path.startswith(("/api/", "/mcp")) or request.header("X-Orkosi-Live"):
        return None
    with acting(request.actor):
        return page(request, "problem", "Not here", problem.status, message=problem.message)


_followed: dict[tuple[object, ...], tuple[float, Document]] = {}
AFTER = 1.0  # seconds for which a page that is followed is answered again as it was


def _following(request: Request, tag: str, make: Callable[[], Document]) -> Document:
    """A page for one who follows it: many consoles of one person, or many changes a second, do not cost a page each."""
    place, moment = _facts(request), time.monotonic()
    until, made = _followed.get(place, (0.0, None))
    if made is None or until < moment:
        made = make()
        made.headers = {**made.headers, "ETag": tag}
        for old in [key for key, kept in list(_followed.items()) if kept[0] < moment]:
            _followed.pop(old, None)
        _followed[place] = moment + AFTER, made
    return Document(made.body, made.type, dict(made.headers), made.status)


def _tag(request: Request) -> str:
    """What a page can be told by from its next version: the commits, who asks, and where."""
    facts = (db.commits, int(time.time() / BEAT), bool(request.header("X-Orkosi-Live")), *_facts(request))
    return f'"{hashlib.blake2s(repr(facts).encode(), digest_size=8).hexdigest()}"'


def _facts(request: Request) -> tuple[object, ...]:
    """Who asks for what, and how."""
    return (assets_path(), request.actor.ref, request.actor.tenant, request.actor.rank, request.path, request.environ.get("QUERY_STRING", ""),
            "gzip" in request.header("Accept-Encoding"))


def page(request: Request, view: str, title: str, status: int = 200, **facts: Any) -> Document:
    """`view` in the house's frame; its `<main>` alone for a live update."""
    said = {"title": title, "look": look, "esc": look.esc, "act": Acts(can), "can": can, "forms": forms, "path": request.path,
            "assets": assets_path(),
            "query": request.environ.get("QUERY_STRING", ""), "pages": PAGES, "streams": can("GET /api/events"),
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
    query = request.environ.get("QUERY_STRING", "") if request.method == "GET" else ""
    where = where or request.path + (f"?{query}" if query else "")
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
        # Level 3: a third of the time of 5, for a tenth more bytes.
        body, headers = gzip.compress(body, 3, mtime=0), {**headers, "Content-Encoding": "gzip"}
    return Document(body, kind, headers, status)


# ── script and style ──

KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


@cache
def assets() -> dict[str, bytes]:
    """Every file of `static/`, by name."""
    return {path.name: path.read_bytes() for path in sorted((HERE / "static").iterdir())}


@cache
def gzipped() -> dict[str, bytes]:
    """The same, made small once."""
    return {name: gzip.compress(raw, 9, mtime=0) for name, raw in assets().items()}


@cache
def assets_path() -> str:
    """Where the files are: a path that changes with them, so that a browser may keep them for ever."""
    return "/console/" + hashlib.sha256(b"".join(assets().values())).hexdigest()[:10]


@plugin.on("opened")
def forget(event: str, folder: object) -> None:
    """Another data folder may be open now."""
    from . import today
    _followed.clear()
    today.forget()
