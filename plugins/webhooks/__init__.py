"""Webhooks: what happens here, told to addresses outside, signed after the Standard Webhooks specification.

Owns webhooks, webhook_secrets and webhook_deliveries. The log of activities is the outbox: each webhook has a place in it (`seen`), and a
delivery is made for every event after that place, in one write with moving it; so nobody who writes pays for webhooks, and a kill loses
nothing. sending.py sends them. Surprise: what webhooks themselves do (`webhook.…`) is never delivered, else each would follow from another.
"""
import base64
import ipaddress
import secrets
from contextlib import suppress
from typing import Any, Literal

from orkosi import Conflict, NotFound, Page, Paging, Plugin, Struct, across_tenants, current, db, emit, jsoned, now, settings, writes
from plugins import lists, outbound, vault
from plugins.fields import wrong
from plugins.lists import Listing
from plugins.vault import Envelope, Unreadable, canaries

plugin = Plugin("Webhooks", layer="domain", needs=("activity", "fields", "lists", "outbound", "queue", "vault"))
plugin.setting("webhooks_private", bool, False, "Whether webhooks may go to addresses of this machine (there by http, too) and its network")
plugin.setting("webhooks_most", int, 20, "How many webhooks one tenant may have")
plugin.setting("webhooks_grace_hours", int, 24, "For how many hours a webhook's secret signs as well after it was rotated")

Status = Literal["active", "paused"]
DeliveryStatus = Literal["waiting", "sending", "delivered", "dead"]


class Webhook(Struct):
    """An address, and how it stands. `paused_for`: it was `asked`, it is `failing` for three days, or it said that it is `gone` (410)."""
    id: int
    tenant_id: int
    url: str
    description: str
    types: list[str]
    status: Status
    paused_for: Literal["asked", "failing", "gone"] | None
    seen: int
    failures: int
    failing_since: str | None
    held_until: str | None
    last_sent_at: str | None
    last_response: int | None
    last_took_ms: int | None
    created_at: str
    updated_at: str


class Delivery(Struct):
    """One event for one webhook, and what came of its last attempt."""
    id: int
    webhook_id: int
    event_id: int | None
    message_id: str
    type: str
    status: DeliveryStatus
    attempts: int
    due_at: str
    sent_at: str | None
    took_ms: int | None
    response_status: int | None
    response_headers: dict[str, str] | None
    response_body: str | None
    error: str | None
    created_at: str


class DeliveryQuery(Paging):
    """What a list of deliveries may be narrowed by."""
    status: DeliveryStatus | None = None


DELIVERIES = Listing(of=Delivery, source="webhook_deliveries", base="tenant_id = :tenant AND webhook_id = :webhook",
                     columns="""id, webhook_id, event_id, message_id, type, status, attempts, due_at, sent_at, took_ms, response_status,
                                response_headers, response_body, error, created_at""",
                     filters={"status": "status = :status"}, heavy="ifnull(octet_length(response_body), 0) + 300")


# ── looking ──


def everything() -> list[Webhook]:
    """Every webhook of the tenant, oldest first."""
    return db.all(Webhook, "SELECT * FROM webhooks WHERE tenant_id = :tenant ORDER BY id")


def find(id: int) -> Webhook:
    """One webhook. NotFound."""
    one = db.one(Webhook, "SELECT * FROM webhooks WHERE id = :id AND tenant_id = :tenant", id=id)
    if one is None:
        raise NotFound(f"There is no webhook {id}")
    return one


def page(id: int, query: DeliveryQuery) -> Page[Delivery]:
    """A webhook's deliveries, newest first. NotFound."""
    find(id)
    return lists.page(DELIVERIES, query, webhook=id)


def count(id: int, status: DeliveryStatus) -> int:
    """How many deliveries of a webhook stand so; to 10,000."""
    found: int = db.value("""
        SELECT count(*) FROM (SELECT 1 FROM webhook_deliveries WHERE webhook_id = :id AND status = :status AND tenant_id = :tenant LIMIT 10000)
            AS counted""", id=id, status=status)
    return found


def delivery(id: int, number: int) -> Delivery:
    """One delivery of a webhook. NotFound."""
    one = db.one(Delivery, """
        SELECT id, webhook_id, event_id, message_id, type, status, attempts, due_at, sent_at, took_ms, response_status, response_headers,
               response_body, error, created_at FROM webhook_deliveries
         WHERE id = :number AND webhook_id = :id AND tenant_id = :tenant""", id=id, number=number)
    if one is None:
        raise NotFound(f"Webhook {id} has no delivery {number}; they are kept for 14 days")
    return one


