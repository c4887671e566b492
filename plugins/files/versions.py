"""Versions: what a file in a workspace said before, and what changed between two moments.

Owns file_versions. A row is kept when the disk has something else: what was there, since when, and until when. The present is in `files`.
Surprise: a moment is when the sync saw it, a fraction of a second after the disk; what changed that shortly before a run began counts as
the run's.
"""
import difflib
from typing import Literal

from orkosi import NotFound, Struct, Unprocessable, db, now, writes

from . import find as files_find
from . import plugin

plugin.setting("file_versions", int, 20, "How many former versions are kept of each text file in a workspace")

VERSIONED = 64 << 10  # bytes of a text beyond which it has no versions
SHOWN = 32 << 10      # characters of one difference
LINES = 2000          # of a text, beyond which differences are not looked for
MOST = 100            # files whose differences are shown


class Change(Struct):
    """What became of a file: `diff` as `diff -u` shows it, null where it is no text, or too large."""
    path: str
    what: Literal["added", "changed", "deleted"]
    diff: str | None


@writes(durable=False)
def keep_old(path: str, hash: str | None) -> None:
    """Before a file of the disk is written anew, or goes: keep what is there, and no more than the last twenty."""
    from orkosi import settings
    kept = db.run("""INSERT INTO file_versions (tenant_id, path, workspace, content, hash, since, until)
                     SELECT tenant_id, path, workspace, CASE WHEN size <= :most THEN content END, hash, updated_at, :now FROM files
                      WHERE tenant_id = :tenant AND path = :path AND synced = 1 AND workspace IS NOT NULL AND (hash IS NULL OR hash <> :hash)""",
                  path=path, hash=hash or "", now=now(), most=VERSIONED)
    if kept:
        db.run("""DELETE FROM file_versions WHERE tenant_id = :tenant AND path = :path AND id NOT IN (
                    SELECT id FROM file_versions WHERE tenant_id = :tenant AND path = :path ORDER BY id DESC LIMIT :many)""",
               path=path, many=settings.file_versions)


def changes(workspace: str, start: str, end: str) -> tuple[list[Change], int]:
    """What became of the files of a workspace between two moments, by path, and how many more there are."""
    old = db.all(tuple, """SELECT path, content, since, until FROM file_versions WHERE tenant_id = :tenant AND workspace = :workspace
                            AND until > :start ORDER BY id""", workspace=workspace, start=start)
    new = db.all(tuple, """SELECT path, CASE WHEN size <= :most THEN content END, updated_at FROM files WHERE tenant_id = :tenant
                            AND workspace = :workspace AND synced = 1 AND updated_at > :start""", workspace=workspace, start=start, most=VERSIONED)
    present = dict(db.all(tuple, """SELECT path, CASE WHEN size <= :most THEN content END FROM files WHERE tenant_id = :tenant
                                     AND workspace = :workspace AND synced = 1""", workspace=workspace, most=VERSIONED)) if old or new else {}
    spans: dict[str, list[tuple[str, str, str | None]]] = {}
    for path, content, since, until in old:
        spans.setdefault(path, []).append((since, until, content))
    for path, content, since in new:
        spans.setdefault(path, []).append((since, "9", content))
    for path in spans:
        if path in present and not any(until == "9" for _, until, _ in spans[path]):
            spans[path].append(("0", "9", present[path]))
    found = [one for path in sorted(spans) if (one := _change(path, spans[path], start, end))]
    return found[:MOST], max(0, len(found) - MOST)


def _change(path: str, spans: list[tuple[str, str, str | None]], start: str, end: str) -> Change | None:
    before, after = _at(spans, start), _at(spans, end)
    if before == after:
        return None
    what: Literal["added", "changed", "deleted"] = "added" if before is None else "deleted" if after is None else "changed"
    return Change(path, what, _diff(path, before[0] if before else "", after[0] if after else ""))


def _at(spans: list[tuple[str, str, str | None]], moment: str) -> tuple[str | None] | None:
    """What a file said at a moment, in a tuple; None where it was not there."""
    return next(((content,) for since, until, content in spans if since <= moment < until), None)


def _diff(path: str, before: str | None, after: str | None) -> str | None:
    if before is None or after is None:
        return None
    old, new = before.splitlines(), after.splitlines()
    if len(old) > LINES or len(new) > LINES:
        return None
    text = "\n".join(difflib.unified_diff(old, new, f"a/{path}", f"b/{path}", lineterm=""))
    return text if len(text) <= SHOWN else text[:SHOWN] + "\n… the rest is left out"


# ── looked at by a person ──


class FileVersion(Struct):
    """What a file said for a time; `until` is null for what it says now. `kept`: whether its text is, or it was none, or too large."""
    id: int | None
    since: str
    until: str | None
    bytes: int | None
    kept: bool


class Difference(Struct):
    """What changed from one version of a file to another, null for the present, as `diff -u` shows it."""
    path: str
    from_version: int
    to_version: int | None
    diff: str


def versions(id: int) -> list[FileVersion]:
    """The present of a file, and its former versions, newest first. NotFound."""
    file = files_find(id)
    former = db.all(tuple, """SELECT id, since, until, octet_length(content) FROM file_versions WHERE tenant_id = :tenant AND path = :path
                               ORDER BY id DESC""", path=file.path)
    now_ = FileVersion(None, file.updated_at, None, None if file.content is None else len(file.content.encode()), file.content is not None)
    return [now_, *(FileVersion(number, since, until, size, size is not None) for number, since, until, size in former)]


def difference(id: int, old: int | None, new: int | None) -> Difference:
    """What changed between two versions of a file, or last. NotFound, Unprocessable where one of them is no text."""
    file = files_find(id)
    if old is None:
        old = db.value("SELECT max(id) FROM file_versions WHERE tenant_id = :tenant AND path = :path", path=file.path)
    if old is None:
        raise NotFound(f"Nothing is kept of what {file.path} said before")
    before, after = _text(file.path, old), file.content if new is None else _text(file.path, new)
    text = _diff(file.path, before, after)
    if text is None:
        raise Unprocessable(f"One of them is no text, larger than {VERSIONED >> 10} KiB, or longer than {LINES:,} lines; it cannot be compared")
    return Difference(file.path, old, new, text)


def _text(path: str, version: int) -> str | None:
    found = db.all(tuple, "SELECT content FROM file_versions WHERE tenant_id = :tenant AND path = :path AND id = :id", path=path, id=version)
    if not found:
        raise NotFound(f"There is no version {version} of {path}")
    text: str | None = found[0][0]
    return text
