"""Notifications: what people should know without asking.

Owns notifications, notification_reads and notification_read_alls. One for a user is that user's alone; one without a
user is for everybody of the tenant.
Surprise: what is for everybody has a read mark of each reader's own. Marking everything is one row, up to which all
is read: a mark for each would be as many rows as there are notifications, for every user. What was read before marks
were each reader's own is read for all.
"""
import logging
import re
from typing import Any, Literal

from orkosi import (
    COUNTED,
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
    settings,
    system,
    writes,
)
from plugins import lists
from plugins.fields import required, wrong
from plugins.lists import Listing

plugin = Plugin("Notifications", layer="ground", needs=("users", "tenants", "fields", "lists"))

plugin.setting("notifications_keep_days", int, 180, "For how many days notifications are kept")

log = logging.getLogger("orkosi")
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


MINE = "tenant_id = :tenant AND (user_id IS NULL OR user_id = :me)"
_MARK = "FROM notification_reads AS mark WHERE mark.tenant_id = :tenant AND mark.reader = :reader AND mark.notification_id = notifications.id"
READ = f"(read = 1 OR (user_id IS NULL AND (id <= :up_to OR EXISTS (SELECT 1 {_MARK}))))"
COLUMNS = f"""id, title, message, type, source, link, user_id, created_at, {READ} AS read,
              CASE WHEN read = 1 OR user_id IS NOT NULL THEN read_at ELSE coalesce((SELECT mark.read_at {_MARK}), (
                SELECT whole.read_at FROM notification_read_alls AS whole WHERE whole.tenant_id = :tenant AND whole.reader = :reader
                   AND whole.up_to >= notifications.id ORDER BY whole.up_to LIMIT 1)) END AS read_at"""

# `floor`: nothing is unread up to there. Whoever has read nearly all finds the rest without walking over it.
NOTIFICATIONS = Listing(
    of=Notification, columns=COLUMNS, source="notifications", base=MINE,
    filters={"seen": f"{READ} = :seen", "floor": f"id > :floor AND NOT {READ}", "type": "type = :type"})


@writes
def notify(title: str, message: str, type: Type = "info", source: str | None = None, link: str | None = None,
           user_id: int | None = None) -> Notification:
    """Tell one user, or without `user_id` everybody of the tenant. Invalid where the link leads anywhere odd."""
    if link is not None and not safe(link):
        raise wrong("link", "Use an http(s) URL, or a path that begins with one /")
    required(title, "title", "Say what it is about"), required(message, "message", "Say what there is to know")
    made = db.insert(Notification, "notifications", title=title, message=message, type=type, source=source, link=link,
                     user_id=user_id, created_at=now())
    emit("notification.sent", made)
    return made


@writes
def note_mailed(ids: list[int]) -> int:
    """Note that notifications are mailed, in the write that makes the letters; how many were not before."""
    return sum(db.run("UPDATE notifications SET mailed_at = :now WHERE tenant_id = :tenant AND id = :id AND mailed_at IS NULL", id=id, now=now())
               for id in ids)


def safe(link: str) -> bool:
    """Whether a browser that follows `link` runs no script and stays where it says: `//host` and `/\\host` lead elsewhere."""
    return bool(re.fullmatch(r"(https?://[^\s\\/?#@]+([/?#][^\s\\]*)?|/([^\s/\\][^\s\\]*)?)", link, re.I)) and len(link) <= 2000


def page(query: NotificationQuery) -> Page[Notification]:
    """What somebody was told, newest first."""
    marks = _marks()
    return lists.page(NOTIFICATIONS, query, seen=query.read or None, **marks | {"floor": marks["floor"] if query.read is False else None})


def _marks() -> dict[str, Any]:
    """Who reads, up to where everything is read that is for everybody, and up to where nothing is unread."""
    by = current()
    up_to = db.value("SELECT max(up_to) FROM notification_read_alls WHERE tenant_id = :tenant AND reader = :reader", reader=by.ref) or 0
    own = db.value("SELECT min(id) FROM notifications WHERE tenant_id = :tenant AND user_id = :me AND read = 0", me=by.user or 0)
    return {"me": by.user or 0, "reader": by.ref, "up_to": up_to, "floor": up_to if own is None else min(up_to, own - 1)}


def unread() -> Unread:
    """How many wait to be read; counted to 10,000."""
    found = db.value(f"""SELECT count(*) FROM (SELECT 1 FROM notifications WHERE {MINE} AND id > :floor AND NOT {READ} LIMIT :most) AS counted""",
                     most=COUNTED + 1, **_marks())
    return Unread(min(found, COUNTED), found > COUNTED)


