"""What discovery finds in queues: dead jobs, and queues that nobody works."""
from collections.abc import Iterator

from orkosi import db, now, seconds
from plugins.findings import Finding, finds

from . import OWNS
from .seeing import names, stats

DAY, HOUR = 86400, 3600


@finds("queue")
def dead_or_stuck() -> Iterator[Finding]:
    """Queues in which jobs died within a day, and those in which one has waited for an hour."""
    for name in names():
        if name in OWNS:
            continue
        dead = db.all(tuple, """SELECT id, task_type, error FROM jobs WHERE tenant_id = :tenant AND queue = :queue AND state = 'dead'
                                   AND finished_at >= :since ORDER BY finished_at DESC LIMIT 100""", queue=name, since=now(-DAY))
        if dead:
            id, kind, error = dead[0]
            yield Finding(f"Jobs of queue {name} are dead", f"queue:dead:{name}",
                          f"{len(dead)}{' or more' if len(dead) == 100 else ''} within a day. The newest is job_{id} ({kind}): {error}", "P1")
        found = stats(name)
        if not found.paused and found.oldest_waiting_at and seconds(found.oldest_waiting_at) < seconds(now()) - HOUR:
            yield Finding(f"Nobody works queue {name}", f"queue:stuck:{name}", f"Its oldest job waits since {found.oldest_waiting_at}.")
