"""Exports: every row in files, and in a real PostgreSQL, keys and constraints included; and questions in SQL."""
import csv
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request

import apsw
import pytest
from conftest import HOME, command, complaints
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
    two = ask("SELECT 1; SELECT 2", check=False)
    assert two.returncode and complaints(two) == "orkosi: sql: You can only execute one statement at a time.\n"


# ── one tenant ──

ALONE = {"tenant_shares", "task_sums"}  # kept by triggers, from the rows


def rows_of(folder, tenant):
    """Every row of a tenant, by table."""
    con = apsw.Connection(str(folder / "orkosi.db"), flags=apsw.SQLITE_OPEN_READONLY)
    found = {}
    for table, in con.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        names = [row[1] for row in con.execute(f'PRAGMA table_info("{table}")')]
        where = "tenant_id = ?" if "tenant_id" in names else {"org_members": "org_id IN (SELECT id FROM organizations WHERE tenant_id = ?)",
                                                                 "team_members": "team_id IN (SELECT id FROM teams WHERE tenant_id = ?)"}.get(table)
        if where:
            found[table] = [dict(zip(names, row, strict=True)) for row in con.execute(f'SELECT * FROM "{table}" WHERE {where} ORDER BY 1, 2', (tenant,))]
    con.close()
    return found


@pytest.fixture
def acme(client, as_, application):
    """A tenant with something in every room, and a key of its agent."""
    from conftest import Client, put

    from orkosi import acting, db, system
    from plugins import billing, costs, notifications, tokens, webhooks
    from plugins.billing import credits
    put("tenants", id=7, name="Acme", founder_id=None, created_at="2026-11-02T10:00:00.000Z")
    ann = as_("ann", role="admin", tenant=7)
    me, hooked = ann.get("/auth/me").data["id"], outside(ann, application)
    db.write(lambda: db.run("UPDATE tenants SET founder_id = :me WHERE id = 7", me=me))
    org = ann.post("/organizations", {"name": "Acme"}).data["id"]
    key = ann.post(f"/organizations/{org}/api-keys", {"name": "k", "scopes": ["tasks:read", "tasks:write", "webhooks:read", "webhooks:write"]}).data["key"]
    made = ann.post("/agents", {"name": "felix"}).data
    first = ann.post("/tasks", {"title": "first", "assignee": "felix"}).data["id"]
    ann.post("/tasks", {"title": "second", "assignee": "felix", "blocked_by": [first]}), ann.post("/teams", {"name": "t"}), ann.post("/products", {"name": "Shop", "slug": "shop"})
    ann.post("/bull-queue/submit-scheduled", {"queue": "q", "name": "s", "data": {"x": 1}, "every": 60_000}), ann.post("/bull-queue/q2/pause")
    felix = Client(application, made["key"])
    job = felix.post("/task-queue/claim", {"worker_id": "w", "queue_name": "agent:felix"}).data
    run = felix.post("/agent-runs", {"task_id": first, "job_id": job["id"]}).data["id"]
    felix.patch(f"/agent-runs/{run}", {"status": "done", "tokens_in": 50, "tokens_out": 5, "cost_micros": 7})
    felix.post(f"/task-queue/{job['id']}/complete", {"lease_token": job["lease_token"], "result": {"resolution": "done"}})
    with acting(system(7)):
        tokens.credit(1000, "bonus", "welcome"), tokens.consume(5, "x"), notifications.notify("n", "m", link=f"/api/tasks/{first}")
        costs.put("felix", **{name: None for name in costs.LIMITS}, cost_micros_per_hour=5000, runs_without_progress=9, micros_per_million_tokens_in=None, micros_per_million_tokens_out=None)
        billing.grant(7, "team"), credits.move_credits(me, "purchase", 20_000, "pi_1"), credits.move_credits(me, "consume", -7, f"run_{run}")
        billing.buying.plan_purchase("credits", "credits-10", me, slot="2026-11:001"), billing.buying.plan_purchase("tokens", "tokens-1m", 0, request_key="r")
        for kind, user, package in (("tokens", 0, "tokens-1m"), ("credits", me, "credits-10")):
            billing.topups.put(kind, user, True, None, enabled=True, threshold=5, package=package, max_monthly=1)
            put("stripe_customers", tenant_id=7, user_id=user, customer=f"cus_{kind}", idempotency_key=f"c{user}", created_at="2026-11-02T10:00:00.000Z")
        item = {"price": {"lookup_key": "orkosi_team_9900", "unit_amount": 9900}, "current_period_start": 1, "current_period_end": 2}
        billing.plans.note(billing.plans.row_of({"id": "sub_1", "status": "active", "metadata": {"held_tier": "solo", "held_until": "5"}, "items": {"data": [item]}}), "x")
    ann.patch("/notifications/read-all"), ann.patch(f"/agents/{made['name']}", {"role": "crew"})
    with acting(system(7)):
        webhooks.sending.advance(hooked["webhook"])
    return {"key": key, "agent": made["key"], **hooked}


