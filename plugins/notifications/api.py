"""The wire of notifications: /notifications."""
from typing import Annotated

from orkosi import Actor, Denied, Meta, Page, Struct, may
from plugins import notifications
from plugins.notifications import Notification, NotificationQuery, Type, Unread, plugin
from plugins.tenants import shares


class NewNotification(Struct, forbid_unknown_fields=True):
    title: Annotated[str, Meta(min_length=1, max_length=200)]
    message: Annotated[str, Meta(min_length=1, max_length=4000)]
    type: Type = "info"
    source: Annotated[str, Meta(max_length=200)] | None = None
    link: Annotated[str, Meta(max_length=2000)] | None = None


class AllRead(Struct):
    success: bool
    updated: int


@plugin.get("/api/notifications", quick=True, auth=may("viewer", "notifications:read"))
def index(query: NotificationQuery) -> Page[Notification]:
    """List one's own notifications and those for everybody

    Newest first. `read` says whether whoever asks has read it: what is for everybody, each reads for themselves."""
    return notifications.page(query)


@plugin.post("/api/notifications", quick=True, auth=may("member", "notifications:write or tasks:write"), status=201, raises=(400,))
def create(body: NewNotification, me: Actor) -> Notification:
    """Notify everybody of the tenant

    `link` is an http(s) URL or a path on this server. An agent's key notifies nobody: what it has to say stands in its task."""
    if me.kind == "agent":
        raise Denied(f"The key of agent {me.name} notifies nobody; write a log line, or say it in the task's resolution")
    shares.require(rows=1, bytes=len(body.message.encode()))
    return notifications.notify(body.title, body.message, body.type, body.source, body.link)


@plugin.get("/api/notifications/unread-count", quick=True, auth=may("viewer", "notifications:read"))
def unread_count() -> Unread:
    """How many notifications are unread

    Counted to 10,000; `count_exceeded` says where there are more."""
    return notifications.unread()


@plugin.patch("/api/notifications/read-all", auth=may("viewer", "notifications:write"))
def read_all() -> AllRead:
    """Mark everything as read

    Also what is for everybody, but for oneself alone. `updated` is counted to 10,000."""
    return AllRead(True, notifications.read_all())


@plugin.patch("/api/notifications/{id}/read", quick=True, auth=may("viewer", "notifications:write"), raises=(404,))
def read(id: int) -> Notification:
    """Mark one notification as read

    Doing so again changes nothing."""
    return notifications.read(id)
