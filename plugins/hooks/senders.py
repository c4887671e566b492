"""Senders: how each kind proves that a delivery is its own, and how it numbers its deliveries. No reading, no writing.

Owns no table. Surprise: what is proven are the very bytes, before anybody parses them. GitHub signs neither the number of a delivery nor a
time; the others sign both, and what they signed more than five minutes ago, or ahead, is refused.
"""
import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Callable
from typing import Any

from orkosi import Problem, Request
from plugins.fields import wrong

TOLERANCE = 300  # seconds


class Unproven(Problem):
    """The delivery is not signed as the hook's sender would sign it."""
    status, code = 401, "bad_signature"


def standard_key(secret: str) -> bytes:
    """The key in a secret of Standard Webhooks: base64, after `whsec_`. Invalid."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise wrong("secret", "A secret of Standard Webhooks is base64, as whsec_…")
    return key


def prove(kind: str, secret: str, raw: bytes, request: Request, header: str | None) -> None:
    """See to it that whoever knows `secret` sent these bytes. Unproven."""
    if kind != "none" and not (secret and _PROOFS[kind](secret, raw, request, header or "")):  # anybody can sign with an empty one
        raise Unproven("This delivery is not signed with the secret of this hook, or not within five minutes")


def _github(secret: str, raw: bytes, request: Request, header: str) -> bool:
    return _same(["sha256=" + _hex(secret.encode(), raw)], [request.header("X-Hub-Signature-256")])


def _stripe(secret: str, raw: bytes, request: Request, header: str) -> bool:
    parts = [part.strip().partition("=") for part in request.header("Stripe-Signature").split(",")[:20]]
    moment = next((value for name, _, value in parts if name == "t"), "")
    return _fresh(moment) and _same([_hex(secret.encode(), moment.encode() + b"." + raw)], [value for name, _, value in parts if name == "v1"])


def _slack(secret: str, raw: bytes, request: Request, header: str) -> bool:
    moment = request.header("X-Slack-Request-Timestamp")
    return _fresh(moment) and _same(["v0=" + _hex(secret.encode(), b"v0:" + moment.encode() + b":" + raw)], [request.header("X-Slack-Signature")])


def _standard(secret: str, raw: bytes, request: Request, header: str) -> bool:
    id, moment = request.header("webhook-id"), request.header("webhook-timestamp")
    wanted = base64.b64encode(hmac.digest(standard_key(secret), f"{id}.{moment}.".encode() + raw, "sha256")).decode()
    return bool(id) and _fresh(moment) and _same([f"v1,{wanted}"], request.header("webhook-signature").split()[:20])


def _token(secret: str, raw: bytes, request: Request, header: str) -> bool:
    said = request.header(header)
    as_utf8 = said.encode("latin-1", "replace").decode(errors="replace")  # WSGI hands bytes over as Latin-1
    return _same([secret], [said, said.removeprefix("Bearer "), as_utf8, as_utf8.removeprefix("Bearer ")])


_PROOFS: dict[str, Callable[[str, bytes, Request, str], bool]] = {
    "github": _github, "stripe": _stripe, "slack": _slack, "standard": _standard, "token": _token}


def _hex(key: bytes, what: bytes) -> str:
    return hmac.new(key, what, hashlib.sha256).hexdigest()


def _fresh(moment: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,12}", moment)) and abs(time.time() - int(moment)) <= TOLERANCE


def _same(wanted: list[str], said: list[str]) -> bool:
    """Whether one of what is said is what is wanted, in a time that does not tell how near it came."""
    return any([hmac.compare_digest(one.encode(), other.encode(errors="replace")) for one in wanted for other in said])


def delivery_of(kind: str, raw: bytes, body: Any, request: Request, header: str | None) -> tuple[str, bool]:
    """How a delivery is known again, and whether that is the sender's own number for it; else it is a hash of its body."""
    said = {"github": lambda: request.header("X-GitHub-Delivery"), "stripe": lambda: _field(body, "id"), "slack": lambda: _field(body, "event_id"),
            "standard": lambda: request.header("webhook-id")}.get(kind, lambda: request.header(header) if header else "")()
    if 0 < len(said) <= 255 and said.isprintable():
        return f"id:{said}", True
    return "sha256:" + hashlib.sha256(raw).hexdigest(), False


def _field(body: Any, name: str) -> str:
    found = body.get(name) if isinstance(body, dict) else None
    return found if isinstance(found, str) else ""