def outside(ann, application):
    """Another system delivers to a hook of hers, and one is told by a webhook."""
    from conftest import Client
    signed = {"name": "lab", "kind": "token", "header": "X-Gitlab-Token", "secret": "a secret of theirs", "title": {"text": "from outside"}}
    lab = ann.post("/hooks", signed).data["url"].rpartition("/")[2]
    bare = ann.post("/hooks", {"name": "bare", "kind": "none", "makes": "job", "queue_name": "q3"}).data["url"].rpartition("/")[2]
    for token, headers in ((lab, {"X-Gitlab-Token": "a secret of theirs"}), (bare, {})):
        assert Client(application).post(f"/hooks/{token}", {"x": 1}, headers=headers, root="/hooks").status == 201
    return {"lab": lab, "bare": bare, "webhook": ann.post("/webhooks", {"url": "https://hooks.example/in", "types": ["task.*"]}).data["id"]}


@pytest.mark.slow
@pytest.mark.parametrize("clash", [False, True])
def test_a_tenant_moves_to_another_orkosi(client, acme, data, tmp_path, server, clash):
    there = tmp_path / "there"
    if clash:  # the other one has people, tasks and jobs of its own, of the same numbers
        other = server(folder=there)
        token = server.admin(other)
        for n in range(60):
            other.call("POST", "/tasks", {"title": f"theirs {n}", "assignee": "x"}, token)
        other.stop()
    else:
        command("user", "add", "root@example.com", "--username", "root", "--role", "admin", "--password-stdin", folder=there, stdin="correct horse battery\n")
    said = command("tenant", "export", "7", str(tmp_path / "acme.tenant"), folder=data).stdout
    assert "rows of tenant 7" in said and oct((tmp_path / "acme.tenant").stat().st_mode)[-3:] == "600"
    said = command("tenant", "import", str(tmp_path / "acme.tenant"), folder=there).stdout
    assert "Acme is tenant" in said and "its hooks that are signed (1) are turned off" in said and "its webhooks (1) are paused" in said
    here, moved = rows_of(data, 7), rows_of(there, int(said.split("is tenant ")[1].split()[0]))
    compare(here, moved, clash)
    running = server(folder=there)
    status, tasks = running.call("GET", "/tasks", None, acme["key"])
    assert status == 200 and {one["title"] for one in tasks["data"]} == {"first", "second", "from outside"}
    status, job = running.call("POST", "/task-queue/claim", {"worker_id": "w", "queue_name": "agent:felix"}, acme["agent"])
    assert status == 200 and job["data"]["payload"]["task_id"] in {one["id"] for one in tasks["data"]}, "its agent's key works there"
    hooks_wait_for_new_secrets(running, acme)
    again = command("tenant", "import", str(tmp_path / "acme.tenant"), folder=there, check=False)
    assert again.returncode and "ann has an account here already" in again.stderr


def hooks_wait_for_new_secrets(running, acme):
    """Nothing goes out or comes in that is not signed; with a new secret, all goes on at the same addresses."""
    def deliver(token, secret):
        asked = urllib.request.Request(f"{running.url}/hooks/{token}", b'{"x": 2}', {"Content-Type": "application/json", "X-Gitlab-Token": secret}, method="POST")
        try:
            with urllib.request.urlopen(asked, timeout=20) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
    change = lambda path, body: running.call("PATCH", path, body, acme["key"])  # noqa: E731
    lab, bare = (next(one for one in running.call("GET", "/hooks", None, acme["key"])[1]["data"] if one["name"] == name) for name in ("lab", "bare"))
    assert (lab["enabled"], bare["enabled"]) == (False, True) and deliver(acme["bare"], "") == 201 and deliver(acme["lab"], "a secret of theirs") == 404
    assert change(f"/hooks/{lab['id']}", {"enabled": True})[0] == 400, "everybody could sign with no secret"
    assert change(f"/hooks/{lab['id']}", {"enabled": True, "secret": "another secret"})[0] == 200
    assert deliver(acme["lab"], "") == 401 and deliver(acme["lab"], "another secret") == 201
    one, = running.call("GET", "/webhooks", None, acme["key"])[1]["data"]
    assert one["status"] == "paused" and change(f"/webhooks/{one['id']}", {"status": "active"})[0] == 400
    status, resumed = change(f"/webhooks/{one['id']}", {"status": "active", "rotate_secret": True})
    assert status == 200 and resumed["data"]["secret"].startswith("whsec_")