# ── setting up ──


def require_address(url: str) -> str:
    """An address as it may be called, its name not yet looked up. Invalid."""
    try:
        host = outbound.split(url, private=settings.webhooks_private).hostname or ""
    except outbound.Forbidden as error:
        raise wrong("url", str(error)) from None
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        return url
    if not settings.webhooks_private and not outbound.public(literal):
        raise wrong("url", "it is a private address; the operator may allow those with the setting webhooks_private")
    return url


@writes
def create(url: str, types: list[str], description: str) -> tuple[Webhook, str]:
    """Add a webhook, for what happens from now on; it, and its secret. Invalid, Conflict where there are too many, Sealed."""
    if db.value("SELECT count(*) FROM (SELECT 1 FROM webhooks WHERE tenant_id = :tenant LIMIT :most) AS counted",
                most=settings.webhooks_most) >= settings.webhooks_most:
        raise Conflict(f"There are {settings.webhooks_most} webhooks, which is the most (setting webhooks_most); delete one first")
    one = db.insert(Webhook, "webhooks", url=require_address(url), description=description, types=list(dict.fromkeys(types)), status="active",
                    seen=db.value("SELECT ifnull(max(id), 0) FROM activity WHERE tenant_id = :tenant"), created_at=now(), updated_at=now())
    secret = _new_secret(one.id)
    emit("webhook.created", one)
    return one, secret


@writes
def change(id: int, values: dict[str, Any], rotate: bool = False) -> tuple[Webhook, str | None]:
    """Change what is given; the webhook, and its new secret where it is to `rotate`. NotFound, Invalid, Sealed."""
    before = find(id)
    if values.get("status") == "active" and not rotate and not db.value("SELECT 1 FROM webhook_secrets WHERE webhook_id = :id LIMIT 1", id=id):
        raise wrong("rotate_secret", "This webhook came from elsewhere, without its secret; resume it with rotate_secret, for a new one")
    if "url" in values:
        require_address(values["url"])
    if "types" in values:
        values["types"] = list(dict.fromkeys(values["types"]))
    if "status" in values and values["status"] != before.status:
        values["paused_for"] = "asked" if values["status"] == "paused" else None
    if values.get("status") == "active" or "url" in values:
        values |= {"failures": 0, "failing_since": None, "held_until": None}
        # What waits is tried at once, and for three days from now.
        db.run("""UPDATE webhook_deliveries SET first_sent_at = NULL, due_at = :now
                   WHERE webhook_id = :id AND tenant_id = :tenant AND status = 'waiting'""", id=id, now=now())
        db.after_commit(sending.news.set)
    one = db.patch(Webhook, "webhooks", id, **values) if values else before
    secret = _new_secret(id) if rotate else None
    if values or rotate:
        emit("webhook.updated", one)
    return one, secret


@writes
def delete(id: int) -> None:
    """Forget a webhook, its secrets and its deliveries. NotFound."""
    one = find(id)
    db.run("DELETE FROM webhook_deliveries WHERE webhook_id = :id AND tenant_id = :tenant", id=id)
    db.run("DELETE FROM webhook_secrets WHERE webhook_id = :id", id=id)
    db.run("DELETE FROM webhooks WHERE id = :id AND tenant_id = :tenant", id=id)
    emit("webhook.deleted", one)
    db.after_commit(canaries.forget)


@writes
def test(id: int) -> Delivery:
    """Have a `webhook.test` event sent, by the way of all others. NotFound, Conflict where it is paused, or very much waits."""
    if find(id).status == "paused":
        raise Conflict(f"Webhook {id} is paused; resume it first")
    if sending.full(id):
        raise Conflict(f"More than {sending.WAITING} deliveries of webhook {id} wait already; its receiver does not take them")
    mark = secrets.token_hex(8)
    body = {"type": "webhook.test", "timestamp": now(), "data": {"webhook_id": id}}
    number = db.add("""
        INSERT INTO webhook_deliveries (tenant_id, webhook_id, message_id, type, entity, body, status, due_at, created_at)
        VALUES (:tenant, :id, :message, 'webhook.test', :entity, :body, 'waiting', :now, :now)""",
        id=id, message=f"msg_test_{mark}", entity=f"test:{mark}", body=jsoned(body), now=now())
    db.after_commit(sending.news.set)
    return delivery(id, number or 0)


