"""Sending: from the log of activities to a receiver, at least once, and in order for each thing that is spoken of.

Of one webhook, one delivery is under way at a time, as a job of the server's outside queue. Of all receivers that fail, are slow or are new, of
whatever tenant, one is called at a time, in turn: so they hold one of that queue's two hands, and the other is for what goes well. What a kill
leaves: a delivery that is `sending`, whose job the queue gives out again; it is then sent again with the same webhook-id, for nobody knows
whether it arrived.
"""
import base64
import hashlib
import hmac
import logging
import threading
import time
from typing import Any

import msgspec

from orkosi import Problem, Struct, across_tenants, acting, db, emit, jsoned, now, seconds, settings, system, writes
from plugins import activity, outbound, queue

from . import Webhook, find, plugin, secrets_of

log = logging.getLogger("orkosi")
news = threading.Event()
SHORTEST, LONGEST, IN_ALL = 5, 8 * 3600, 3 * 86400  # seconds between attempts, and until it is given up
HOLD = 60      # seconds for which a webhook is left alone after a failure, at most
KEPT = 14      # days
STORED = 4096  # bytes of an answer
AT_ONCE = 200  # events that one write takes from the log
SLOW = 2000    # ms of an answer
WAITING = 1000  # deliveries of a webhook that wait: what happens after them stays in the log until there is room


class Order(Struct):
    """Which delivery is to be sent, after how many attempts: of a job that a kill has run twice, the second finds it changed."""
    webhook: int
    delivery: int
    attempts: int


class Sent(Struct):
    """What came of an attempt."""
    took_ms: int
    status: int | None = None
    headers: dict[str, str] | None = None
    body: str | None = None
    error: str | None = None


# ── from the log to deliveries to jobs ──


@plugin.on("*", but=activity.QUIET)
def hear(event: str, subject: Any, **facts: Any) -> None:
    """Something happened; once it is committed, it is looked for."""
    db.after_commit(news.set)


@plugin.on("stopping")
def hurry(event: str, folder: object) -> None:
    """The server stops, and the pump need not wait."""
    news.set()


@plugin.service
def pump(stop: threading.Event) -> None:
    """Make deliveries of events, and jobs of deliveries, as they come; what other processes write, within a second."""
    while not stop.is_set():
        news.wait(1.0)
        news.clear()
        for tenant, id in behind():
            try:
                with acting(system(tenant)):
                    advance(id)
            except Problem as problem:  # the others go on
                log.error("webhook %d does not go on: %s", id, problem.message)
                stop.wait(0.1)


BEHIND = """
    SELECT tenant_id, id FROM webhooks
     WHERE status = 'active'
       AND ((EXISTS (SELECT 1 FROM activity WHERE activity.tenant_id = webhooks.tenant_id AND activity.id > webhooks.seen)
             AND NOT EXISTS (SELECT 1 FROM webhook_deliveries WHERE webhook_id = webhooks.id AND status = 'waiting' LIMIT 1 OFFSET :most))
            OR ((held_until IS NULL OR held_until <= :now)
                AND EXISTS (SELECT 1 FROM webhook_deliveries WHERE webhook_id = webhooks.id AND status = 'waiting' AND due_at <= :now)
                AND NOT EXISTS (SELECT 1 FROM webhook_deliveries WHERE webhook_id = webhooks.id AND status = 'sending'))
            OR EXISTS (SELECT 1 FROM webhook_deliveries LEFT JOIN jobs ON jobs.id = webhook_deliveries.job_id
                        WHERE webhook_id = webhooks.id AND status = 'sending'
                          AND (jobs.id IS NULL OR jobs.state NOT IN ('waiting', 'delayed', 'active'))))
     ORDER BY last_sent_at IS NOT NULL, coalesce(last_sent_at, created_at)"""


@across_tenants
def behind() -> list[tuple[int, int]]:
    """Which webhooks have something to be done, with their tenants."""
    return db.all(tuple, BEHIND, now=now(), most=WAITING)


def full(id: int) -> bool:
    """Whether so many deliveries of a webhook wait that no more are made."""
    return db.value("""SELECT 1 FROM webhook_deliveries WHERE webhook_id = :id AND tenant_id = :tenant AND status = 'waiting'
                        LIMIT 1 OFFSET :most""", id=id, most=WAITING) is not None