def test_every_table_of_a_tenant_moves_or_says_why_it_stays():
    from plugins.export.moving import LEFT, MOVED
    from plugins.storage.upgrade import model_of
    model = model_of((HOME / "schema.sql").read_text())
    tables = [row[1] for space in ("main", "logs") for row in model.execute(f"PRAGMA {space}.table_list").fetchall() if row[2] == "table"]
    told = {name for name in tables if "tenant_id" in [row[1] for row in model.execute(f"PRAGMA table_info({name})")]}
    assert told <= MOVED.keys() | LEFT.keys() and not MOVED.keys() & LEFT.keys() and LEFT.keys() <= told and all(LEFT.values())


BILLED = "stripe_customers subscriptions plan_grants plan_days purchases topups credit_accounts credit_ledger".split()
HOOKED = "hooks hook_deliveries hook_bodies webhooks webhook_deliveries".split()
BARE = {"hooks": {"enabled": 0, "vault_key_id": None, "nonce": None, "sealed": None}, "webhooks": {"status": "paused", "paused_for": "asked"}}  # without its secret


def compare(here, there, shifted):
    """Row by row, every field: numbers are as they were, or shifted by one amount for each table, and so is what refers to them."""
    from plugins.export.moving import ENTITIES, MOVED, PERSONS
    by = {}
    for table in here.keys() - ALONE:
        mine, theirs = here[table], there[table]
        assert len(mine) == len(theirs), table
        if mine and isinstance(mine[0].get("id"), int):
            found = {two["id"] - one["id"] for one, two in zip(mine, theirs, strict=True)}
            assert len(found) == 1, table
            by[table] = found.pop()
    assert any(by.values()) is shifted and not [table for table in [*BILLED, *HOOKED] if not here[table]]
    assert len([table for table, rows in here.items() if rows]) > 28
    for table in here.keys() - ALONE:
        for one, two in zip(here[table], there[table], strict=True):
            for name, value in one.items():
                target = "users" if PERSONS.get(table) == name else MOVED.get(table, {}).get(name)
                if name == "tenant_id" or (table == "schedules" and name == "job_id" and two[name] is None):
                    continue
                if name in BARE.get(table, {}) and one.get("name") != "bare":
                    expected = BARE[table][name]
                elif table == "webhook_deliveries" and name in ("status", "job_id"):
                    expected = {"status": "waiting", "job_id": None}[name]
                elif table == "webhook_deliveries" and name in ("entity", "body"):
                    told, number = json.loads(two["body"])["data"], int(one["entity"].partition(":")[2]) + by["tasks"]
                    expected = f"task:{number}" if name == "entity" else two[name]
                    assert (told["id"], told["entity_id"]) == (two["event_id"], str(number)) and one["status"] in ("waiting", "sending")
                elif name == "id" and isinstance(value, int):
                    expected = value + by[table]
                elif target and isinstance(value, int):
                    expected = value and value + by.get(target, 0)
                elif target and isinstance(value, str) and value.startswith("user:"):
                    expected = f"user:{int(value[5:]) + by['users']}"
                elif table == "credit_ledger" and name == "reference_id" and value.startswith("run_"):
                    expected = f"run_{int(value[4:]) + by['agent_runs']}"
                elif table == "activity" and name == "actor_id" and one["actor_type"] == "user":
                    expected = str(int(value) + by["users"])
                elif table == "activity" and name == "entity_id" and str(value).isdecimal() and one["entity_type"] in ENTITIES:
                    expected = str(int(value) + by.get(ENTITIES[one["entity_type"]], 0))
                elif table == "jobs" and name == "payload" and "task_id" in value:
                    expected = json.dumps({"task_id": json.loads(value)["task_id"] + by["tasks"]}, separators=(",", ":"))
                    assert json.loads(two[name]) == json.loads(expected)
                    continue
                elif table == "notifications" and name == "link" and (value or "").startswith("/api/tasks/"):
                    expected = f"/api/tasks/{int(value.rpartition('/')[2]) + by['tasks']}"
                else:
                    expected = value
                assert two[name] == expected, (table, name)


def test_what_is_no_tenant_is_not_taken(client, acme, data, tmp_path):
    file = tmp_path / "x.tenant"
    for words, said in ((("export", "1", str(file)), "whole data folder"), (("export", "99", str(file)), "There is no tenant 99"), (("export", str(file)), "Say: tenant export"),
                        (("import", str(file)), "cannot be read")):
        done = command("tenant", *words, folder=data, check=False)
        assert done.returncode and said in done.stderr, done.stderr
    file.unlink(missing_ok=True)
    command("tenant", "export", "7", str(file), folder=data)
    whole = file.read_bytes()
    for bad in (whole[:len(whole) // 2], b"hello", b""):
        file.write_bytes(bad)
        assert "is no tenant that 'tenant export' wrote" in command("tenant", "import", str(file), folder=data, check=False).stderr
    file.write_bytes(whole)
    assert "has an account here already" in command("tenant", "import", str(file), folder=data, check=False).stderr
    assert "is there already" in command("tenant", "export", "7", str(file), folder=data, check=False).stderr
