"""A data folder of an earlier version opens, with every row and id, and its agents go on.

`old/` has such a folder, packed, with rows in most tables. Whoever changes the schema keeps this green: a table
that must be built anew keeps its ids, and the mark from which AUTOINCREMENT goes on.
"""
import re
import tarfile
from pathlib import Path

import apsw
import pytest
from conftest import eventually

import orkosi
from orkosi import acting, settings, system
from plugins import storage

PACKED = sorted((Path(__file__).parent / "old").glob("data-*.tar.gz"))


@pytest.fixture(params=PACKED, ids=lambda path: path.name)
def old(request, tmp_path):
    """A copy of such a folder, which nobody has opened yet."""
    with tarfile.open(request.param) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path / "data"


def everything(folder):
    """Every row of every table, by table and key, as SQLite has them: read by a connection that is closed before anybody else opens the files."""
    con = apsw.Connection(str(folder / "orkosi.db"))
    con.execute("ATTACH ? AS logs", (str(folder / "logs.db"),))
    found = {}
    for space in ("main", "logs"):
        shadows = {row[1] for row in con.execute(f"PRAGMA {space}.table_list") if row[2] in ("shadow", "virtual")}
        for name, in con.execute(f"SELECT name FROM {space}.sqlite_schema WHERE type = 'table'").fetchall():
            if name not in shadows and not name.startswith("sqlite_"):
                info = con.execute(f"PRAGMA {space}.table_info({name})").fetchall()
                columns, keys = [row[1] for row in info], [row[1] for row in info if row[5]]
                rows = [dict(zip(columns, row, strict=True)) for row in con.execute(f"SELECT * FROM {space}.{name}")]
                found[name] = {tuple(row[key] for key in keys): row for row in rows}
    marks = dict(con.execute("SELECT name, seq FROM main.sqlite_sequence").fetchall())
    con.close()
    return found, marks


def test_every_row_and_id_stands(old, monkeypatch):
    before, marks = everything(old)
    assert sum(map(len, before.values())) > 250 and sum(bool(rows) for rows in before.values()) > 20
    settings.load(data=old, environ={})
    assert storage.open_data(exclusive=True), "something was upgraded"
    storage.close_data()
    after, new_marks = everything(old)
    for name, rows in before.items():
        assert set(rows) <= set(after[name]), name
        for key, row in rows.items():
            assert after[name][key].items() >= row.items(), (name, key)
    assert {name: new_marks[name] for name in marks} == marks, "no id is used twice"
    assert list((old / "backups").glob("before-upgrade-*.db")), "a copy was put aside before"
    settings.load(data=old, environ={})
    assert storage.open_data(exclusive=True) == [], "the second time, there is nothing to do"
    try:
        with acting(system()):
            from plugins import queue
            job, _ = queue.submit("q", "t", {})
            assert job.id == marks["jobs"] + 1
            for tenant, in orkosi.db.all(tuple, "SELECT id FROM tenants"):
                weighed = orkosi.db.one(tuple, "SELECT jobs, bytes FROM tenant_shares WHERE tenant_id = :id", id=tenant)
                assert weighed[0] == len(before["jobs"]) + 1 and weighed[1] > 200 * (len(before["jobs"]) + len(before["tasks"]))
            assert orkosi.db.value("PRAGMA integrity_check") == "ok" and orkosi.db.all(tuple, "PRAGMA foreign_key_check") == []
    finally:
        storage.close_data()


def test_what_was_not_weighed_before_is_weighed_by_the_upgrade(tmp_path):
    from plugins import schedules
    settings.load(data=tmp_path / "data", environ={})
    storage.open_data(exclusive=True)
    with acting(system()):
        orkosi.db.write(lambda: orkosi.db.run("INSERT INTO public_answers VALUES (1, 'user:1', 'k', x'00', 200, :body, '2026')", body="ü" * 100))
        schedules.keep("q", "daily", {"text": "ä" * 50}, cron="0 8 * * *")
    weighed = orkosi.db.value("SELECT bytes FROM tenant_shares WHERE tenant_id = 1")
    storage.close_data()
    con = apsw.Connection(str(tmp_path / "data/orkosi.db"))  # as schema 22 had left it
    for table in ("schedules", "public_answers"):
        for verb in ("weighed", "lifted", "reweighed"):
            con.execute(f"DROP TRIGGER {table}_{verb}")
    con.execute(f"UPDATE tenant_shares SET bytes = {weighed} - 200 - 200 - (SELECT octet_length(payload) FROM schedules) - 200; PRAGMA user_version = 22")
    con.close()
    storage.open_data(exclusive=True)
    try:
        assert orkosi.db.value("SELECT bytes FROM tenant_shares WHERE tenant_id = 1") == weighed > 700
    finally:
        storage.close_data()


def shape(folder):
    """All that the two files are made of: (kind, name) → its table, its columns in any order (an added one comes last), and its words."""
    con = apsw.Connection(str(folder / "orkosi.db"))
    con.execute("ATTACH ? AS logs", (str(folder / "logs.db"),))
    found = {"version": con.pragma("user_version")}
    for space in ("main", "logs"):
        for kind, name, table, sql in con.execute(f"SELECT type, name, tbl_name, sql FROM {space}.sqlite_schema").fetchall():
            pragma = "index_xinfo" if kind == "index" else "table_xinfo"
            columns = [row[2:] if kind == "index" else row[1:] for row in con.execute(f"PRAGMA {space}.{pragma}({name})").fetchall()]
            words = [] if kind == "table" else " ".join(re.sub(r"--[^\n]*", "", sql or "").replace(f"{space}.", "").split())
            found[space, kind, name] = table, columns if kind == "index" else sorted(columns, key=repr), words
    con.close()
    return found


def test_an_upgraded_folder_is_made_as_a_new_one(old, tmp_path):
    for folder in (old, tmp_path / "new"):
        settings.load(data=folder, environ={})
        storage.open_data(exclusive=True)
        storage.close_data()
    upgraded, new = shape(old), shape(tmp_path / "new")
    assert upgraded.keys() == new.keys()
    assert {key: (upgraded[key], new[key]) for key in new if upgraded[key] != new[key]} == {}


@pytest.mark.slow
def test_its_agents_go_on(old, server):
    before, _ = everything(old)
    running = server(folder=old)
    admin = server.admin(running)
    wanted = {row["name"]: row["wanted"] for row in before["agents"].values()}
    assert set(wanted.values()) == {"running", "paused", "stopped"}
    for name, was in wanted.items():
        if was != "running":
            status, seen = running.call("POST", f"/agents/{name}/{'resume' if was == 'paused' else 'start'}", {}, admin)
            assert status == 200, seen
        _, task = running.call("POST", "/tasks", {"title": f"After the move, for {name}", "assignee": name}, admin)
        assert task["data"]["id"] > max(key for key, in before["tasks"])
        done = eventually(lambda: (one := running.call("GET", f"/tasks/{task['data']['id']}", token=admin)[1]["data"])["status"] == "done" and one, 15)  # noqa: B023
        assert done["resolution"]
    assert running.call("GET", "/tasks?limit=200", token=admin)[1]["meta"]["total"] == len(before["tasks"]) + 3
