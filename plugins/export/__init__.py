"""Export: everything in files that other programs read, and questions in SQL to a finished copy.

Owns no table. Surprise: nothing is read from the live files but one whole copy of each database, made by SQLite itself in one moment; so an
export is of that moment, while the company goes on, and a question can do no harm. Whoever may read the data folder may do this, and what
it writes is as secret as that folder.
"""
import csv
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import click

from orkosi import DATA, Conflict, Invalid, Plugin, acting, db, settings, system, translated
from plugins import folders, storage

from . import postgres

plugin = Plugin("Export", layer="views")

FORMATS = {"csv": "csv", "jsonl": "json lines"}


@plugin.command("export")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--format", "kind", type=click.Choice(list(FORMATS)), default="csv", show_default=True, help="Of the files, one for each table")
@DATA
def export(folder: Path, kind: str, data: Path | None) -> None:
    """Write every table into a file of its own, and all of them as a database that PostgreSQL loads."""
    settings.load(data=data)
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"{folder} is not empty; name a new folder")
    with translated(), folders.explained(f"{folder} cannot be written"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            tables = list(copied(Path(scratch)))
            (folder / "tables").mkdir(mode=0o700)
            rows = sum(write_table(folder / "tables" / f"{name}.{kind}", kind, columns, read) for name, columns, read in tables)
            postgres.write(folder / "postgresql.sql", tables)
    click.echo(f"{rows:,} rows of {len(tables)} tables in {folder}/tables, and all of them in {folder}/postgresql.sql: createdb orkosi && "
               f"psql -v ON_ERROR_STOP=1 -d orkosi -f {folder}/postgresql.sql")


@plugin.command("query")
@click.argument("sql")
@click.option("--csv", "kind", flag_value="--csv", help="Comma-separated values, with a head")
@click.option("--json", "kind", flag_value="--json-cols", help="JSON, an object a row")
@click.option("--table", "kind", flag_value="--table", help="A table; the default on a terminal, where it is JSON elsewhere")
@DATA
def query(sql: str, kind: str | None, data: Path | None) -> None:
    """Ask a question in SQL of a finished copy of the databases: orkosi.py query 'SELECT status, count(*) FROM tasks GROUP BY 1'."""
    settings.load(data=data)
    if not sql.strip():
        raise Invalid("sql: Say what to ask, such as SELECT count(*) FROM tasks")
    kind = kind or ("--table" if sys.stdout.isatty() else "--json-cols")
    with tempfile.TemporaryDirectory() as scratch, translated():
        main, logs = copies(Path(scratch))
        command = [sys.executable, "-m", "sqlite_utils", "query", str(main), sql, "--attach", "logs", str(logs)]
        done = subprocess.run([*command, kind], stderr=subprocess.PIPE, text=True, errors="replace")
    said = done.stderr.strip().splitlines()
    if done.returncode:  # what it did not foresee is a traceback, and its last line says what was wrong
        raise Invalid("sql: " + (re.sub(r"^[\w.]*Error: ", "", said[-1]) if said else f"It ended with {done.returncode}"))
    for line in said:
        click.echo(line, err=True)


# ── the copy ──


def copies(folder: Path) -> tuple[Path, Path]:
    """Whole copies of both databases, each of one moment; beside a running server, or without one."""
    storage.must_be_there()
    storage.open_data()
    try:
        found = []
        for space in ("main", "logs"):
            path = folder / f"{space}.db"
            db.writer.execute(f"VACUUM {space} INTO :file", {"file": str(path)})
            found.append(path)
        return found[0], found[1]
    finally:
        storage.close_data()


Table = tuple[str, list[str], "Read"]


class Read:
    """The rows of one table of a copy, in the order of its key; asked again, from the beginning."""

    def __init__(self, file: Path, name: str, columns: list[str], order: str):
        self.file, self.sql = file, f"SELECT {', '.join(quoted(one) for one in columns)} FROM {quoted(name)} ORDER BY {order}"

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        con = apsw.Connection(str(self.file), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            yield from con.execute(self.sql)
        finally:
            con.close()


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def copied(folder: Path) -> Iterator[Table]:
    """Every table of a fresh copy that is not SQLite's own: its name, its columns and its rows, in the order of the schema."""
    for file in copies(folder):
        con = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
        kinds = {row[1]: row[2] for row in con.execute("PRAGMA table_list")}
        for name in _tables(con, "main"):
            if kinds.get(name) == "table" and not name.startswith("sqlite_"):
                info: list[Any] = con.execute(f"PRAGMA table_info({quoted(name)})").fetchall()
                key = [quoted(row[1]) for row in sorted(info, key=lambda row: row[5]) if row[5]]
                columns = [row[1] for row in info]
                yield name, columns, Read(file, name, columns, ", ".join(key) or "rowid")
        con.close()


def _tables(con: apsw.Connection, space: str) -> list[Any]:
    """The names of tables in the order in which they were made: what is referred to comes first."""
    return [name for name, in con.execute(f"SELECT name FROM {space}.sqlite_schema WHERE type = 'table' AND sql IS NOT NULL ORDER BY rowid")]


# ── files ──


def write_table(path: Path, kind: str, columns: list[str], rows: Read) -> int:
    """Write one table; how many rows it has. Bytes are written as `\\x` and hex digits, as PostgreSQL has them."""
    many = 0
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if kind == "csv":
            writer.writerow(columns)
        for row in rows:
            many += 1
            told = [f"\\x{one.hex()}" if isinstance(one, bytes) else one for one in row]
            if kind == "csv":
                writer.writerow(told)
            else:
                file.write(json.dumps(dict(zip(columns, told, strict=True)), ensure_ascii=False) + "\n")
    return many


# ── one tenant ──


@plugin.command("tenant")
@click.argument("action", type=click.Choice(["export", "import"]))
@click.argument("words", nargs=-1, required=True)
@DATA
def tenant(action: str, words: tuple[str, ...], data: Path | None) -> None:
    """Move a tenant to another Orkosi: `tenant export ID FILE` there, `tenant import FILE` here."""
    settings.load(data=data)
    if len(words) != (2 if action == "export" else 1) or (action == "export" and not words[0].isdecimal()):
        raise Invalid("Say: tenant export ID FILE, or tenant import FILE")
    file = Path(words[-1])
    if action == "export":
        with tempfile.TemporaryDirectory() as scratch, translated(), folders.explained(f"{file} cannot be written"):
            counts = moving.write(copies(Path(scratch))[0], int(words[0]), file)
        click.echo(f"{sum(counts.values()):,} rows of tenant {words[0]} are in {file}. It goes on here until its people are erased, or move along")
        return
    storage.must_be_there()
    storage.open_data()
    try:
        with acting(system()), folders.explained(f"{file} cannot be read"):
            head, rows = moving.read(file)
            number = moving.take(head, rows)
    finally:
        storage.close_data()
    click.echo(f"{head['name']} is tenant {number} here, with {sum(map(len, rows.values())):,} rows; its keys work, and its people log in anew"
               + moving.without_secrets(rows))


from . import moving  # noqa: E402  # last: it uses what is above
