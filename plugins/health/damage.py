"""Damage to the databases: looked for once a minute, and told of once after each start.

Surprise: only the beginning of every table is read, for the whole would take as long as a backup. What lies behind it is found by whoever asks
for that, and remembered where they are answered.
"""
from contextlib import suppress
from pathlib import Path

from orkosi import Damaged, Problem, across_tenants, db, settings
from plugins import notifications
from plugins.health import plugin
from plugins.server import gauges

_told: set[Path] = set()


@plugin.every("1m")
@across_tenants
def look() -> None:
    """Read the beginning of every table; once after a start, everybody of the host is told of what is damaged."""
    for table in db.columns:
        try:
            db.value(f"SELECT 1 FROM {table} NOT INDEXED LIMIT 1")  # an index would answer for a table that is damaged
        except Damaged as problem:
            gauges.damaged[settings.data] = f"{table}: {problem.message}"
    if settings.data in gauges.damaged and settings.data not in _told:
        with suppress(Problem):  # where that table is damaged, too, health alone says so
            notifications.notify("The database is damaged", gauges.damaged[settings.data], type="error", source="health", link="/api/arch-health")
            _told.add(settings.data)
