"""Integrations: what outside of this machine Orkosi works with, whether it is set up, and whether that works.

Owns integrations and integration_checks. Secrets lie in the vault, as credentials called ORKOSI_<integration>_<field>; all else in a row. What the
environment says wins, and the answer says so. Surprise: an integration is tried outside of any write, and at most once a minute.
"""
import hashlib
import hmac
import json
import os
import time
from typing import Any, Literal

from orkosi import HOST_TENANT, NotFound, Plugin, Problem, Struct, acting, clean, current, db, emit, now, seconds, settings, system, writes
from plugins import credentials, queue
from plugins.fields import wrong
from plugins.notifications import Notification
from plugins.vault import canaries

from .catalogue import CATALOGUE, Failing, Field, Integration, call

plugin = Plugin("Integrations", layer="domain", needs=("credentials", "notifications", "outbound", "queue", "vault"))
plugin.setting("integrations_private", bool, False, "Whether integrations may call addresses of this machine and its network")
plugin.setting("notify_outside", str, "error", "Types of notifications that go to Slack, Telegram and the webhook, where they are set up; none: none")

Status = Literal["not_configured", "configured", "verified", "failing"]
FRESH = 60.0  # seconds for which a check is believed
LARGEST = 8192


class SeenField(Struct):
    """A value that it takes, and whether there is one; never the value."""
    name: str
    label: str
    type: str
    secret: bool
    required: bool
    set: bool


class SeenIntegration(Struct):
    """An integration as it stands. `source` says where its values are from, where there are any."""
    id: str
    name: str
    category: str
    description: str
    fields: list[SeenField]
    status: Status
    source: Literal["environment", "vault"] | None
    detail: str | None
    checked_at: str | None


def find(id: str) -> Integration:
    """One of the catalogue. NotFound."""
    if id not in CATALOGUE:
        raise NotFound(f"There is no integration {clean(id, 60)!r}; known: {', '.join(CATALOGUE)}")
    return CATALOGUE[id]


def everything() -> list[SeenIntegration]:
    """The whole catalogue, as it stands; nothing is tried."""
    return [seen(one) for one in CATALOGUE.values()]


def seen(one: Integration) -> SeenIntegration:
    """How an integration stands, by what is set and when it was last tried."""
    kept = _kept(one)
    fields = [SeenField(field.name, field.label, field.type, field.secret, field.required, bool(_outside(field)) or field.name in kept)
              for field in one.fields]
    ready = all(field.set for field in fields if field.required)
    check = db.all(tuple, "SELECT status, detail, checked_at FROM integration_checks WHERE tenant_id = :tenant AND id = :id", id=one.id)
    found: tuple[Status, str | None, str | None] = check[0] if check else ("configured", None, None)
    if not ready or (not one.fields and not check):
        found = "not_configured", None, None
    source: Literal["environment", "vault"] | None = "environment" if any(map(_outside, one.fields)) else "vault" if kept else None
    return SeenIntegration(one.id, one.name, one.category, one.description, fields, found[0], source, found[1], found[2])


def _outside(field: Field) -> str:
    """What the environment says, or for what is a setting, wherever that is set."""
    setting = field.env.removeprefix("ORKOSI_").lower()
    return str(settings.values.get(setting) or "") if setting in settings.known else os.environ.get(field.env, "") if field.env else ""


def _credential(one: Integration, field: Field) -> str:
    return f"ORKOSI_{one.id}_{field.name}".upper().replace("-", "_")


def _kept(one: Integration) -> set[str]:
    """Which values are saved here."""
    plain = {row[0] for row in db.all(tuple, "SELECT field FROM integrations WHERE tenant_id = :tenant AND id = :id", id=one.id)}
    keys = {row[0] for row in db.all(tuple, "SELECT key FROM credentials WHERE tenant_id = :tenant")}
    return plain | {field.name for field in one.fields if field.secret and _credential(one, field) in keys}


def values(one: Integration) -> dict[str, str]:
    """What there is of an integration's values, the environment's first; reading a secret is on record. Sealed, Unreadable."""
    plain = dict(db.all(tuple, "SELECT field, value FROM integrations WHERE tenant_id = :tenant AND id = :id", id=one.id))
    found, kept = {}, _kept(one)
    for field in one.fields:
        if value := _outside(field):
            found[field.name] = value
        elif field.secret and field.name in kept:
            found[field.name] = credentials.reveal(_credential(one, field))[1]
        elif field.name in plain:
            found[field.name] = plain[field.name]
    return found


# ── setting up, and trying ──


