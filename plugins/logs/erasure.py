"""Erasure: an address that log lines hold is made unreadable, the lines stay.

Lines belong to the machine, that is, to the host: only an account of the host's takes something out of them,
and only addresses that are known to be its own. Surprise: files are written over in place, byte for byte,
for the server and the tailer have them open.
"""
import re
from typing import Any

from orkosi import HOST_TENANT, db, settings, writes

from . import BATCH, plugin

STRETCH = 200_000


@plugin.on("user.gone")
def erase(event: str, gone: Any, **facts: Any) -> None:
    """Blot out somebody's addresses, once the erasure holds."""
    if gone.tenant_id == HOST_TENANT and gone.addresses:
        blot(gone)


def blot(gone: Any) -> None:
    """Make addresses unreadable in the lines and in the server's own files."""
    found = sorted({id for address in gone.addresses for id in _holding(address)})
    for at in range(0, len(found), BATCH):
        _blot(found[at:at + BATCH], gone)
    _blot_files(gone.pattern())


def _holding(word: str) -> set[int]:
    """Lines that have `word`."""
    phrase = '"' + word.replace('"', '""') + '"'
    found = {id for id, in db.all(tuple, "SELECT rowid FROM log_lines_fts WHERE log_lines_fts MATCH :phrase", phrase=phrase)}
    # What came with a line is in no index: it is looked through a stretch at a time, for no read may take long.
    for start in range(0, db.value("SELECT max(id) FROM log_lines") or 0, STRETCH):
        found |= {id for id, in db.all(tuple, """SELECT id FROM log_lines WHERE source = 'db' AND id > :start AND id <= :start + :stretch
                                                   AND instr(lower(meta), lower(:word)) > 0""", start=start, stretch=STRETCH, word=word)}
    return found


@writes(durable=False)
def _blot(ids: list[int], gone: Any) -> None:
    # With it, the index forgets a word when it is taken out, and not when its segments are merged some day.
    db.run("INSERT INTO log_lines_fts (log_lines_fts, rank) VALUES ('secure-delete', 1)")
    for id in ids:
        old = db.one(dict, "SELECT message, meta FROM log_lines WHERE id = :id", id=id)
        new = {name: value and gone.blotted(value) for name, value in old.items()} if old else {}
        if old and new != old:
            db.run("INSERT INTO log_lines_fts (log_lines_fts, rowid, message) VALUES ('delete', :id, :old)", id=id, old=old["message"])
            db.run("UPDATE log_lines SET message = :message, meta = :meta WHERE id = :id", id=id, **new)
            db.run("INSERT INTO log_lines_fts (rowid, message) VALUES (:id, :message)", id=id, message=new["message"])
    db.run("INSERT INTO log_lines_fts (log_lines_fts, rank) VALUES ('secure-delete', 0)")


def _blot_files(pattern: re.Pattern[str]) -> None:
    raw = re.compile(pattern.pattern.encode(), re.I)
    for path in sorted((settings.data / "logs").glob("*.log*")):
        if path.is_symlink() or not path.is_file():
            continue
        with open(path, "r+b") as file:
            for start, end in [one.span() for one in raw.finditer(file.read())]:
                file.seek(start)
                file.write(b"*" * (end - start))