@writes
def advance(id: int) -> None:
    """Make deliveries of what happened, and a job of the next that is due."""
    one = db.one(Webhook, "SELECT * FROM webhooks WHERE id = :id AND tenant_id = :tenant AND status = 'active'", id=id)
    if one is None:
        return
    if not full(id):
        _fan(one)
    # A job that ended without a word, as one whose attempts the kills used up, leaves its delivery to another.
    db.run("""UPDATE webhook_deliveries SET status = 'waiting', job_id = NULL WHERE webhook_id = :id AND tenant_id = :tenant AND status = 'sending'
                 AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = webhook_deliveries.job_id AND state IN ('waiting', 'delayed', 'active'))""",
           id=id)
    _start(one)


def _fan(one: Webhook) -> None:
    rows = db.all(tuple, """
        SELECT id, action, entity_type, entity_id, actor_type, actor_id, metadata, created_at FROM activity
         WHERE tenant_id = :tenant AND id > :seen ORDER BY id LIMIT :most""", seen=one.seen, most=AT_ONCE)
    for row in rows:
        event, type, entity_type, entity_id = row[:4]
        if wanted(one.types, type):
            data = dict(zip(("id", "type", "entity_type", "entity_id", "actor_type", "actor_id"), row[:6], strict=True))
            data |= {"metadata": msgspec.json.decode(row[6]) if row[6] else None, "created_at": row[7]}
            db.run("""INSERT INTO webhook_deliveries (tenant_id, webhook_id, event_id, message_id, type, entity, body, status, due_at, created_at)
                      VALUES (:tenant, :id, :event, :message, :type, :entity, :body, 'waiting', :now, :now) ON CONFLICT DO NOTHING""",
                   id=one.id, event=event, message=f"msg_{one.id}_{event}", type=type, entity=f"{entity_type}:{entity_id}", now=now(),
                   body=jsoned({"type": type, "timestamp": row[7], "data": data}))
    if rows:
        db.run("UPDATE webhooks SET seen = :seen WHERE id = :id AND tenant_id = :tenant", id=one.id, seen=rows[-1][0])
    if len(rows) == AT_ONCE:
        db.after_commit(news.set)


def wanted(types: list[str], type: str) -> bool:
    """Whether a webhook of these types is told of an event; none is all."""
    family = type.partition(".")[0]
    return family != "webhook" and (not types or type in types or f"{family}.*" in types)


NEXT = """
    SELECT id, attempts FROM webhook_deliveries AS one
     WHERE webhook_id = :id AND tenant_id = :tenant AND status = 'waiting' AND due_at <= :now
       AND NOT EXISTS (SELECT 1 FROM webhook_deliveries AS before WHERE before.webhook_id = :id AND before.entity = one.entity
                          AND before.id < one.id AND before.status IN ('waiting', 'sending'))
     ORDER BY due_at, id LIMIT 1"""


def _start(one: Webhook) -> None:
    """Inside a write: the next delivery becomes a job, unless one is under way, or the receiver is left alone for now."""
    if one.held_until and one.held_until > now():
        return
    if db.value("SELECT 1 FROM webhook_deliveries WHERE webhook_id = :id AND tenant_id = :tenant AND status = 'sending' LIMIT 1", id=one.id):
        return
    if troubled(one) and _troubled_under_way():
        return
    for delivery, attempts in db.all(tuple, NEXT, id=one.id, now=now()):
        job = queue.later("webhooks.send", Order(one.id, delivery, attempts), attempts=25, timeout=60, outside=True)
        db.run("UPDATE webhook_deliveries SET status = 'sending', job_id = :job WHERE id = :delivery AND tenant_id = :tenant",
               job=job.id, delivery=delivery)


def troubled(one: Webhook) -> bool:
    """Whether a webhook failed last, or was slow; or nobody knows yet."""
    return one.last_sent_at is None or one.failures > 0 or (one.last_took_ms or 0) > SLOW


@across_tenants
def _troubled_under_way() -> bool:
    return db.value("""SELECT 1 FROM webhooks WHERE (failures > 0 OR last_sent_at IS NULL OR last_took_ms > :slow)
                          AND EXISTS (SELECT 1 FROM webhook_deliveries WHERE webhook_id = webhooks.id AND status = 'sending') LIMIT 1""",
                    slow=SLOW) is not None


# ── one attempt ──


def signed(keys: list[bytes], message: str, moment: int, body: bytes) -> str:
    """The signatures of a message, one for each key."""
    text = f"{message}.{moment}.".encode() + body
    return " ".join("v1," + base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode() for key in keys)