@writes
def read(id: int) -> Notification:
    """Mark one as read; a second time changes nothing. NotFound also for somebody else's."""
    marks = _marks()
    found = _one(id, marks)
    if found.read:
        return found
    if found.user_id is None:
        db.run("INSERT INTO notification_reads (tenant_id, reader, notification_id, read_at) VALUES (:tenant, :reader, :id, :now)",
               id=id, reader=marks["reader"], now=now())
    else:
        db.run("UPDATE notifications SET read = 1, read_at = :now WHERE id = :id AND tenant_id = :tenant", id=id, now=now())
    return _one(id, marks)


def _one(id: int, marks: dict[str, Any]) -> Notification:
    row = db.one(Notification, f"SELECT {COLUMNS} FROM notifications WHERE id = :id AND {MINE}", id=id, **marks)
    if row is None:
        raise NotFound(f"There is no notification {id}")
    return row


@writes
def read_all() -> int:
    """Mark everything one may see as read; how many were not, counted to 10,000."""
    marks, before = _marks(), unread()
    db.run("UPDATE notifications SET read = 1, read_at = :now WHERE tenant_id = :tenant AND user_id = :me AND read = 0", me=marks["me"], now=now())
    # Those read one by one keep their own time; what is marked here has this one.
    if before.count:
        db.run("""INSERT INTO notification_read_alls (tenant_id, reader, up_to, read_at)
                  SELECT :tenant, :reader, max(id), :now FROM notifications WHERE tenant_id = :tenant
                  ON CONFLICT (tenant_id, reader, up_to) DO NOTHING""", reader=marks["reader"], now=now())
    return before.count


@plugin.on("session.reused")
@across_tenants
def warn(event: str, user: Any, **facts: Any) -> None:
    """Somebody came with a refresh token that was spent: its owner should know."""
    with acting(system(user.tenant_id)):
        notify("A log-in was ended", "A spent refresh token of yours came back, so somebody may have copied it. That log-in was ended; "
               "change your password if you do not know why.", "warning", "security", user_id=user.id)


@plugin.on("tenant.inherited")
@across_tenants
def tell_heir(event: str, user: Any, **facts: Any) -> None:
    """Whoever is in charge from now on should know."""
    with acting(system(user.tenant_id)):
        notify("You are in charge now", "Whoever founded this is gone, and you come next: you may change what an editor may, and the plan and what "
               "is paid are yours.", "warning", "users", user_id=user.id)


@plugin.on("user.erased")
@across_tenants
def erase(event: str, gone: Any, **facts: Any) -> None:
    """What a user was told goes with them; in what their tenant was told, their address becomes unreadable."""
    db.run("DELETE FROM notifications WHERE user_id = :id", id=gone.id)
    for table in ("notification_reads", "notification_read_alls"):
        db.run(f"DELETE FROM {table} WHERE tenant_id = :home AND reader = :reader", home=gone.tenant_id, reader=f"user:{gone.id}")
    for address in gone.addresses:
        for id, title, message in db.all(tuple, """SELECT id, title, message FROM notifications WHERE tenant_id = :home
                                                    AND instr(lower(title || ' ' || message), lower(:address)) > 0""",
                                         home=gone.tenant_id, address=address):
            db.run("UPDATE notifications SET title = :title, message = :message WHERE id = :id", id=id,
                   title=gone.blotted(title), message=gone.blotted(message))


@plugin.every("1h")
def prune() -> None:
    """Forget old notifications, a little at a time, and say how many that was."""
    gone = many = 0
    while many := _prune(settings.notifications_keep_days):
        gone += many
    if gone:
        log.info("%d notifications of more than %d days ago are forgotten", gone, settings.notifications_keep_days)


@writes(durable=False)
@across_tenants
def _prune(days: int) -> int:
    old = [row[0] for row in db.all(tuple, """SELECT id FROM (SELECT id, created_at FROM notifications ORDER BY id LIMIT 500) AS oldest
                                               WHERE created_at < :before ORDER BY id""", before=now(-days * 86400))]
    if old:  # they go in the order of their numbers, so nothing below the last is left
        db.run("DELETE FROM notification_reads WHERE notification_id <= :last", last=old[-1])
    for id in old:
        db.run("DELETE FROM notifications WHERE id = :id", id=id)
    return len(old)
