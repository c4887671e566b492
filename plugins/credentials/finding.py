"""What discovery finds in credentials: unused ones, and old ones."""
from collections.abc import Iterator

from orkosi import now
from plugins.findings import Finding, finds

from . import _all

UNUSED, OLD = 90, 180  # days


@finds("credentials")
def unused_or_old() -> Iterator[Finding]:
    """Credentials that nobody has read for a quarter of a year, and values that are half a year old."""
    for one in _all():
        if (one.last_used_at or one.created_at) < now(-UNUSED * 86400):
            yield Finding(f"Nobody uses the credential {one.key}", f"credentials:unused:{one.key}",
                          f"It was {'last read at ' + one.last_used_at if one.last_used_at else 'never read'}. Delete it, if nobody misses it.", "P3")
        if one.age_days >= OLD:
            yield Finding(f"The credential {one.key} is old", f"credentials:old:{one.key}:{one.version}",
                          f"Its value is {one.age_days} days old. Put a new one in its place, and revoke the old one where it came from.")
