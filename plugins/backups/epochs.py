"""Epochs: which of several folders of one company is the one that serves - the one with the highest.

Owns `epoch.json` in the data folder. An epoch is raised when a standby is promoted, and never lowered; a folder without the file is in
the first. The remote that backups go to knows the highest as the name of a branch, which is there or not: two that raise it at once
cannot both make it. Surprise: a backup carries its epoch with it, so that what is restored from an old one may have to be told a newer.
"""
import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from orkosi import Conflict, Unavailable, now, settings
from plugins import folders

from . import offsite

FILE = "epoch.json"


def facts(folder: Path, name: str) -> dict[str, Any]:
    """What one of the small files about who serves says; {} where it is not there, or says nothing."""
    try:
        found = json.loads(folders.read_plain(folder / name, 1 << 16))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def of(folder: Path) -> int:
    """The epoch that a data folder is in."""
    found = facts(folder, FILE).get("epoch")
    return found if isinstance(found, int) else 1


def keep(folder: Path, epoch: int) -> None:
    """Note the epoch of a data folder, unless it is in a later one."""
    if epoch > of(folder):
        folders.write_whole(folder / FILE, json.dumps({"epoch": epoch, "at": now(), "by": f"{socket.gethostname()}:{folder}"}))


def of_remote(url: str, patience: float = offsite.LOOK) -> int:
    """The highest epoch that the remote knows; 1 where it knows none. Unavailable in git's words."""
    said = offsite.git(Path("/dev/null"), "ls-remote", "--", url, f"refs/heads/{_branch('*')}", patience=patience)
    numbers = [line.rpartition("-")[2] for line in said.splitlines()]
    return max((int(number) for number in numbers if number.isdecimal()), default=1)


def raise_at(url: str, epoch: int) -> None:
    """Have the remote know of this epoch. Conflict where somebody else was faster, Unavailable in git's words."""
    repository = offsite.repository()
    said = f"Epoch {epoch}: {socket.gethostname()} serves from {now()} on"
    commit = offsite.git(repository, "commit-tree", offsite.tree(repository, []), "-m", said)
    before = of_remote(url)
    if before >= epoch:
        raise Conflict(f"The remote is in epoch {before} already: another standby was promoted; look which of them is to serve")
    try:
        offsite.git(repository, "push", "--quiet", url, f"{commit}:refs/heads/{_branch(epoch)}")
    except Unavailable:
        if of_remote(url) >= epoch:  # both looked before either wrote
            raise Conflict(f"The remote is in epoch {epoch} by now: another standby was promoted; look which of them is to serve") from None
        raise
    with suppress(Unavailable):  # one name is enough; an older one that stays does no harm
        if before > 1:
            offsite.git(repository, "push", "--quiet", url, f":refs/heads/{_branch(before)}")


def _branch(epoch: object) -> str:
    return f"{settings.backup_branch}-epoch-{epoch}"