@writes
def configure(id: str, given: dict[str, Any]) -> Integration:
    """Save values; those that are not given stay. NotFound, Invalid, Sealed. Nothing is saved where one of them is wrong."""
    one = find(id)
    known = {field.name: field for field in one.fields}
    for name, value in given.items():
        if name not in known:
            raise wrong(clean(name, 60), f"{one.name} takes {', '.join(known) or 'nothing'}")
        if not isinstance(value, str) or not 1 <= len(value) <= LARGEST or not value.isprintable():
            raise wrong(name, f"1 to {LARGEST} printable characters")
    for name, value in given.items():
        if known[name].secret:
            credentials.save(_credential(one, known[name]), value, f"{one.name}: {known[name].label}")
        else:
            db.run("""INSERT INTO integrations (tenant_id, id, field, value, updated_at) VALUES (:tenant, :id, :field, :value, :now)
                      ON CONFLICT (tenant_id, id, field) DO UPDATE SET value = :value, updated_at = :now""",
                   id=id, field=name, value=canaries.blotted_text(value), now=now())
    if given:
        db.run("DELETE FROM integration_checks WHERE tenant_id = :tenant AND id = :id", id=id)
        emit("integration.configured", Named(id, current().tenant))
    return one


class Named(Struct):
    """Which integration, for whoever hears of it."""
    id: str
    tenant_id: int | None


def check(id: str) -> SeenIntegration:
    """Try an integration, unless that was done within a minute; how it stands. NotFound."""
    one = find(id)
    before = seen(one)
    if not all(field.set for field in before.fields if field.required):
        return before
    if before.checked_at and time.time() - seconds(before.checked_at) < FRESH:
        return before
    try:
        status, detail = "verified", one.tried(values(one))
    except (Failing, Problem) as error:
        status, detail = "failing", str(error) or getattr(error, "message", "")
    _note(id, status, clean(detail, 300))
    return seen(one)


@writes
def _note(id: str, status: str, detail: str) -> None:
    db.run("""INSERT INTO integration_checks (tenant_id, id, status, detail, checked_at) VALUES (:tenant, :id, :status, :detail, :now)
              ON CONFLICT (tenant_id, id) DO UPDATE SET status = :status, detail = :detail, checked_at = :now""",
           id=id, status=status, detail=detail, now=now())


# ── notifications that go out ──


class Order(Struct):
    """Which notification goes where."""
    id: int
    to: str


@plugin.on("notification.sent")
def plan(event: str, sent: Notification, **facts: Any) -> None:
    """Have a notification of the host told outside, wherever that is set up; once each. Inside the write that made it."""
    if current().tenant != HOST_TENANT or sent.type not in {word.strip() for word in settings.notify_outside.split(",")}:
        return
    for name in ("slack", "telegram", "webhook"):
        if all(field.set for field in seen(CATALOGUE[name]).fields if field.required):
            queue.later("integrations.tell", Order(sent.id, name), key=f"tell:{name}:{sent.id}")


@plugin.job("integrations.tell")
def tell(order: Order) -> str:
    """Tell one, once. What does not answer is tried again; the receiver knows a repeat by its id."""
    with acting(system(HOST_TENANT)):
        one = db.one(Notification, "SELECT *, 0 AS read FROM notifications WHERE tenant_id = :tenant AND id = :id", id=order.id)
        if one is None:
            return "gone"
        given = values(CATALOGUE[order.to])
    text = f"{one.title}\n{one.message}"[:3000]
    try:
        if order.to == "slack":
            call("POST", given["webhook_url"], body={"text": text})
        elif order.to == "telegram":
            base = (given.get("base_url") or "https://api.telegram.org").rstrip("/")
            call("POST", f"{base}/bot{given['token']}/sendMessage", body={"chat_id": given["chat_id"], "text": text})
        else:
            _post(given, one)
    except Failing as error:
        raise Unanswered(f"{order.to}: {error}") from None
    return "told"


class Unanswered(Problem):
    """Whoever was to be told does not answer; it is tried again."""
    status, code = 503, "unanswered"


def _post(given: dict[str, str], one: Notification) -> None:
    body = {name: getattr(one, name) for name in ("id", "type", "title", "message", "source", "link", "created_at")}
    headers = {}
    if given.get("secret"):  # the bytes that are sent are the ones that are signed
        moment = str(int(time.time()))
        signed = hmac.new(given["secret"].encode(), f"{moment}.{json.dumps(body)}".encode(), hashlib.sha256).hexdigest()
        headers = {"X-Orkosi-Signature": f"t={moment},v1={signed}"}
    call("POST", given["url"], headers, body)


