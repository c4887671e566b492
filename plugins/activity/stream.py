"""Stream: the log of activities, told while it is written.

Owns no table: an event is a row of `activity`, written in the transaction that made it true, and its number is its place in the stream. So
what is told was committed, in that order, and can be told again. Jobs are not in it, as they are not in the log; their lists are live
enough, and a queue may do a thousand a second.
"""
import logging
from typing import Any, NamedTuple

from orkosi import Struct, across_tenants, db, now, settings, writes
from plugins.server.feeds import Feed, Waiter

from . import plugin

plugin.setting("events_days", float, 7.0, "For how many days an event can be told again to who comes back with Last-Event-ID")
plugin.setting("events_most", int, 100_000, "How many events can be told again, at most")

plugin.setting("activity_keep_days", int, 400, "For how many days the log of activities is kept")

log = logging.getLogger("orkosi")
SCANNED = 5000  # events that one page looks through for those that are wanted


class Event(Struct):
    """Something that happened: `type` to the entity, by the actor."""
    id: int
    type: str
    entity_type: str | None
    entity_id: str | None
    actor_type: str
    actor_id: str
    metadata: dict[str, Any] | None
    created_at: str


class Wanted(NamedTuple):
    """A filter: types, and beginnings of types that end in `.*`; none is all."""
    types: tuple[str, ...]

    def fits(self, event: Event) -> bool:
        """Whether an event is wanted."""
        return not self.types or event.type in self.types or f"{event.type.partition('.')[0]}.*" in self.types


class Activities:
    """The log as a source of feeds."""

    @across_tenants
    def head(self, tenant: int) -> int:
        """The newest id of a tenant; of one that has none, of all: an id is never given twice."""
        found: int = db.value("SELECT ifnull((SELECT max(id) FROM activity WHERE tenant_id = :home), (SELECT ifnull(max(id), 0) FROM activity))",
                              home=tenant)
        return found

    @across_tenants
    def after(self, tenant: int, id: int, limit: int) -> list[Event]:
        """What came after an id, oldest first."""
        found: list[Event] = db.all(Event, """
            SELECT id, action AS type, entity_type, entity_id, actor_type, actor_id, metadata, created_at FROM activity
             WHERE tenant_id = :home AND id > :id ORDER BY id LIMIT :most""", home=tenant, id=id, most=limit)
        return found

    def event(self, row: Event) -> str:
        """What it is called; an entry that somebody wrote may have any text there."""
        return "".join(char if char.isprintable() else " " for char in row.type)


source = Activities()


@across_tenants
def kept_after(tenant: int) -> int:
    """The id after which everything can still be told: what is older by days, or by very many events, cannot."""
    by_age = db.value("SELECT id FROM activity WHERE tenant_id = :home AND created_at < :before ORDER BY created_at DESC LIMIT 1", home=tenant,
                      before=now(-settings.events_days * 86400)) or 0
    by_count = db.value("SELECT id FROM activity WHERE tenant_id = :home ORDER BY id DESC LIMIT 1 OFFSET :most", home=tenant,
                        most=settings.events_most) or 0
    return max(by_age, by_count)


def lost(tenant: int, after: int) -> bool:
    """Whether something that came after an id cannot be told any more; or the id is of a future that never was, as after a restore."""
    return after < kept_after(tenant) or after > source.head(tenant)


def feed(tenant: int, wanted: Wanted, last: str, beat: bool = False) -> Feed:
    """A stream from where its client was last, or from now on; with a `beat`, it says every ten seconds, in an event, that it is there."""
    pace: dict[str, Any] = {"quiet": 10.0, "named": True} if beat else {}
    head = source.head(tenant)
    if not (last.isascii() and last.isdigit() and len(last) < 19):
        return Feed(source, tenant, wanted, wanted.fits, head, b"retry: 2000\n\n", **pace)
    if lost(tenant, int(last)):
        told = b"retry: 2000\nid: %d\nevent: reset\ndata: {\"last_id\":%d}\n\n" % (head, head)
        return Feed(source, tenant, wanted, wanted.fits, head, told, **pace)
    return Feed(source, tenant, wanted, wanted.fits, int(last), b"retry: 2000\n\n", **pace)


def page(tenant: int, wanted: Wanted, after: int, limit: int) -> tuple[list[Event], int, bool]:
    """Events after an id, up to which one that tells of, and whether some are lost; then it goes on from now."""
    if lost(tenant, after):
        return [], source.head(tenant), True
    found: list[Event] = []
    for event in source.after(tenant, after, SCANNED):
        after = event.id
        if wanted.fits(event):
            found.append(event)
            if len(found) == limit:
                break
    return found, after, False


@plugin.every("1h")
def prune() -> None:
    """Forget what happened very long ago, a little at a time, and say how much that was."""
    gone = many = 0
    while many := _prune(settings.activity_keep_days):
        gone += many
    if gone:
        log.info("%d activities of more than %d days ago are forgotten", gone, settings.activity_keep_days)


@writes(durable=False)
@across_tenants
def _prune(days: int) -> int:
    return db.run("""DELETE FROM activity WHERE id IN (SELECT id FROM (SELECT id, created_at FROM activity ORDER BY id LIMIT 500) AS oldest
                                                       WHERE created_at < :before)""", before=now(-days * 86400))


__all__ = ["Event", "Waiter", "Wanted", "feed", "page", "source"]
