"""The wire of activity: /activity-log.

Surprise: what a request says about the actor counts only from an administrator's session. Everybody
else is recorded as who they are, so that the log cannot be made to say that somebody else did it.
"""
from typing import Annotated, Any

from orkosi import RANKS, Actor, Meta, Page, Struct, may
from plugins import activity
from plugins.activity import ActivityEntry, ActivityQuery, ActorType, Stats, plugin

Name = Annotated[str, Meta(min_length=1, max_length=200)]


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
