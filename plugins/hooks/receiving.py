"""Receiving: what becomes of a delivery that was proven.

Owns nothing beside what the face does. The delivery, and what it makes, are one transaction: two of one number at once make one thing, and a
kill leaves both or none. Surprise: whoever acts here is the hook itself, `hook:3`, in its tenant; what it may not name, nobody outside can name.
"""
from contextlib import suppress
from typing import Any, Literal

import msgspec

from orkosi import (
    HOST_TENANT,
    RANKS,
    Actor,
    Invalid,
    NoSpace,
    NotFound,
    PaymentDue,
    Problem,
    Request,
    Struct,
    TooLarge,
    TooMany,
    Unavailable,
    across_tenants,
    acting,
    db,
    jsoned,
    now,
    writes,
)
from plugins import queue, tasks
from plugins.queue import MAX_PAYLOAD
from plugins.server.limits import limiter
from plugins.tasks import NewTask, assignable, of_product
from plugins.tenants import shares
from plugins.vault import canaries

from . import Hook, Taken, bodies, by_token, find, plugin, secret_of, senders
from .bodies import MISSING

SAME = 600.0         # seconds for which an equal body is the same delivery, where its sender does not number them
KEPT = 14 * 86400.0  # seconds for which a delivery is known again


class Delivery(Struct):
    """What became of a delivery. `delivery`: how it is known again, should it come twice."""
    outcome: Literal["made", "repeated", "skipped"]
    delivery: str
    task_id: int | None = None
    job_id: str | None = None
    warnings: list[str] = []


class Came(Struct):
    """A delivery that was proven: how it is known again, whether by its sender's number, what it says, and as text."""
    delivery: str
    numbered: bool
    body: Any
    text: str


def receive(token: str, raw: bytes, request: Request) -> Delivery | str:
    """Have a delivery make what its hook says; or the challenge that Slack wants back. NotFound, Unproven, TooMany, TooLarge, Unavailable."""
    hook = by_token(token)
    if hook is None:
        raise NotFound("There is no such hook")
    limiter.take("hook", str(hook.id))
    with acting(Actor(kind=f"hook:{hook.id}", tenant=hook.tenant_id, rank=max(RANKS.values()), role="system")):
        try:
            return _proven(hook, raw, request)
        except (NoSpace, PaymentDue) as problem:
            _refused(hook.id, problem.message)
            raise Unavailable("There is no room for this delivery now; send it again later", headers={"Retry-After": "300"}) from None
        except (senders.Unproven, TooLarge, TooMany, Invalid) as problem:
            _refused(hook.id, problem.message)
            raise


def _proven(hook: Hook, raw: bytes, request: Request) -> Delivery | str:
    senders.prove(hook.kind, secret_of(hook.id) or "", raw, request, hook.header)
    clean = canaries.blotted(raw) if hook.tenant_id == HOST_TENANT else raw
    body, text = bodies.read(clean, request.environ.get("CONTENT_TYPE", ""))
    if hook.kind == "slack" and isinstance(body, dict) and body.get("type") == "url_verification":
        return bodies.as_text(body.get("challenge", ""))[:1000]
    came = Came(*senders.delivery_of(hook.kind, raw, body, request, hook.delivery_header), body, text)
    if not _wanted(hook, body, request):
        _skipped(hook.id)
        return Delivery("skipped", came.delivery)
    return _make(hook.id, came)


def _wanted(hook: Hook, body: Any, request: Request) -> bool:
    """Whether its filter lets a delivery through; a ping of GitHub's only says that the address is right."""
    if hook.kind == "github" and request.header("X-GitHub-Event") == "ping":
        return False
    if hook.filter is None:
        return True
    said = request.header(hook.filter.header) if hook.filter.header else bodies.found(body, hook.filter.pointer or "")
    return said is not MISSING and bodies.as_text(said) in hook.filter.values


