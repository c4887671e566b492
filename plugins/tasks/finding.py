"""What discovery finds in tasks: those that are blocked, and those that nobody has touched for days."""
from collections.abc import Iterator

from orkosi import db, now
from plugins.findings import Finding, Point, checks, finds

from . import plugin

plugin.setting("discovery_stale_days", float, 7.0, "Days without a change after which a task that is to do, in progress or in review counts as stale")
OURS = "discovery"  # the category of tasks that were found: they are not found again
MOST = 200


@finds("tasks")
def stale_or_blocked() -> Iterator[Finding]:
    """Blocked tasks, and stale ones, the most urgent first."""
    from orkosi import settings
    for id, title, error, product in db.all(tuple, """
            SELECT id, title, last_error, product_slug FROM tasks WHERE tenant_id = :tenant AND status = 'blocked'
               AND ifnull(category, '') <> :ours ORDER BY priority, id LIMIT :most""", ours=OURS, most=MOST):
        yield Finding(f"Unblock task {id}: {title}"[:300], f"tasks:blocked:{id}", f"Task {id} is blocked. {error or 'It does not say why.'}",
                      "P1", product_slug=product)
    for status in ("in_progress", "review", "todo"):
        for id, title, at, product in db.all(tuple, """
                SELECT id, title, updated_at, product_slug FROM tasks WHERE tenant_id = :tenant AND status = :status AND updated_at < :before
                   AND ifnull(category, '') <> :ours ORDER BY id LIMIT :most""",
                status=status, before=now(-settings.discovery_stale_days * 86400), ours=OURS, most=MOST):
            yield Finding(f"See to task {id}, which stands still: {title}"[:300], f"tasks:stale:{id}",
                          f"Task {id} is {status.replace('_', ' ')}, and has not changed since {at}.", product_slug=product)


checks(plugin, "tasks", blocked="No task is blocked", stale="No task stands still for long")


@plugin.health("tasks.unowned")
def unowned() -> Point:
    """Whether somebody does what is urgent."""
    found = db.all(tuple, """SELECT id, title FROM tasks WHERE tenant_id = :tenant AND status = 'todo' AND assignee IS NULL AND priority = 'P0'
                              AND created_at < :before ORDER BY id LIMIT 100""", before=now(-86400))
    said = f"Task {found[0][0]} is urgent and nobody's: {found[0][1]}"[:300] if found else "What is urgent is somebody's"
    return Point(not found, said, "Assign it, or give it another priority" if found else "")
