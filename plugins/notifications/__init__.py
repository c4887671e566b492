"""Notifications: what people should know without asking.

Owns notifications. One for a user is that user's alone; one without a user is for everybody of the tenant.
Surprise: `read` belongs to the notification, not to the reader. What one person reads of the tenant-wide ones
is read for all, as with a note on a shared board.
"""
import re
from typing import Any, Literal

from orkosi import (
    COUNTED,
    Listing,
    NotFound,
    Page,
    Paging,
    Plugin,
    Struct,
    across_tenants,
    acting,
    current,
    db,
    emit,
    now,
    system,
    writes,
)
from plugins.fields import wrong

plugin = Plugin("Notifications", layer="ground", needs=("users", "tenants", "fields"))

Type = Literal["info", "warning", "error", "success"]


class Notification(Struct):
    """Something a person should know."""
    id: int
    title: str
    message: str
    type: Type
    source: str | None
    link: str | None
    user_id: int | None
    read: bool
    read_at: str | None
    created_at: str


class Unread(Struct):
    """How many are unread; exact up to 10,000."""
    count: int
    count_exceeded: bool


class NotificationQuery(Paging):
    """What a list of notifications may be narrowed by."""
    read: bool | None = None
    type: Type | None = None


NOTIFICATIONS = Listing(
    of=Notification, source="notifications", base="tenant_id = :tenant AND (user_id IS NULL OR user_id = :me)",
    filters={"read": "read = :read", "type": "type = :type"})


@writes
def notify(title: str, message: str, type: Type = "info", source: str | None = None, link: str | None = None,
           user_id: int | None = None) -> Notification:
    """Tell one user, or without `user_id` everybody of the tenant. Invalid where the link leads anywhere odd."""
    if link is not None and not safe(link):
        raise wrong("link", "Use an http(s) URL, or a path that begins with one /")
    made = db.insert(Notification, "notifications", title=title, message=message, type=type, source=source, link=link,
                     user_id=user_id, created_at=now())
    emit("notification.sent", made)
    return made


def safe(link: str) -> bool:
    """Whether a browser that follows `link` runs no script and stays where it says: `//host` and `/\\host` lead elsewhere."""
    return bool(re.fullmatch(r"(https?://[^\s\\/?#@]+([/?#][^\s\\]*)?|/([^\s/\\][^\s\\]*)?)", link, re.I)) and len(link) <= 2000


def page(query: NotificationQuery) -> Page[Notification]:
    """What somebody was told, newest first."""
    by = current()
    return db.page(NOTIFICATIONS, query, me=by.user or 0)


def unread() -> Unread:
    """How many wait to be read; counted to 10,000."""
    by = current()
    found = db.value("""
        SELECT count(*) FROM (SELECT 1 FROM notifications
         WHERE tenant_id = :tenant AND read = 0 AND (user_id IS NULL OR user_id = :me) LIMIT :most) AS counted""", me=by.user or 0, most=COUNTED + 1)
    return Unread(min(found, COUNTED), found > COUNTED)


@writes
def read(id: int) -> Notification:
    """Mark one as read; a second time changes nothing. NotFound also for somebody else's."""
    by = current()
    row = db.one(Notification, """
        UPDATE notifications SET read = 1, read_at = ifnull(read_at, :now)
         WHERE id = :id AND tenant_id = :tenant AND (user_id IS NULL OR user_id = :me) RETURNING *""", id=id, me=by.user or 0, now=now())
    if row is None:
        raise NotFound(f"There is no notification {id}")
    return row


@writes
def read_all() -> int:
    """Mark everything one may see as read; how many were not."""
    by = current()
    return db.run("""
        UPDATE notifications SET read = 1, read_at = :now
         WHERE tenant_id = :tenant AND read = 0 AND (user_id IS NULL OR user_id = :me)""", me=by.user or 0, now=now())


@plugin.on("session.reused")
@across_tenants
def warn(event: str, user: Any, **facts: Any) -> None:
    """Somebody came with a refresh token that was spent: its owner should know."""
    with acting(system(user.tenant_id)):
        notify("A log-in was ended", "A spent refresh token of yours came back, so somebody may have copied it. That log-in was ended; "
               "change your password if you do not know why.", "warning", "security", user_id=user.id)


@plugin.on("user.erased")
@across_tenants
def erase(event: str, gone: Any, **facts: Any) -> None:
    """What a user was told goes with them; in what their tenant was told, their address becomes unreadable."""
    db.run("DELETE FROM notifications WHERE user_id = :id", id=gone.id)
    for address in gone.addresses:
        for id, title, message in db.all(tuple, """SELECT id, title, message FROM notifications WHERE tenant_id = :home
                                                    AND instr(lower(title || ' ' || message), lower(:address)) > 0""",
                                         home=gone.tenant_id, address=address):
            db.run("UPDATE notifications SET title = :title, message = :message WHERE id = :id", id=id,
                   title=gone.blotted(title), message=gone.blotted(message))