@writes
def _make(id: int, came: Came) -> Delivery:
    hook = find(id)  # as it is now, inside the write
    if not hook.enabled:
        raise NotFound("There is no such hook")
    before = db.all(tuple, """SELECT task_id, job_id FROM hook_deliveries WHERE tenant_id = :tenant AND hook_id = :id AND delivery = :delivery
                                AND received_at > :since""", id=id, delivery=came.delivery, since=now(-KEPT if came.numbered else -SAME))
    if before:
        task, job = before[0]
        db.run("""UPDATE hooks SET received = received + 1, repeated = repeated + 1, last_at = :now WHERE tenant_id = :tenant AND id = :id""",
               id=id, now=now())
        return Delivery("repeated", came.delivery, task, f"job_{job}" if job else None)
    task, job, said = _make_task(hook, came) if hook.makes == "task" else (None, _make_job(hook, came), [])
    moment = now()
    db.run("""INSERT INTO hook_deliveries (tenant_id, hook_id, delivery, task_id, job_id, received_at)
              VALUES (:tenant, :id, :delivery, :task, :job, :now)
              ON CONFLICT (hook_id, delivery) DO UPDATE SET task_id = :task, job_id = :job, received_at = :now""",
           id=id, delivery=came.delivery, task=task, job=job, now=moment)
    db.run("""UPDATE hooks SET received = received + 1, made = made + 1, last_at = :now, last_error = NULL WHERE tenant_id = :tenant AND id = :id""",
           id=id, now=moment)
    return Delivery("made", came.delivery, task, f"job_{job}" if job else None, said)


def _make_task(hook: Hook, came: Came) -> tuple[int, None, list[str]]:
    said: list[str] = []
    title, from_body = _taken(hook.title, came, "title", said)
    about, also = _taken(hook.description, came, "description", said)
    product, _ = _taken(hook.product, came, "product", said)
    if product and not of_product.is_one(product):
        said.append(f"There is no product {product[:60]!r} here; the task is of none")
        product = ""
    assignee = hook.assignee
    try:
        assignable(assignee)
    except Invalid:  # a person who is gone
        said.append(f"There is nobody called {assignee}; the task is nobody's")
        assignee = None
    task, _ = tasks.create(NewTask(bodies.as_title(title) or hook.title.text, about.replace("\0", "\ufffd")[:65536], priority=hook.priority,
                                   assignee=assignee, product_slug=product or None, type=hook.type, dedupe=False))
    shares.require(bytes=len(came.text.encode()))
    db.run("""INSERT INTO hook_bodies (task_id, tenant_id, source, delivery, taken, warnings, body, received_at)
              VALUES (:task, :tenant, :source, :delivery, :taken, :warnings, :body, :now)""", task=task.id, delivery=came.delivery,
           source=f"{hook.name} ({hook.kind})", body=came.text, warnings=jsoned(said), now=now(),
           taken=jsoned([name for name, taken in (("title", from_body), ("description", also)) if taken]))
    return task.id, None, said


def _taken(field: Taken, came: Came, name: str, said: list[str]) -> tuple[str, bool]:
    """A field's value, and whether it is of the body; else its fixed text."""
    if field.pointer is None:
        return field.text, False
    value = bodies.found(came.body, field.pointer)
    if value is MISSING or not bodies.as_text(value).strip():
        said.append(f"{name}: {field.pointer} finds nothing in the body")
        return field.text, False
    return bodies.as_text(value), True


def _make_job(hook: Hook, came: Came) -> int:
    payload = {"hook": hook.name, "delivery": came.delivery, "received_at": now(), "body": came.text if came.body is MISSING else came.body}
    if len(msgspec.json.encode(payload)) > MAX_PAYLOAD:
        raise TooLarge(f"A job takes {MAX_PAYLOAD >> 10} KiB at most, of which the body leaves no room for the rest")
    job, _ = queue.submit(hook.queue_name or "", hook.task_type or "hook", payload, priority=tasks.RANK[hook.priority])
    return job.id


# ── counting ──


@writes(durable=False)
def _skipped(id: int) -> None:
    db.run("UPDATE hooks SET received = received + 1, skipped = skipped + 1, last_at = :now WHERE tenant_id = :tenant AND id = :id", id=id, now=now())


def _refused(id: int, why: str) -> None:
    with suppress(Problem):  # where the disk is full, the refusal is not counted
        _count_refused(id, why)


@writes(durable=False)
def _count_refused(id: int, why: str) -> None:
    db.run("UPDATE hooks SET refused = refused + 1, last_error = :why, last_at = :now WHERE tenant_id = :tenant AND id = :id",
           id=id, why=why[:500], now=now())


@plugin.every("1h")
@writes(durable=False)
@across_tenants
def forget() -> None:
    """Forget deliveries of more than 14 days ago: no sender repeats them any more."""
    db.run("DELETE FROM hook_deliveries WHERE received_at < :before", before=now(-KEPT))
