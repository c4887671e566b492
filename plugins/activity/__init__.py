"""Activity: who did what, in the order it happened.

Owns activity. It hears every event that a plugin emits and keeps a row of it, in the very
transaction that made it true: what is rolled back was never in the log. Nobody imports it.
Surprise: only the subject's id is kept, its title where it has one, and the note of who did it. All other facts that travel
with an event may hold secrets or addresses, and stay out.
"""
from typing import Any, Literal

from orkosi import (
    COUNTED,
    Page,
    Paging,
    Plugin,
    Struct,
    across_tenants,
    current,
    db,
    jsoned,
    now,
    writes,
)
from plugins import fields, lists
from plugins.lists import Listing
from plugins.server.feeds import feeds
from plugins.tenants import shares

plugin = Plugin("Activity", layer="ground", needs=("users", "tenants", "fields", "lists", "server"))

ActorType = Literal["agent", "system", "user"]

# Jobs are too many and have lists of their own; the others tell of the server, not of the company.
QUIET = ("job.", "log.", "run.progress", "idle.", "mail.", "user.gone", "opening", "opened", "serving", "stopping", "closing")
DAY, WEEK = 86400, 7 * 86400


class ActivityEntry(Struct):
    """One thing somebody did."""
    id: int
    actor_type: ActorType
    actor_id: str
    action: str
    entity_type: str | None
    entity_id: str | None
    metadata: dict[str, Any] | None
    created_at: str


class Period(Struct):
    """What happened since a moment; beyond 10,000 only the newest are counted, and `total_exceeded` says so."""
    total: int
    total_exceeded: bool
    by_action: dict[str, int]
    by_actor_type: dict[str, int]


class Stats(Struct):
    """How much happened."""
    total: int
    total_exceeded: bool
    last_24h: Period
    last_7d: Period


class ActivityQuery(Paging):
    """What a list of activities may be narrowed by."""
    actor_type: ActorType | None = None
    actor_id: str | None = None
    action: str | None = None


ENTRIES = Listing(
    of=ActivityEntry, source="activity", heavy="ifnull(octet_length(metadata), 0)", light=20,
    filters={"actor_type": "actor_type = :actor_type", "actor_id": "actor_id = :actor_id", "action": "action = :action"})

RECENT = """
    SELECT action, actor_type, count(*) AS times
      FROM (SELECT action, actor_type FROM activity WHERE tenant_id = :tenant AND created_at >= :since
             ORDER BY created_at DESC LIMIT :most) AS recent
     GROUP BY action, actor_type ORDER BY times DESC, action"""


REMEMBER = """
    INSERT INTO activity (tenant_id, actor_type, actor_id, action, entity_type, entity_id, metadata, created_at)
    VALUES (:home, :actor_type, :actor_id, :action, :entity_type, :entity_id, :metadata, :now)"""


@plugin.on("*", but=QUIET)
@across_tenants
def remember(event: str, subject: Any, **facts: Any) -> None:
    """Keep a row of every event that tells of the company, in the tenant it happened in."""
    tenant = getattr(subject, "tenant_id", None) or current().tenant
    if tenant is None:  # nobody's: there is no log it belongs into
        return
    kind, id = who_acts()
    entity = next((getattr(subject, name) for name in ("id", "name", "slug") if hasattr(subject, name)), None)
    said = (("title", getattr(subject, "title", None)), ("note", facts.get("note")))
    told = {name: text for name, text in said if isinstance(text, str)}
    db.after_commit(feeds.ring)
    db.run(REMEMBER, home=tenant, actor_type=kind, actor_id=id, action=event, entity_type=event.partition(".")[0],
           entity_id=None if entity is None else str(entity), metadata=jsoned(told) if told else None, now=now())


@plugin.on("user.erased")
@across_tenants
def erase(event: str, gone: Any, **facts: Any) -> None:
    """The log keeps who did what by number; only what somebody of their tenant wrote, to them or of them, may name them."""
    db.run("""UPDATE activity SET metadata = NULL WHERE entity_type = 'notification' AND tenant_id = :home
               AND entity_id IN (SELECT CAST(id AS TEXT) FROM notifications WHERE user_id = :id)""", id=gone.id, home=gone.tenant_id)
    for address in gone.addresses:
        for id, metadata in db.all(tuple, """SELECT id, metadata FROM activity WHERE tenant_id = :home
                                                AND instr(lower(metadata), lower(:address)) > 0""", home=gone.tenant_id, address=address):
            db.run("UPDATE activity SET metadata = :metadata WHERE id = :id", id=id, metadata=gone.blotted(metadata))


def who_acts() -> tuple[ActorType, str]:
    """How the log names whoever acts: a person by id, also behind a key; an agent by name; all else is the system."""
    actor = current()
    if actor.kind == "agent":
        return "agent", actor.name
    if actor.user is not None:
        return "user", str(actor.user)
    return "system", actor.id or actor.kind


@writes
def record(actor_type: ActorType, actor_id: str, action: str, entity_type: str | None = None, entity_id: str | None = None,
           metadata: dict[str, Any] | None = None) -> ActivityEntry:
    """Keep one entry that somebody tells of; callers see to it that the actor is who it says."""
    fields.required(action, "action", "Say what was done")
    shares.require(rows=1, bytes=len(jsoned(metadata) if metadata else ""))
    db.after_commit(feeds.ring)
    return db.insert(ActivityEntry, "activity", actor_type=actor_type, actor_id=actor_id, action=action, entity_type=entity_type,
                     entity_id=entity_id, metadata=metadata, created_at=now())


def page(query: ActivityQuery) -> Page[ActivityEntry]:
    """The log, newest first."""
    return lists.page(ENTRIES, query)


def stats() -> Stats:
    """How much happened, ever and lately. Its cost is bounded, however long the log is."""
    total = db.value("SELECT count(*) FROM (SELECT 1 FROM activity WHERE tenant_id = :tenant LIMIT :most) AS counted", most=COUNTED + 1)
    return Stats(min(total, COUNTED), total > COUNTED, _since(DAY), _since(WEEK))


def _since(ago: float) -> Period:
    since, period = now(-ago), Period(0, False, {}, {})
    for action, kind, times in db.all(tuple, RECENT, since=since, most=COUNTED):
        period.total += times
        period.by_action[action] = period.by_action.get(action, 0) + times
        period.by_actor_type[kind] = period.by_actor_type.get(kind, 0) + times
    period.total_exceeded = period.total == COUNTED and db.value("""
        SELECT 1 FROM activity WHERE tenant_id = :tenant AND created_at >= :since LIMIT 1 OFFSET :most""", since=since, most=COUNTED) is not None
    return period
