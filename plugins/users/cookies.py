"""A browser's log-in: one cookie that holds a session's pair of tokens.

Owns no table. No script can read the cookie (HttpOnly), and no other site's page makes the browser send it (SameSite=Strict).
Whatever changes something needs a header beside it, which no form of another page can send. Surprise: the pair is renewed by
the pages, when they are asked for; the API takes the half that is good for minutes, and renews nothing.
"""
import re
import time
from urllib.parse import urlsplit

from orkosi import Actor, Denied, Problem, Request, Unauthorized, settings

from . import User, actor_of, find, plugin, sessions, tokens
from .sessions import Tokens

WRITING = "X-Orkosi"
LINK = 3600.0  # seconds that a link which logs in is good for


# ── the cookie ──


def _secure(request: Request) -> bool:
    """Whether this browser came by HTTPS: a cookie that is marked so would be lost on a plain connection."""
    public = urlsplit(settings.public_url)
    return public.scheme == "https" and public.netloc.lower() == request.header("Host").lower()


def _name(request: Request) -> str:
    # With the port: a browser sends the cookies of a host to all of its ports, and has one jar for them. Two servers here would log each other out.
    port = re.search(r":(\d+)$", request.header("Host"))
    return ("__Host-orkosi" if _secure(request) else "orkosi") + (f"-{port[1]}" if port else "")


def held(request: Request) -> tuple[str, str]:
    """The access and the refresh token that the browser holds; empty where it holds none."""
    found = re.search(rf"(?:^|;\s*){_name(request)}=(ork_ses_\w+)\.(ork_ref_\w+)(?:;|$)", request.header("Cookie"))
    return (found[1], found[2]) if found else ("", "")


def kept(request: Request, pair: Tokens) -> str:
    """The header that has the browser keep a pair."""
    return _cookie(request, f"{pair.access}.{pair.refresh}", sessions.IDLE)


def dropped(request: Request) -> str:
    """The header that has the browser forget it."""
    return _cookie(request, "", 0)


def _cookie(request: Request, value: str, seconds: int) -> str:
    return f"{_name(request)}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict" + ("; Secure" if _secure(request) else "")


# ── who ──


@plugin.authenticator
def by_cookie(request: Request) -> Actor | None:
    """The person who is logged in in this browser; a program's own token or key goes before."""
    if "HTTP_COOKIE" not in request.environ:  # programs send none, and are most of those who ask
        return None
    access, _ = held(request)
    if not access or request.header("Authorization") or request.header("X-API-Key"):
        return None
    if request.method not in ("GET", "HEAD") and request.header(WRITING) != "1":
        if request.endpoint is None or request.endpoint.auth.public:
            return None
        raise Unauthorized(f"A browser's cookie alone changes nothing; send '{WRITING}: 1' with it")
    return sessions.whose(access)


def renew(request: Request) -> str:
    """Let whoever's access has run out go on, by their refresh token; the header that keeps the new pair, or "" where nobody goes on."""
    _, refresh = held(request)
    try:
        user, pair = sessions.refresh(refresh, request.address)
    except Problem:
        return ""
    request.actor = actor_of(user, credential=str(pair.session_id))
    return kept(request, pair)


def from_here(request: Request) -> None:
    """Denied where a form was sent by a page of another site. (A plain connection has no Sec-Fetch-Site, an old browser no Origin.)"""
    ours = {request.header("Host").lower(), urlsplit(settings.public_url).netloc.lower()} - {""}
    origin = request.header("Origin")
    try:
        place = urlsplit(origin).netloc.lower()
    except ValueError:
        place = "?"
    if request.header("Sec-Fetch-Site") not in ("", "same-origin", "none") or origin and place not in ours:
        raise Denied("Send this form from this server's own page")


# ── a link that logs in ──
# Kept in memory: it ends with the server, as the one who printed it does.

_links: dict[bytes, tuple[int, float]] = {}


def link_for(user_id: int) -> str:
    """The path of a page that logs this person in, once, within the hour."""
    token = tokens.mint("log")
    _links[tokens.digest(token)] = (user_id, time.monotonic() + LINK)
    return f"/login/{token}"


def follow(token: str) -> User | None:
    """The person whom a link logs in; None where it was used, or its hour is over."""
    user_id, until = _links.pop(tokens.digest(token), (0, 0.0))
    return find(user_id) if time.monotonic() < until else None