@writes
def replay(id: int, number: int) -> Delivery:
    """Have a finished delivery sent again, with the same webhook-id. NotFound, Conflict where it is still to be sent."""
    find(id)
    if not db.run("""UPDATE webhook_deliveries SET status = 'waiting', first_sent_at = NULL, due_at = :now, job_id = NULL
                      WHERE id = :number AND webhook_id = :id AND tenant_id = :tenant AND status IN ('delivered', 'dead')""",
                  id=id, number=number, now=now()):
        one = delivery(id, number)
        raise Conflict(f"Delivery {number} is {one.status}: it is sent as soon as it is due")
    db.after_commit(sending.news.set)
    return delivery(id, number)


# ── secrets ──


@writes
def _new_secret(id: int) -> str:
    """The one before it signs as well for a while; one before that, no more."""
    raw, tenant = secrets.token_bytes(32), current().tenant or 0
    version = (db.value("SELECT max(version) FROM webhook_secrets WHERE webhook_id = :id", id=id) or 0) + 1
    kept = vault.seal(raw, "webhook", tenant, id, version)
    db.run("DELETE FROM webhook_secrets WHERE webhook_id = :id AND until IS NOT NULL", id=id)
    db.run("UPDATE webhook_secrets SET until = :until WHERE webhook_id = :id", id=id, until=now(settings.webhooks_grace_hours * 3600))
    db.run("""INSERT INTO webhook_secrets (webhook_id, version, vault_key_id, nonce, sealed)
              VALUES (:id, :version, :data_key, :nonce, :sealed)""",
           id=id, version=version, data_key=kept.data_key_id, nonce=kept.nonce, sealed=kept.sealed)
    db.after_commit(canaries.forget)
    return "whsec_" + base64.b64encode(raw).decode()


def secrets_of(id: int) -> list[bytes]:
    """What signs for a webhook now, the newest first. Sealed, Unreadable."""
    rows = db.all(tuple, """SELECT version, vault_key_id, nonce, sealed FROM webhook_secrets
                             WHERE webhook_id = :id AND (until IS NULL OR until > :now) ORDER BY version DESC""", id=id, now=now())
    return [vault.open_(Envelope(data_key, nonce, sealed), "webhook", current().tenant or 0, id, version)
            for version, data_key, nonce, sealed in rows]


@canaries.tells
def values() -> dict[str, str]:
    """The secrets that sign, for those who search texts for them; what cannot be read is left out. Sealed."""
    found = {}
    for id, version, data_key, nonce, sealed in db.all(tuple, """
            SELECT webhook_id, version, vault_key_id, nonce, sealed FROM webhook_secrets JOIN webhooks ON webhooks.id = webhook_id
             WHERE tenant_id = :tenant"""):
        with suppress(Unreadable):
            raw = vault.open_(Envelope(data_key, nonce, sealed), "webhook", current().tenant or 0, id, version)
            found[f"secret {version} of webhook {id}"] = base64.b64encode(raw).decode()
    return found


@vault.keeps
@writes
@across_tenants
def reseal(newest: int, most: int) -> int:
    """Seal up to `most` secrets anew that an older data key sealed, of every tenant; how many."""
    rows = db.all(tuple, """SELECT webhook_id, version, vault_key_id, nonce, sealed, tenant_id
                              FROM webhook_secrets JOIN webhooks ON webhooks.id = webhook_id WHERE vault_key_id < :newest LIMIT :most""",
                  newest=newest, most=most)
    for id, version, data_key, nonce, sealed, tenant in rows:
        about = ("webhook", tenant, id, version)
        fresh = vault.seal(vault.open_(Envelope(data_key, nonce, sealed), *about), *about)
        db.run("""UPDATE webhook_secrets SET vault_key_id = :data_key, nonce = :nonce, sealed = :sealed
                   WHERE webhook_id = :id AND version = :version""", id=id, version=version, data_key=fresh.data_key_id, nonce=fresh.nonce,
               sealed=fresh.sealed)
    return len(rows)


from . import sending  # noqa: E402  # the last line: it uses the verbs above
