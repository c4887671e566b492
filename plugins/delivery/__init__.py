"""Delivery: notifications that arrive - by mail, on the screen of the Mac, or all together in the morning.

Owns no table. Each notification is mailed once, in the write that notes it as mailed, and shown once on the screen; the letters are the
mail's, which tries until they arrive. Surprise: in quiet hours nothing is lost and nothing is lessened, but it comes when they are over.
"""
import logging
import re
import shutil
import subprocess
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from orkosi import HOST_TENANT, Plugin, Struct, across_tenants, acting, clean, current, db, now, seconds, settings, system, writes
from plugins import mail, notifications, queue, schedules, server
from plugins.notifications import Notification
from plugins.schedules.slots import here

plugin = Plugin("Delivery", layer="domain", needs=("notifications", "mail", "queue", "schedules", "server"))
plugin.setting("notify_mail", str, "error", "Types of notifications that are mailed: to whom they are for, or to the administrators; none: none")
plugin.setting("notify_screen", str, "error,warning", "Types that are shown on the Mac's screen, where somebody is logged in; none: none")
plugin.setting("quiet_hours", str, "", "When nothing is mailed or shown, such as 22:00-07:00 on the Mac's clock; it comes when they are over")
plugin.setting("digest_at", str, "", "When administrators are mailed what else has come since yesterday, such as 08:00; empty: never")

log = logging.getLogger("orkosi")
MOST = 50  # notifications that a digest names
DIGEST = "delivery.digest"


class Order(Struct):
    """Which notification."""
    id: int


@plugin.on("notification.sent")
def plan(event: str, sent: Notification, **facts: Any) -> None:
    """Have a notification delivered, as soon as it is not quiet. Inside the write that made it."""
    wait = until_loud(now())
    if sent.type in _types(settings.notify_mail):
        queue.later("delivery.mail", Order(sent.id), delay=wait)
    if sent.type in _types(settings.notify_screen) and current().tenant == HOST_TENANT and shutil.which("osascript"):
        queue.later("delivery.screen", Order(sent.id), delay=wait, attempts=1)


def _types(setting: str) -> set[str]:
    return {word.strip() for word in setting.split(",")}


