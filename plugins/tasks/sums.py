"""Sums of tasks: how many there are of each status and priority, kept by triggers in the transaction that changes one.

Owns task_sums; nobody writes it but the triggers, and `fill`, once, in a data folder that is older than they are.
"""
from orkosi import across_tenants, db, writes

from . import plugin


@plugin.on("opened")
def begin(event: str, folder: object) -> None:
    """A data folder from before there were sums has them from now on."""
    fill()


@writes
@across_tenants
def fill() -> None:
    """Count all tasks, where nothing was counted yet."""
    if not db.value("SELECT 1 FROM task_sums LIMIT 1"):
        db.run("""INSERT INTO task_sums (tenant_id, status, priority, n)
                  SELECT tenant_id, status, priority, count(*) FROM tasks GROUP BY tenant_id, status, priority""")


@across_tenants
def check() -> list[str]:
    """Where the sums and the rows differ, in sentences."""
    kept = {row[:3]: row[3] for row in db.all(tuple, "SELECT tenant_id, status, priority, n FROM task_sums WHERE n <> 0")}
    rows = {row[:3]: row[3] for row in db.all(tuple, """SELECT tenant_id, status, priority, count(*) FROM tasks
                                                         GROUP BY tenant_id, status, priority""")}
    return [f"tenant {key[0]}: {rows.get(key, 0)} tasks are {key[1]} {key[2]}, and the sum says {kept.get(key, 0)}"
            for key in sorted(kept.keys() | rows.keys()) if kept.get(key, 0) != rows.get(key, 0)]
