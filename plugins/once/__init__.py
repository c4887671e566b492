"""Once: a request with an `Idempotency-Key` is done once, however often it is sent.

Owns public_answers. Any endpoint that says `once=True` has it; the server asks here instead of calling its function.
The first answer is kept in the transaction of what it tells of, for a day, and given again to the same
principal for the same request. What failed is not kept: it left nothing behind, and may be tried again.
"""
import hashlib
import re
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from orkosi import Conflict, Document, Plugin, Request, Struct, Unprocessable, across_tenants, current, db, now, writes
from plugins.fields import wrong
from plugins.tenants import shares

plugin = Plugin("Once", layer="ground", needs=("fields", "tenants"))

DAY = 86400
_under_way: set[tuple] = set()
_lock = threading.Lock()


class Kept(Struct):
    """An answer that was given."""
    fingerprint: bytes
    status: int
    body: str


def once(request: Request, body: Struct | None, make: Callable[[], Any]) -> Any:
    """What `make` returns; with an Idempotency-Key that was used for this very request, the answer it had.

    Unprocessable where the key was used for another request, Conflict while the first is under way.
    """
    key = request.header("Idempotency-Key")
    if not key:
        return make()
    if not re.fullmatch(r"[\x20-\x7e]{1,255}", key):
        raise wrong("Idempotency-Key", "Use 1 to 255 printable ASCII characters")
    place = (current().tenant, current().ref, key)
    with _lock:
        if place in _under_way:
            raise Conflict("The first request with this Idempotency-Key is under way; ask again in a moment", headers={"Retry-After": "1"})
        _under_way.add(place)
    try:
        return _answer(request, _fingerprint(request, body), key, make)
    finally:
        with _lock:
            _under_way.discard(place)


def _answer(request: Request, fingerprint: bytes, key: str, make: Callable[[], Any]) -> Document:
    kept = db.one(Kept, """SELECT fingerprint, status, body FROM public_answers
                            WHERE tenant_id = :tenant AND principal = :who AND key = :key AND created_at > :since""",
                  who=current().ref, key=key, since=now(-DAY))
    if kept is None:
        return _make(request, fingerprint, key, make)
    if kept.fingerprint != fingerprint:
        raise Unprocessable("Idempotency-Key: It was used for another request; choose a new one for this")
    return Document(kept.body.encode(), "application/json", {"Idempotency-Replayed": "true"}, kept.status)


@writes
def _make(request: Request, fingerprint: bytes, key: str, make: Callable[[], Any]) -> Document:
    assert request.endpoint
    status, _, text = request.endpoint.answer(make())
    old = db.value("SELECT octet_length(body) FROM public_answers WHERE tenant_id = :tenant AND principal = :who AND key = :key",
                   who=current().ref, key=key)  # of the day before, which makes room for it
    shares.require(rows=int(old is None), bytes=len(text) - (old or 0))
    db.run("""
        INSERT INTO public_answers (tenant_id, principal, key, fingerprint, status, body, created_at)
        VALUES (:tenant, :who, :key, :fingerprint, :status, :body, :now)
        ON CONFLICT (tenant_id, principal, key) DO UPDATE SET fingerprint = :fingerprint, status = :status, body = :body, created_at = :now""",
        who=current().ref, key=key, fingerprint=fingerprint, status=status, body=text.decode(), now=now())
    return Document(text, "application/json", status=status)


def _fingerprint(request: Request, body: Struct | None) -> bytes:
    # Of what was understood, not of the bytes: spaces and the order of fields make no other request.
    return hashlib.sha256(f"{request.method} {request.path}\n".encode() + msgspec.json.encode(body)).digest()


@plugin.every("1h")
@writes(durable=False)
@across_tenants
def forget() -> None:
    """Drop answers older than a day."""
    db.run("DELETE FROM public_answers WHERE created_at <= :since", since=now(-DAY))


@plugin.on("user.erased")
@across_tenants
def erase(event: str, gone: Any, **facts: Any) -> None:
    """Drop what somebody was answered whose account is erased."""
    db.run("DELETE FROM public_answers WHERE principal = :who", who=f"user:{gone.id}")
