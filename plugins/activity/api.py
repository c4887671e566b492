"""The wire of activity: /activity-log.

Surprise: what a request says about the actor counts only from an administrator's session. Everybody
else is recorded as who they are, so that the log cannot be made to say that somebody else did it.
"""
import time
from typing import Annotated, Any

from orkosi import RANKS, Actor, Meta, Page, Reply, Request, Struct, may
from plugins import activity
from plugins.activity import ActivityEntry, ActivityQuery, ActorType, Stats, plugin, stream
from plugins.activity.stream import Event
from plugins.server.feeds import document

Name = Annotated[str, Meta(min_length=1, max_length=200)]
EventType = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_]*\.([a-z][a-z0-9_]*|\*)\Z", max_length=100,
                                description="Such as task.done, or task.* for all of tasks")]


class NewEntry(Struct, forbid_unknown_fields=True):
    actor_type: ActorType
    actor_id: Name
    action: Name
    entity_type: Name | None = None
    entity_id: Name | None = None
    metadata: dict[str, Any] | None = None


@plugin.get("/api/activity-log", quick=True, auth=may("editor", "activity:read"))
def index(query: ActivityQuery) -> Page[ActivityEntry]:
    """List what happened

    Newest first."""
    return activity.page(query)


@plugin.post("/api/activity-log", quick=True, auth=may("member", "activity:write or tasks:write"), status=201, raises=(400,), max_body=65536)
def create(body: NewEntry, me: Actor) -> ActivityEntry:
    """Record something that was done

    An administrator may say who did it; for everybody else `actor_type` and `actor_id` become their own."""
    kind, id = body.actor_type, body.actor_id
    if me.scopes is not None or me.rank < RANKS["admin"]:
        kind, id = activity.who_acts()
    return activity.record(kind, id, body.action, body.entity_type, body.entity_id, body.metadata)


@plugin.get("/api/activity-log/stats", auth=may("editor", "activity:read"))
def stats() -> Stats:
    """How much happened, ever, in 24 hours and in 7 days

    Counts end at 10,000, and `total_exceeded` says where there is more."""
    return activity.stats()


class EventQuery(Struct, forbid_unknown_fields=True):
    """`after` or `wait_seconds`: as JSON, at once or as soon as there is something; else as a stream."""
    type: list[EventType] = []
    after: Annotated[int, Meta(ge=0, le=2**53, description="The id of the last event that is known")] | None = None
    wait_seconds: Annotated[float, Meta(ge=0, le=25)] | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 100
    beat: Annotated[bool, Meta(description="Whether a stream's heartbeat is an event, `beat`, every ten seconds: pages do not see comments")] = False


@plugin.get("/api/events", auth=may("editor", "events:read"), raises=(400, 503))
def events(query: EventQuery, request: Request, me: Actor) -> Reply[list[Event]]:
    """Follow what happens, as it happens

    A stream of server-sent events: each has its `id`, is called as its `type`, and carries itself as JSON. After a break, the header
    `Last-Event-ID` has it go on where it was. What is no longer kept for that, after days or very many events, cannot be told again: then the
    first event is called `reset`, and says where the stream goes on. With `after` or `wait_seconds`, the same comes as JSON, a page at a time:
    `meta.last_id` is the next `after`."""
    wanted = stream.Wanted(tuple(sorted(set(query.type))))
    tenant = me.tenant or 0
    if query.after is None and query.wait_seconds is None:
        return Reply(document(stream.feed(tenant, wanted, request.header("Last-Event-ID"), query.beat)))  # type: ignore[arg-type]
    place = request.waits
    after = place.after if place else stream.source.head(tenant) if query.after is None else query.after
    if place is None and query.wait_seconds:
        place = stream.Waiter(stream.source, tenant, query.wait_seconds, request.again, None, after)
    found, last, reset = stream.page(tenant, wanted, after, query.limit)
    answer = Reply(found, meta={"last_id": last, "reset": reset})
    if place is not None:
        place.nothing = answer
        if not found and not reset and time.monotonic() < place.until:
            raise place
        place.leave()
    return answer