@plugin.job("webhooks.send")
def send(order: Order) -> str:
    """Send one delivery, once, and note what came of it. Sealed: then the queue tries again."""
    row = db.one(tuple, """
        SELECT url, message_id, body FROM webhook_deliveries JOIN webhooks ON webhooks.id = webhook_id
         WHERE webhook_deliveries.id = :id AND webhook_deliveries.tenant_id = :tenant
           AND webhook_deliveries.status = 'sending' AND attempts = :attempts AND webhooks.status = 'active'""", id=order.delivery,
        attempts=order.attempts)
    if row is None:
        release(order)
        return "no longer to be sent"
    url, message, body = row[0], row[1], row[2].encode()
    began, moment = time.monotonic(), int(time.time())
    headers = {"Content-Type": "application/json", "webhook-id": message, "webhook-timestamp": str(moment),
               "webhook-signature": signed(secrets_of(order.webhook), message, moment, body)}
    try:
        answer = outbound.request("POST", url, body, headers, private=settings.webhooks_private)
        text = answer.body[:STORED].decode(errors="replace").replace("\0", "\ufffd")
        sent = Sent(_since(began), answer.status, {name[:200]: value[:1000] for name, value in answer.headers[:50]}, text,
                    None if 200 <= answer.status < 300 else f"it answered {answer.status}")
    except outbound.Unreached as error:
        sent = Sent(_since(began), error=str(error))
    note(order, sent)
    return sent.error or "delivered"


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


@writes
def release(order: Order) -> None:
    """A delivery whose webhook was paused meanwhile waits until that is resumed."""
    db.run("""UPDATE webhook_deliveries SET status = 'waiting', job_id = NULL WHERE id = :id AND tenant_id = :tenant AND status = 'sending'
                 AND attempts = :attempts""", id=order.delivery, attempts=order.attempts)


@writes
def note(order: Order, sent: Sent) -> None:
    """Keep what came of an attempt, and go on to the next delivery."""
    row = db.one(tuple, """SELECT attempts, first_sent_at FROM webhook_deliveries
                            WHERE id = :id AND tenant_id = :tenant AND status = 'sending' AND attempts = :attempts""",
                 id=order.delivery, attempts=order.attempts)
    if row is None:  # deleted meanwhile
        return
    attempts, first = row[0] + 1, row[1] or now()
    tried = time.time() - seconds(first)
    over = sent.error is not None and tried >= IN_ALL
    db.run("""UPDATE webhook_deliveries SET status = :status, attempts = :attempts, first_sent_at = :first, sent_at = :now, took_ms = :took,
                     due_at = :due, response_status = :response, response_headers = :headers, response_body = :body, error = :error, job_id = NULL
               WHERE id = :id AND tenant_id = :tenant""",
           id=order.delivery, status="delivered" if sent.error is None else "dead" if over else "waiting", attempts=attempts, first=first,
           now=now(), took=sent.took_ms, due=now(backoff(tried)), response=sent.status, body=sent.body, error=sent.error,
           headers=None if sent.headers is None else jsoned(sent.headers))
    _stands(find(order.webhook), sent)
    db.after_commit(news.set)
    if not troubled(find(order.webhook)):  # else it is another's turn, which the pump knows
        advance(order.webhook)


def backoff(tried: float) -> float:
    """Seconds until the next attempt, where it was tried for so many already: each time about four times as long."""
    return min(LONGEST, max(SHORTEST, 3 * tried))


def _stands(one: Webhook, sent: Sent) -> None:
    failures = 0 if sent.error is None else one.failures + 1
    since = None if sent.error is None else one.failing_since or now()
    why = "gone" if sent.status == 410 else "failing" if since and time.time() - seconds(since) >= IN_ALL else None
    db.run("""UPDATE webhooks SET failures = :failures, failing_since = :since, held_until = :held, last_sent_at = :now, last_response = :response,
                     last_took_ms = :took, status = CASE WHEN :why = '' THEN status ELSE 'paused' END,
                     paused_for = CASE WHEN :why = '' THEN paused_for ELSE :why END
               WHERE id = :id AND tenant_id = :tenant""",
           id=one.id, failures=failures, since=since, held=now(min(HOLD, 2 ** min(failures, 6))) if failures else None, now=now(),
           response=sent.status, took=sent.took_ms, why=why or "")
    if why and one.status == "active":
        log.warning("webhook %d is paused: %s", one.id, "it answered 410" if why == "gone" else "it failed for three days")
        emit("webhook.paused", find(one.id))


# ── forgetting ──


@plugin.every("1h")
def prune() -> None:
    """Forget what was sent two weeks ago, a little at a time."""
    while _prune():
        time.sleep(0.02)


@writes(durable=False)
@across_tenants
def _prune() -> int:
    return db.run("""DELETE FROM webhook_deliveries WHERE id IN (
                       SELECT id FROM webhook_deliveries WHERE created_at < :before AND status IN ('delivered', 'dead')
                        ORDER BY created_at LIMIT 500)""", before=now(-KEPT * 86400))
