"""The wire of backups: /backups. All of it is for the host's administrators, signed in."""
from typing import Annotated

from orkosi import Deleted, Document, Meta, Page, Paging, Reply, Request, Struct, may
from plugins import backups, lists
from plugins.backups import Backup, BackupStats, UnderWay, offsite, plugin
from plugins.fields import Many
from plugins.server import streams

HOST = may("admin", host=True)
Filename = Annotated[str, Meta(max_length=100, description="The name of a backup, as GET /api/backups lists it")]


class BackupQuery(Paging):
    limit: Many = 1000


class Lines(Struct):
    """The end of the log of pushes, oldest first."""
    lines: list[str]


@plugin.get("/api/backups", auth=HOST)
def index(query: BackupQuery) -> Page[Backup]:
    """List backups, newest first

    What lies in the folder at this moment. `verification`: whether it was restored for a trial, and how that went; `offsite`: whether
    the remote has it."""
    return lists.page(backups.everything(), query, "-place")


@plugin.get("/api/backups/stats", auth=HOST)
def stats() -> BackupStats:
    """How many backups there are, what they weigh, when the next one comes, and how the last drill went"""
    return backups.stats()


@plugin.get("/api/backups/logs", auth=HOST)
def logs() -> Lines:
    """The last 100 lines of offsite_backup.log"""
    return Lines(offsite.lines())


@plugin.get("/api/backups/github-status", auth=HOST)
def github_status() -> offsite.Remote:
    """What the git remote has, beside what is here

    It is asked, for 15 s at most; what it does not say is in `last_error`."""
    return offsite.status()


@plugin.post("/api/backups/trigger", auth=HOST, raises=(503,))
def trigger() -> UnderWay:
    """Have a backup made now

    Where one is being made, the answer is that one. It is verified when it is done, and pushed where there is a remote."""
    return backups.trigger()


@plugin.post("/api/backups/{filename}/verify", auth=HOST, raises=(400, 404, 409))
def verify(filename: Filename) -> UnderWay:
    """Have a backup verified: restored into a folder that is thrown away

    What came of it is in the backup's `verification`."""
    return backups.verify(filename)


@plugin.get("/api/backups/{filename}/download", auth=HOST, statuses=(206,), raises=(400, 404, 416))
def download(filename: Filename, request: Request) -> Document:
    """Download a backup, sealed as it is

    `Range` asks for a part of it."""
    return streams.download(backups.at(filename), filename, request.header("Range"))


@plugin.delete("/api/backups/{filename}", auth=HOST, raises=(400, 404))
def delete(filename: Filename) -> Reply[Deleted]:
    """Delete a backup from the disk

    `meta.warnings` says where it was the newest one that is verified."""
    warnings = backups.delete(filename)
    return Reply(Deleted(filename), meta={"warnings": warnings} if warnings else None)
