"""Logs: what the server and the agents wrote, searchable.

Owns log_lines, log_lines_fts and log_files, all in logs.db: a power cut may cost the last lines, and never
anything else. tailer.py follows the files, line.py reads a line.
Surprise: how far a file has been read is written in the transaction of its lines, and so no crash loses
or repeats one. Requests that were answered well stay in the server's file and are not taken in here.
"""
import re
import threading
from typing import Any, Literal

from orkosi import Page, Plugin, Struct, clean, db, jsoned, now, settings, writes
from plugins import fields, folders, lists
from plugins.fields import OfAgent, terms, wrong
from plugins.lists import Listing
from plugins.server.feeds import feeds

from .line import LEVELS, shortened

plugin = Plugin("Logs", layer="ground", needs=("fields", "folders", "vault", "lists", "findings", "server"))
plugin.setting("log_keep_days", int, 14, "For how many days log lines stay searchable")
plugin.setting("log_keep_lines", int, 5_000_000, "How many log lines stay searchable at most")

Level = Literal["error", "warn", "info"]
BATCH = 500  # lines a transaction: whoever claims a job waits behind one


class Line(Struct):
    """One line of a log."""
    id: int
    source: Literal["file", "db"]
    file: str | None
    agent: str | None
    level: Level
    message: str
    meta: dict[str, Any] | None
    task_id: int | None
    created_at: str


class Mark(Struct, frozen=True):
    """How far a file has been read. `midline`: what stands there is the rest of a line too long to keep."""
    path: str
    device: int
    inode: int
    offset: int = 0
    head: bytes = b""
    lost: int = 0
    midline: bool = False


class LogFile(Struct):
    """A log file on the disk. `offset`: as far as it has been taken in; `lost`: lines known to be lost to truncation."""
    path: str
    size: int
    modified_at: str
    offset: int
    lost: int


class LogQuery(OfAgent):
    """What a list of log lines may be narrowed by."""
    source: Literal["file", "db", "all"] = "all"
    level: Level | None = None
    q: str | None = None
    follow: bool = False


LINES = Listing(
    of=Line, source="log_lines", base="id > 0",
    filters={"agent": "agent = :agent", "db": "source = 'db'", "file": "source = 'file'",
             "error": "level = 'error'", "warn": "level = 'warn'", "info": "level = 'info'"})

FOUND = Listing(
    of=Line, columns="log_lines.*", source="log_lines_fts CROSS JOIN log_lines ON log_lines.id = log_lines_fts.rowid",
    base="log_lines_fts MATCH :terms", filters=LINES.filters, order="log_lines_fts.rowid DESC")

ADD = """
    INSERT INTO log_lines (source, file, agent, level, message, task_id, created_at)
    VALUES ('file', :file, :agent, :level, :message, :task_id, :created_at)"""

INDEX = "INSERT INTO log_lines_fts (rowid, message) SELECT id, message FROM log_lines WHERE id > :last"

MARK = """
    INSERT INTO log_files (path, device, inode, "offset", head, lost, midline, updated_at)
    VALUES (:path, :device, :inode, :offset, :head, :lost, :midline, :now)
    ON CONFLICT (path) DO UPDATE SET device = :device, inode = :inode, "offset" = :offset, head = :head, lost = :lost,
       midline = :midline, updated_at = :now"""


# ── reading ──


def page(query: LogQuery) -> Page[Line]:
    """Lines as they came in, newest first; with `q` those that have all its words."""
    given = {name: True for name in (query.source, query.level) if name not in (None, "all")} | {"agent": query.whose()}
    if query.q is None:
        return lists.page(LINES, query, **given)
    wanted = terms(query.q)
    if wanted is None:
        return Page.empty(query)
    return lists.page(FOUND, query, terms=wanted, **given)


def tail(agent: str, task_id: int, lines: int = 20) -> list[str]:
    """The last lines an agent's brain wrote to stderr while at work on a task, oldest first."""
    rows = db.all(tuple, """
        SELECT message FROM log_lines WHERE task_id = :task AND agent = :agent AND source = 'file'
         ORDER BY id DESC LIMIT :lines""", task=task_id, agent=agent, lines=lines)
    return [message for message, in reversed(rows)]


def marks() -> list[Mark]:
    """How far every known file has been read."""
    return db.all(Mark, 'SELECT path, device, inode, "offset", head, lost, midline FROM log_files')


def files() -> list[LogFile]:
    """Every log file there is, rotated ones included, by path."""
    known = {mark.path: mark for mark in marks()}
    return [LogFile(path, info.st_size, folders.modified(info), known[path].offset if path in known else 0,
                    known[path].lost if path in known else 0) for path, info in tailer.files(settings.data)]


# ── writing ──


@writes(durable=False)
def record(agent: str, message: str, level: str = "info", meta: dict[str, Any] | None = None, task_id: int | None = None) -> Line:
    """Keep one line that an agent sent, its line breaks and tabs as they are. Too long a message is cut; Invalid."""
    fields.required(message, "message", "Write something")
    if meta is not None and len(jsoned(meta)) > 16_384:
        raise wrong("meta", "At most 16 KiB of JSON")
    if (known := LEVELS.get(level.upper())) is None:
        raise wrong("level", f"Use one of {', '.join(LEVELS).lower()}")
    text = "".join(part if part in ("\n", "\r\n", "\t") else clean(part, len(part))
                   for part in re.split(r"(\r\n|\n|\t)", shortened(message.encode(errors="replace"))))
    made = db.insert(Line, "log_lines", source="db", agent=agent, level=known, message=text, meta=meta,
                     task_id=task_id, created_at=now())
    db.run(INDEX, last=made.id - 1)
    db.after_commit(feeds.ring)
    return made


@writes(durable=False)
def take(rows: list[dict[str, Any]], mark: Mark) -> None:
    """Keep a batch of a file's lines, and how far that file has thereby been read."""
    last = db.value("SELECT ifnull(max(id), 0) FROM log_lines")
    db.run_many(ADD, rows)
    if rows:
        db.run(INDEX, last=last)
        db.after_commit(feeds.ring)
    _mark(mark)


@writes(durable=False)
def settle(gone: list[str], kept: list[Mark]) -> None:
    """Write down which files have gone and which have another name now: names may have changed places."""
    for path in gone:
        db.run("DELETE FROM log_files WHERE path = :path", path=path)
    for mark in kept:
        _mark(mark)


def _mark(mark: Mark) -> None:
    db.run(MARK, path=mark.path, device=mark.device, inode=mark.inode, offset=mark.offset, head=mark.head, lost=mark.lost,
           midline=mark.midline, now=now())


@plugin.service
def forget_old(stop: threading.Event) -> None:
    """Drop lines whose time is over. A thread of its own, for after a flood it is at work for long."""
    pause = 60.0
    while not stop.wait(pause):
        while prune() and not stop.wait(0.02):
            pass
        pause = 600.0


@writes(durable=False)
def prune(most: int = 500) -> int:
    """Drop a batch of the oldest lines that are too old or too many; how many went."""
    return db.run("""
        DELETE FROM log_lines WHERE id IN (
          SELECT id FROM (SELECT id, created_at FROM log_lines ORDER BY id LIMIT :most) AS oldest
           WHERE created_at < :before OR id <= (SELECT max(id) FROM log_lines) - :keep)""",
        most=most, before=now(-86400 * settings.log_keep_days), keep=settings.log_keep_lines)


from . import erasure, tailer  # noqa: E402, F401  # the last line: the tailer uses the verbs above
