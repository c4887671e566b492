"""Exports: every row in files, and in a real PostgreSQL, keys and constraints included; and questions in SQL."""
import csv
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time

import apsw
import pytest
from conftest import HOME, command
from test_portable import binary

OLD = sorted((HOME / "tests" / "old").glob("*.tar.gz"))


class Cluster:
    """A PostgreSQL of its own, on a socket in its folder. It refuses root: then it is its own user, or nobody."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="orkosi-pg-")
        self.who = {}
        if os.getuid() == 0:
            import pwd
            user = max((one for one in pwd.getpwall() if one.pw_name in ("postgres", "nobody")), key=lambda one: one.pw_name)
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self.who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._run(binary("initdb"), "-D", f"{self.folder}/db", "-U", "orkosi", "--no-sync", "--locale=C", "-E", "UTF8")
        self.process = subprocess.Popen([binary("postgres"), "-D", f"{self.folder}/db", "-k", self.folder, "-c", "listen_addresses=", "-c", "fsync=off"],
                                        cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"PATH": os.defpath, "LC_ALL": "C"}, **self.who)
        end = time.monotonic() + 20
        while self.psql("template1", "-c", "SELECT 1", check=False).returncode and time.monotonic() < end:
            time.sleep(0.1)  # it starts

    def _run(self, *words):
        return subprocess.run(words, capture_output=True, text=True, check=True, cwd=self.folder, env={"PATH": os.defpath, "LC_ALL": "C"}, **self.who)

    def psql(self, database, *words, check=True, **more):
        done = subprocess.run([binary("psql"), "-h", self.folder, "-U", "orkosi", "-d", database, "-v", "ON_ERROR_STOP=1", "-qAtX", *words], capture_output=True, text=True,
                              env={"PATH": os.defpath, "LC_ALL": "C"}, **more)
        assert not check or done.returncode == 0, done.stderr[:3000]
        return done

    def load(self, database, file):
        self.psql("template1", "-c", f"CREATE DATABASE {database}")
        with open(file) as sql:
            self.psql(database, stdin=sql)

    def ask(self, database, sql):
        return self.psql(database, "-c", sql).stdout.strip()

    def end(self):
        self.process.terminate()
        self.process.wait(20)
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module")
def cluster():
    found = Cluster()
    yield found
    found.end()


def compared(cluster, name, folder, out):
    """Every table of the data folder, row by row in counts, and in the sums of every number and the lengths of every text, against PostgreSQL."""
    cluster.load(name, out / "postgresql.sql")
    tables = 0
    for file in ("orkosi.db", "logs.db"):
        con = apsw.Connection(str(folder / file), flags=apsw.SQLITE_OPEN_READONLY)
        kinds = {row[1]: row[2] for row in con.execute("PRAGMA table_list")}
        for table, in con.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND sql IS NOT NULL").fetchall():
            if kinds.get(table) != "table" or table.startswith("sqlite_"):
                continue
            tables += 1
            columns = con.execute(f'PRAGMA table_info("{table}")').fetchall()
            parts = [f'sum("{row[1]}")' if row[2] in ("INTEGER", "REAL") else f'sum(length("{row[1]}"))' for row in columns]
            here = con.execute(f'SELECT count(*), {", ".join(parts)} FROM "{table}"').fetchone()
            there = cluster.ask(name, f'SELECT count(*), {", ".join(parts)} FROM "{table}"').split("|")
            assert [float(one or 0) for one in here] == [float(one or 0) for one in there], table
            with open(out / f"tables/{table}.csv", newline="") as lines:
                rows = list(csv.reader(lines))
            assert rows[0] == [row[1] for row in columns] and len(rows) == here[0] + 1
        con.close()
    return tables


@pytest.mark.slow
@pytest.mark.parametrize("archive", OLD, ids=lambda one: one.name)
def test_an_old_folder_loads_into_a_real_postgresql(cluster, tmp_path, archive):
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    folder = next(path.parent for path in tmp_path.rglob("orkosi.db"))
    command("export", str(tmp_path / "out"), folder=folder)
    assert compared(cluster, f"old{OLD.index(archive)}", folder, tmp_path / "out") > 40


@pytest.mark.slow
def test_a_living_company_loads_into_a_real_postgresql(cluster, server, tmp_path):
    running = server("--demo")
    time.sleep(4)  # in which the company works
    said = command("export", str(tmp_path / "out"), folder=running.folder).stdout
    assert "rows of" in said and "psql" in said
    running.stop()
    cluster.load("demo", tmp_path / "out/postgresql.sql")
    assert cluster.ask("demo", "SELECT count(*) FROM tasks") == "12" and cluster.ask("demo", "SELECT count(*) FROM agents") == "3"
    assert cluster.ask("demo", "INSERT INTO tasks (tenant_id, title, title_key, created_by, created_at, updated_at) VALUES (1, 'x', 'x', 'x', 'x', 'x') RETURNING id") == "13"
    assert cluster.psql("demo", "-c", "INSERT INTO tasks (tenant_id, title, title_key, status, created_by, created_at, updated_at) VALUES (1, 'x', 'x', 'no', 'x', 'x', 'x')",
                        check=False).returncode, "its checks hold there, too"


def test_an_export_goes_into_a_new_folder_as_csv_or_json(client, data, tmp_path):
    odd = 'quote " tab \t newline \n back \\ slash, emoji 🎉'
    client.post("/tasks", {"title": "t", "description": odd})
    for kind in ("csv", "jsonl"):
        command("export", str(tmp_path / kind), "--format", kind, folder=data)
    with open(tmp_path / "csv/tables/tasks.csv", newline="") as lines:
        row, = csv.DictReader(lines)
    row_too = json.loads((tmp_path / "jsonl/tables/tasks.jsonl").read_text())
    assert row["description"] == row_too["description"] == odd and row_too["assignee"] is None and row["assignee"] == "" and row_too["id"] == 1
    assert r'quote " tab \t newline \n back \\ slash, emoji 🎉' in (tmp_path / "csv/postgresql.sql").read_text()
    users = (tmp_path / "jsonl/tables/users.jsonl").read_text().splitlines()
    assert len(users) == 1
    again = command("export", str(tmp_path / "csv"), folder=data, check=False)
    assert again.returncode and "is not empty" in again.stderr


def test_a_question_is_asked_of_a_copy(client, data):
    client.post("/tasks", {"title": "one"}), client.post("/tasks", {"title": "two"})
    ask = lambda *words, **more: command("query", *words, folder=data, **more)  # noqa: E731
    assert json.loads(ask("SELECT id, title FROM tasks ORDER BY id").stdout) == [{"id": 1, "title": "one"}, {"id": 2, "title": "two"}]
    assert ask("SELECT title FROM tasks ORDER BY id", "--csv").stdout.split() == ["title", "one", "two"]
    assert "count(*)" in ask("SELECT count(*) FROM tasks", "--table").stdout and "log_lines" not in ask("SELECT count(*) AS n FROM logs.log_lines").stdout
    ask("DELETE FROM tasks", check=False), ask("DELETE FROM users")
    assert len(client.get("/tasks").data) == 2 and client.get("/auth/me").status == 200, "it was a copy"
    bad = ask("SELECT nonsense", check=False)
    assert bad.returncode and "nonsense" in bad.stderr and ask(" ", check=False).returncode
