"""What discovery finds in files: those that lie in a workspace and are not in the index."""
from collections.abc import Iterator

from orkosi import now, settings
from plugins import folders
from plugins.findings import Finding, finds

from . import known
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
