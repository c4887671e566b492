"""Upgrade: brings an opened database to the present schema.

schema.sql is the only truth. It is built in memory and compared; what is missing is created, columns are added,
views, indexes and triggers are built anew - and anything riskier is refused by name. Surprise: hand-written data
steps, `plugins/*/upgrades/0007_why.sql`, run before the comparison, so that what they leave is compared, too.
"""
import re
from collections.abc import Iterator
from pathlib import Path

import apsw

from orkosi import APPLICATION_ID, HOME, Unavailable, db, now, translated


class Refused(Unavailable):
    """This data folder's schema is not one this version may change by itself."""
    code = "schema_refused"


def upgrade(schema: str | None = None) -> list[str]:
    """Bring the open database to `schema`, after a snapshot if it holds anything; what was done.

    Everything happens in one transaction. Raises Refused, naming what, when the file is newer
    than the code or a change could lose data.
    """
    model = model_of(Path(HOME, "schema.sql").read_text() if schema is None else schema)
    version = int(model.pragma("user_version"))  # type: ignore[arg-type]
    found = int(db.writer.pragma("user_version"))  # type: ignore[arg-type]
    if found > version:
        raise Refused(f"{db.folder} was written by a newer Orkosi (schema {found}; this one knows {version}). "
                      "Start the newer version, or restore an older backup")
    data_steps = _data_steps(found)
    steps = [(name, path.read_text()) for name, path in data_steps]
    plan = [(f"{name} upgrade", sql) for name, sql in steps]
    fresh = not _objects(db.writer, "main")
    if not data_steps:
        plan += [step for schema_name in ("main", "logs") for step in _differences(model, schema_name)]
    if plan and not fresh:
        _snapshot(found)

    def apply() -> None:
        for _, sql in plan:
            for _ in db.writer.execute(sql):
                pass
        if data_steps:  # what they left is compared only now
            for what, sql in [s for name in ("main", "logs") for s in _differences(model, name)]:
                plan.append((what, sql))
                db.writer.execute(sql)
        db.writer.execute(f"PRAGMA user_version = {version}; PRAGMA application_id = {APPLICATION_ID}")

    if plan or found != version:
        db.write(apply)
    read_columns(model)
    return [] if fresh else [what for what, _ in plan]


def model_of(schema: str) -> apsw.Connection:
    """The schema in memory, as it should be."""
    con = apsw.Connection(":memory:")
    con.execute("ATTACH ':memory:' AS logs")
    con.execute(schema)
    return con


def _data_steps(found: int) -> list[tuple[str, Path]]:
    files = sorted(Path(HOME, "plugins").glob("*/upgrades/[0-9]*.sql"), key=lambda path: path.name)
    return [(path.stem, path) for path in files if int(path.stem.split("_")[0]) > found > 0]


def _objects(con: apsw.Connection, space: str) -> dict[tuple[str, str], str]:
    """(kind, name) → SQL; without SQLite's own, and without the shadow tables of virtual ones."""
    shadow = {row[1] for row in con.execute(f"PRAGMA {space}.table_list") if row[2] == "shadow"}
    return {(kind, name): sql for kind, name, sql in con.execute(f"SELECT type, name, sql FROM {space}.sqlite_schema")
            if sql and not name.startswith("sqlite_") and name not in shadow}


def _differences(model: apsw.Connection, space: str) -> Iterator[tuple[str, str]]:
    wanted, existing = _objects(model, space), _objects(db.writer, space)
    for (kind, name), sql in existing.items():
        if kind == "table" and (kind, name) not in wanted:
            raise Refused(f"Table {name} is in {db.folder} but not in schema.sql; dropping it takes an upgrade file")
        if kind != "table" and not _same(wanted.get((kind, name), ""), sql):
            yield f"drop {kind} {name}", f"DROP {kind} {space}.{name}"
    for (kind, name), sql in wanted.items():
        old = existing.get((kind, name), "")
        if old and kind == "table":
            yield from _new_columns(space, name, _parts(sql), _parts(old)) if old != sql else ()
        elif not (old and _same(old, sql)):
            yield f"create {kind} {name}", re.sub(r"^(CREATE (?:UNIQUE |VIRTUAL )?\w+ )(?:IF NOT EXISTS )?(?=\w)", rf"\1{space}.", sql, count=1)


def _new_columns(space: str, table: str, wanted: list[str], old: list[str]) -> Iterator[tuple[str, str]]:
    if gone := [part for part in old if part not in wanted]:
        raise Refused(f"Table {table}: '{gone[0]}' has changed or is gone; that takes an upgrade file")
    for part in wanted:
        if part not in old:
            risky = re.match(r"(CHECK|UNIQUE|PRIMARY|FOREIGN|CONSTRAINT)\b", part, re.I) or re.search(r"\bUNIQUE\b", part)
            if risky or ("NOT NULL" in part and "DEFAULT" not in part):
                raise Refused(f"Table {table}: '{part}' cannot be added to existing rows; that takes an upgrade file")
            yield f"add {table}.{part.split()[0]}", f"ALTER TABLE {space}.{table} ADD COLUMN {part}"


def _same(one: str, other: str) -> bool:
    """Whether two statements say the same. To read them closely takes 25 ms of a start, and in most there is no need."""
    return one == other or _plain(one) == _plain(other)


def _plain(sql: str) -> str:
    """`sql` without comments, and with one space where there is any."""
    bare = re.sub(r"('(?:[^']|'')*')|--[^\n]*", lambda found: found[1] or "", sql)
    return re.sub(r"\s*([(),])\s*", r"\1", " ".join(bare.split()))


def _parts(sql: str) -> list[str]:
    """The columns and constraints of a CREATE TABLE; order does not matter, added columns come last."""
    body, parts, depth = _plain(sql), [""], 0
    for char in body[body.index("(") + 1:body.rindex(")")]:
        depth += (char == "(") - (char == ")")
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def _snapshot(version: int) -> None:
    """A whole copy in `backups/` before an existing file is changed."""
    assert db.folder
    (db.folder / "backups").mkdir(exist_ok=True)
    stamp = re.sub(r"\D", "", now())[:14]
    with translated():
        db.writer.execute("VACUUM main INTO :file", {"file": str(db.folder / f"backups/before-upgrade-{version}-{stamp}.db")})


def read_columns(model: apsw.Connection | None = None) -> list[str]:
    """Read the table columns as they are: whoever opened the folder first has seen to the schema."""
    model = model or model_of(Path(HOME, "schema.sql").read_text())
    db.columns = {name: tuple(row[1] for row in model.execute(f"PRAGMA {space}.table_xinfo({name})"))
                  for space in ("main", "logs") for kind, name in _objects(model, space) if kind == "table"}
    return []
