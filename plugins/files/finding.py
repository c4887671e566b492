"""What discovery finds in files: those that lie in a workspace and are not in the index."""
from collections.abc import Iterator

from orkosi import db, now, settings
from plugins import folders
from plugins.findings import Finding, Point, checks, finds

from . import known, plugin
from .sync import MOST, walk, workspaces

LATE = 600  # seconds within which a file should be there


@finds("files")
def not_indexed() -> Iterator[Finding]:
    """Workspaces with files that the index should have by now, and has not."""
    there, late = known(), now(-LATE)
    for place in workspaces(settings.data):
        missing, many = [], 0
        with folders.opened(settings.data, place) as folder:
            for many, (path, _, _, info) in enumerate(walk(folder, place) if folder is not None else (), 1):
                if path not in there and folders.modified(info) < late:
                    missing.append(path)
                if many > 2 * MOST:
                    break
        if missing:
            yield Finding(f"Files of {place} are not indexed", f"files:missing:{place}",
                          f"{len(missing)} of {many}, for example {missing[0]}. " + (
                              f"A workspace may have {MOST} files; leave some out with the setting sync_leave_out." if many > MOST else
                              "See the server's log for why."), "P3")


checks(plugin, "files", missing="Every file of the workspaces is in the index")


@plugin.health("files.copies")
def copies() -> Point:
    """Whether agents have changed copies of guidelines, which were kept beside."""
    found = db.all(tuple, "SELECT path FROM files WHERE tenant_id = :tenant AND synced = 1 AND path LIKE '%.mine' ORDER BY path LIMIT 100")
    said = f"{found[0][0]} is an agent's own copy of a guideline" if found else "No agent has changed a guideline"
    return Point(not found, said, "Take over what is good in it, and delete the copy" if found else "")
