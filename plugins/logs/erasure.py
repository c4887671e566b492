"""Erasure: an address or a name that log lines hold is made unreadable, the lines stay.

Surprise: a name that stands in very many lines is an ordinary word there and stays; else somebody could
call himself "error" and have every error blotted out by leaving. Files are written over in place, byte for
byte, for the server and the tailer have them open.
"""
import re
from typing import Any

from orkosi import db, settings, writes

from . import BATCH, plugin

ORDINARY, STRETCH = 1000, 200_000
BLOT = "…"


@plugin.on("user.erased")
def erase(event: str, gone: Any, **facts: Any) -> None:
    """Blot out somebody's addresses and name, once the erasure holds."""
    db.after_commit(lambda: blot(gone.addresses, gone.username))


def blot(addresses: list[str], name: str) -> None:
    """Make addresses and a name unreadable in the lines and in the server's own files."""
    for word, most in [*((one, None) for one in addresses), (name, ORDINARY)]:
        pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.I)
        found = _holding(word, most)
        for at in range(0, len(found), BATCH):
            _blot(found[at:at + BATCH], pattern)
        _blot_files(pattern, most)


def _holding(word: str, most: int | None) -> list[int]:
    """Lines that have `word`; none where they are more than `most`."""
    phrase = '"' + word.replace('"', '""') + '"'
    limit = -1 if most is None else most + 1
    found = {id for id, in db.all(tuple, "SELECT rowid FROM log_lines_fts WHERE log_lines_fts MATCH :phrase LIMIT :limit",
                                  phrase=phrase, limit=limit)} if re.search(r"\w", word) else set()
    # What came with a line is in no index: it is looked through a stretch at a time, for no read may take long.
    for start in range(0, db.value("SELECT max(id) FROM log_lines") or 0, STRETCH):
        found |= {id for id, in db.all(tuple, """SELECT id FROM log_lines WHERE source = 'db' AND id > :start AND id <= :start + :stretch
                                                   AND instr(lower(meta), lower(:word)) LIMIT :limit""",
                                       start=start, stretch=STRETCH, word=word, limit=limit)}
    return [] if most is not None and len(found) > most else sorted(found)


@writes(durable=False)
def _blot(ids: list[int], pattern: re.Pattern[str]) -> None:
    # With it, the index forgets a word when it is taken out, and not when its segments are merged some day.
    db.run("INSERT INTO log_lines_fts (log_lines_fts, rank) VALUES ('secure-delete', 1)")
    for id in ids:
        old = db.one(dict, "SELECT message, meta FROM log_lines WHERE id = :id", id=id)
        if old:
            new = {name: value and pattern.sub(BLOT, value) for name, value in old.items()}
            db.run("INSERT INTO log_lines_fts (log_lines_fts, rowid, message) VALUES ('delete', :id, :old)", id=id, old=old["message"])
            db.run("UPDATE log_lines SET message = :message, meta = :meta WHERE id = :id", id=id, **new)
            db.run("INSERT INTO log_lines_fts (rowid, message) VALUES (:id, :message)", id=id, message=new["message"])
    db.run("INSERT INTO log_lines_fts (log_lines_fts, rank) VALUES ('secure-delete', 0)")


def _blot_files(pattern: re.Pattern[str], most: int | None) -> None:
    raw = re.compile(pattern.pattern.encode(), re.I)
    for path in sorted((settings.data / "logs").glob("*.log*")):
        if path.is_symlink() or not path.is_file():
            continue
        with open(path, "r+b") as file:
            found = [one.span() for one in raw.finditer(file.read())]
            for start, end in found if most is None or len(found) <= most else []:
                file.seek(start)
                file.write(b"*" * (end - start))