def until_loud(moment: str) -> float:
    """Seconds until quiet hours are over; 0 outside of them, and where the setting makes no sense, which is logged."""
    if not settings.quiet_hours:
        return 0.0
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", settings.quiet_hours.strip())
    if not found:
        log.warning("quiet_hours %r makes no sense; write for example 22:00-07:00", settings.quiet_hours)
        return 0.0
    zone = ZoneInfo(here())
    local = datetime.fromisoformat(moment.replace("Z", "+00:00")).astimezone(zone)
    first, last = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
    at = local.hour * 60 + local.minute
    if not (first <= at < last if first <= last else at >= first or at < last):
        return 0.0
    end = local.replace(hour=last // 60, minute=last % 60, second=0, microsecond=0, tzinfo=None)
    end += timedelta(days=int(at >= last))
    return max(0.0, end.replace(tzinfo=zone).timestamp() - seconds(moment))


# ── one ──


@plugin.job("delivery.mail")
@writes
def by_mail(order: Order) -> int:
    """Mail a notification to whom it is for; how many letters. One that was mailed is not mailed again."""
    one = db.one(Notification, "SELECT *, 0 AS read FROM notifications WHERE tenant_id = :tenant AND id = :id", id=order.id)
    if one is None or not notifications.note_mailed([one.id]):
        return 0
    told = readers(one.user_id)
    for address in told:
        mail.send(address, clean(f"[{one.type}] {one.title}", 200), _text(one))
    return len(told)


def readers(user: int | None) -> list[str]:
    """The addresses of one user, or of the tenant's administrators."""
    return [row[0] for row in db.all(tuple, """SELECT email FROM users WHERE tenant_id = :tenant AND email IS NOT NULL
                                                AND (id = :user OR (:user IS NULL AND role = 'admin')) ORDER BY id LIMIT 100""", user=user)]


def _text(one: Notification) -> str:
    where = f"\n\n{server.url()}{one.link}" if one.link and one.link.startswith("/") else f"\n\n{one.link}" if one.link else ""
    return f"{one.message}{where}\n\n{one.created_at}" + (f", {one.source}" if one.source else "") + "\n"


@plugin.job("delivery.screen")
def on_screen(order: Order) -> bool:
    """Show a notification on the Mac's screen, once. Its text is an argument, never a part of the script."""
    one = db.one(Notification, "SELECT *, 0 AS read FROM notifications WHERE tenant_id = :tenant AND id = :id", id=order.id)
    program = shutil.which("osascript")
    if one is None or program is None:
        return False
    script = "on run argv\ndisplay notification (item 2 of argv) with title (item 1 of argv)\nend run"
    done = subprocess.run([program, "-e", script, clean(one.title, 200), clean(one.message, 500)], capture_output=True, text=True, timeout=20)
    if done.returncode:
        log.warning("a notification is not shown on the screen: %s", clean(done.stderr, 300))
    return not done.returncode


# ── all together ──


@plugin.on("opened")
def keep_digest(event: str, folder: object) -> None:
    """The digest's schedule is as the setting says."""
    with acting(system(HOST_TENANT)):
        _keep_digest()


@writes
def _keep_digest() -> None:
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)", settings.digest_at.strip())
    if settings.digest_at and not found:
        log.warning("digest_at %r makes no sense; write for example 08:00", settings.digest_at)
    line = f"{int(found[2])} {int(found[1])} * * *" if found else None
    there = schedules.own(DIGEST, {})
    if line == (there and there.cron):
        return
    if line:
        schedules.keep_own(DIGEST, DIGEST, {}, cron=line, catch_up="once", max_attempts=5)
    elif there:
        schedules.remove(queue.OWN, there.name)


@plugin.job(DIGEST)
def digest(due: schedules.Due) -> int:
    """Mail what came since the digest before and was not mailed by itself; how many letters."""
    since = _since()
    return sum(_digest_of(tenant, since) for tenant in _with_news(since))


def _since() -> str:
    """From when on a digest looks. What one has mailed no other does, so it may look back further than to the one before, which is not
    always a day ago: summer time ends, and a server starts late. Of what came before there were digests, one day."""
    plan = schedules.own(DIGEST, {})
    return max(now(-7 * 86400), queue.iso(seconds(plan.created_at if plan else now()) - 86400))


@across_tenants
def _with_news(since: str) -> list[int]:
    return [row[0] for row in db.all(tuple, """SELECT DISTINCT tenant_id FROM notifications WHERE mailed_at IS NULL AND user_id IS NULL
                                                AND created_at >= :since""", since=since)]


def _digest_of(tenant: int, since: str) -> int:
    with acting(system(tenant)):
        return _mail_digest(since)


@writes
def _mail_digest(since: str) -> int:
    found = db.all(Notification, """SELECT *, 0 AS read FROM notifications WHERE tenant_id = :tenant AND user_id IS NULL AND mailed_at IS NULL
                                     AND created_at >= :since ORDER BY id""", since=since)
    told = readers(None) if found else []
    if told:
        lines = [f"{one.created_at}  {one.type:8}{clean(one.title, 200)}\n    {clean(one.message, 300)}" for one in found[:MOST]]
        more = f"\n\n… and {len(found) - MOST} more: {server.url()}/" if len(found) > MOST else ""
        began = "yesterday" if found[0].created_at >= now(-2 * 86400) else found[0].created_at[:10]
        for address in told:
            mail.send(address, f"{len(found)} notifications since {began}", "\n\n".join(lines) + more + "\n")
        notifications.note_mailed([one.id for one in found])
    return len(told)


