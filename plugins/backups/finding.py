"""What discovery finds in backups: none of late, one that cannot be restored, one that was never tried."""
from collections.abc import Iterator

from orkosi import now, settings
from plugins.findings import Finding, finds

from . import everything

DAY = 86400


@finds("backups")
def missing_or_unproven() -> Iterator[Finding]:
    """Whether the newest backup is of late, and can be restored."""
    newest = next((one for one in everything() if one.encrypted), None)
    wanted = 2 * settings.backup_hours * 3600 if settings.backup_hours > 0 else 2 * DAY
    if newest is None:
        yield Finding("There is no backup", "backups:none", "Make one: python3 orkosi.py backup create", "P0")
        return
    if newest.created_at < now(-wanted):
        yield Finding("The newest backup is old", "backups:old", f"{newest.filename} was made at {newest.created_at}.", "P1")
    if newest.verification == "failed":
        yield Finding("The newest backup cannot be restored", f"backups:failed:{newest.filename}",
                      f"{newest.filename} failed its verification.", "P0")
    elif newest.verification == "pending" and newest.created_at < now(-DAY):
        yield Finding("The newest backup was never tried", f"backups:pending:{newest.filename}",
                      f"Verify it: python3 orkosi.py backup verify {newest.filename}")
