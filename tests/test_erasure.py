"""Erasure: a canary leaves no trace in any file, and does not come back with an old copy."""
import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import Client

import orkosi
from orkosi import HOST_TENANT, acting, db, settings, system
from plugins import keys, logs, mail, notifications, storage, users

NAME, ADDRESS = "zzcanary", "zzcanary@example.com"
PASSWORD = "correct horse"


def who(client):
    return client.get("/auth/me").data["id"]


def prove(one):
    """As if the person had followed a link that went to their address."""
    id = who(one)
    db.write(lambda: db.run("UPDATE users SET email_proven_at = created_at WHERE id = :id", id=id))


def traces(folder):
    """Files with a trace, by grep in a process of its own: opened here, a live database would lose its locks."""
    done = subprocess.run(["grep", "-rlai", "zzcanary", str(folder)], capture_output=True, text=True)
    return sorted(line.removeprefix(f"{folder}/") for line in done.stdout.split())


@pytest.fixture
def canary(as_, client, anonymous, posted, data):
    """Somebody who left traces wherever one can."""
    one = as_("zzcanary")
    prove(one)
    one.post("/auth/login", {"email": ADDRESS, "password": PASSWORD})
    anonymous.request("POST", "/auth/login", {"email": ADDRESS, "password": PASSWORD}, headers={"User-Agent": "zzcanary's phone"})
    org = client.post("/organizations", {"name": "Acme"}).data["id"]
    client.post(f"/organizations/{org}/members", {"user_id": who(one), "role": "owner"})
    team = client.post("/teams", {"name": "Crew"}).data["id"]
    client.post(f"/teams/{team}/members", {"user_id": who(one)})
    one.post(f"/organizations/{org}/invites", {"email": "friend@example.com"})
    client.post(f"/teams/{team}/invites", {"email": "ZZcanary@example.com"})
    one.post("/auth/change-email", {"email": "zzcanary.new@example.com", "password": PASSWORD})
    notifications.notify("Welcome", f"Say hello to {ADDRESS}", user_id=None)
    notifications.notify("Hello zzcanary", "for you", user_id=who(one))
    client.post("/activity-log", {"actor_type": "user", "actor_id": "1", "action": "wrote", "metadata": {"to": ADDRESS}})
    one.post("/tasks", {"title": "Feed the birds"})
    client.post("/logs", {"agent": "felix", "level": "info", "message": "asked", "meta": {"by": ADDRESS}})
    _, one.key = keys.issue(HOST_TENANT, "mine", keys.SCOPES, org_id=org, by=who(one))
    with acting(system()):
        db.write(lambda: lines([f"mail to {ADDRESS} bounced", "nothing to see"]))
    (data / "logs").mkdir(exist_ok=True)
    (data / "logs/orkosi.log").write_text(f"one\n{ADDRESS} wrote\nto <{ADDRESS}>.\n")
    return one


def lines(messages):
    db.run_many(logs.ADD, [{"file": None, "agent": None, "level": "info", "message": one, "task_id": None, "created_at": "2026"} for one in messages])
    db.run(logs.INDEX, last=0)


def deliver(posted, data):
    """Put what waits into the outbox, and leave it there."""
    from plugins import queue
    from plugins.queue import executor
    for job in queue.claim(executor.OWN, "test", batch=2):
        executor.run(job)


def test_a_canary_leaves_no_trace(canary, client, anonymous, application, posted, data):
    deliver(posted, data)
    id = who(canary)
    found = traces(data)
    assert {"orkosi.db-wal", "logs.db-wal", "logs/orkosi.log"} <= set(found) and any(one.startswith("outbox/") for one in found)
    assert canary.delete("/users/me").data == {"deleted": True, "id": id}

    assert traces(data) == []
    assert canary.get("/auth/me").status == 401 and Client(application, canary.key).get("/tasks").status == 401
    assert anonymous.post("/auth/login", {"email": ADDRESS, "password": PASSWORD}).status == 401
    assert client.get(f"/users/{id}").status == 404
    record, = map(json.loads, (data / "erasures.jsonl").read_text().splitlines())
    assert record["id"] == id and set(record) == {"id", "created", "at"} and (data / "erasures.jsonl").stat().st_mode & 0o777 == 0o600
    assert [one["message"] for one in client.get("/logs?q=nothing").data] == ["nothing to see"]
    assert client.get("/logs?q=bounced").data[0]["message"] == "mail to … bounced", "the line stays, and stays found"
    assert (data / "logs/orkosi.log").read_text().startswith("one\n****")
    assert client.get("/tasks").data[0]["title"] == "Feed the birds", "the work stays"
    assert db.value("SELECT count(*) FROM log_lines_fts WHERE log_lines_fts MATCH 'zzcanary*'") == 0
    with acting(system()):
        db.write(lambda: db.run("INSERT INTO log_lines_fts (log_lines_fts) VALUES ('integrity-check')"))


def test_somebody_erased_does_not_come_back_with_an_old_copy(canary, client, data, tmp_path):
    id, copy = who(canary), tmp_path / "copy"
    storage.close_data()
    shutil.copytree(data, copy)
    storage.open_data(exclusive=True)
    assert client.delete(f"/users/{id}").status == 200
    storage.close_data()
    for name in ("orkosi.db", "logs.db"):
        shutil.copy(copy / name, data / name)
    storage.open_data(exclusive=True)
    assert db.value("SELECT 1 FROM users WHERE id = :id", id=id) is None
    assert traces(data) == []

    storage.close_data()
    storage.open_data(exclusive=True)
    with acting(system()):
        back = users.add(NAME, ADDRESS, users.passwords.hashed(PASSWORD), "member", HOST_TENANT)
    storage.close_data()
    storage.open_data(exclusive=True)
    assert users.find(back.id).username == NAME, "who registers anew later, stays"


def everything_of(client, name, task):
    """What stands under a name: its tasks, what hooks and schedules make, and what it did."""
    assigned = {one["name"]: (one["task"] or {}).get("assignee") for one in client.get("/schedules").data}
    return ([one["id"] for one in client.get(f"/tasks?assignee={name}").data] == [task], assigned == {"daily": name},
            [one["assignee"] for one in client.get("/hooks").data] == [name],
            db.value("SELECT count(*) FROM changelog WHERE agent = :name", name=name) == 1)


def test_what_is_somebodys_follows_them_to_another_name_and_ends_with_them(client, as_):
    ed = as_("ed", "member")
    number = ed.get("/auth/me").data["id"]
    task = client.post("/tasks", {"title": "Call them", "assignee": "ed"}).data["id"]
    over = client.post("/tasks", {"title": "Was done", "assignee": "ed"}).data["id"]
    ed.patch(f"/tasks/{over}", {"status": "done"}), client.patch(f"/tasks/{over}", {"assignee": None})
    client.post("/schedules", {"name": "daily", "cron": "0 8 * * *", "task": {"title": "Look", "assignee": "ed"}})
    client.post("/hooks", {"name": "in", "kind": "none", "title": {"text": "x"}, "assignee": "ed"})
    client.post("/agents", {"name": "robot"})
    assert everything_of(client, "ed", task) == (True,) * 4
    taken = client.patch(f"/users/{number}", {"username": "robot"})
    assert taken.status == 409 and "robot" in taken.error["message"] and everything_of(client, "ed", task) == (True,) * 4
    assert client.patch(f"/users/{number}", {"username": "Eddy"}).status == 200
    assert everything_of(client, "Eddy", task) == (True,) * 4 and everything_of(client, "ed", task) == (False,) * 4
    assert [one["id"] for one in ed.get("/tasks?assignee=me").data] == [task]
    assert client.delete(f"/users/{number}").status == 200
    kept = str([db.all(tuple, f"SELECT * FROM {table}") for table in ("tasks", "schedules", "hooks", "changelog", "activity")])
    assert "Eddy" not in kept and "'ed'" not in kept and '"ed"' not in kept


def test_the_last_administrator_and_the_only_owner_stay(client, as_):
    ann, bob = as_("ann"), as_("bob")
    org = ann.post("/organizations", {"name": "Acme"}).data["id"]
    assert ann.post(f"/organizations/{org}/members", {"user_id": who(bob)}).status == 201
    refused = ann.delete("/users/me")
    assert refused.status == 409 and "Acme" in refused.error["message"]
    with pytest.raises(orkosi.Conflict):
        users.erase(who(client))
    assert client.delete(f"/users/{who(ann)}").status == 200
    assert bob.get(f"/organizations/{org}").data["role"] == "owner", "who stays inherits"
    assert bob.delete("/users/me").status == 200
    assert db.value("SELECT deleted_at IS NOT NULL FROM organizations WHERE id = :id AND tenant_id = :tenant", id=org) == 1


def test_a_founder_leaves_no_name_behind(as_):
    founder = as_("zzcanary", tenant=None)
    tenant = founder.get("/auth/me").data["tenant"]
    assert founder.delete("/users/me").status == 200
    assert db.value("SELECT name FROM tenants WHERE id = :id", id=tenant) == f"Tenant {tenant}"


def test_a_founder_leaves_the_highest_of_those_who_stay_in_charge(as_):
    founder = as_("fay", tenant=None)
    tenant = founder.get("/auth/me").data["tenant"]
    watcher, demo, mo, late = as_("vic", "viewer", tenant), as_("dee", "demo", tenant), as_("mo", "member", tenant), as_("lou", "builder", tenant)
    assert founder.get("/billing/auto-topup").status == 200 and mo.get("/billing/auto-topup").status == 403
    assert founder.delete("/users/me").status == 200
    assert [one.get("/billing/auto-topup").status for one in (watcher, demo, mo, late)] == [403, 403, 200, 403]
    assert [one.get("/notifications").meta["total"] for one in (watcher, mo, late)] == [0, 1, 0]
    assert mo.get("/notifications").data[0]["title"] == "You are in charge now"
    assert mo.delete("/users/me").status == late.delete("/users/me").status == 200
    assert watcher.get("/billing/auto-topup").status == 200, "there is nobody else"
    assert watcher.delete("/users/me").status == 200 and demo.get("/billing/auto-topup").status == 403


def test_an_erasure_that_fails_leaves_all_as_it_was(canary, data, monkeypatch):
    def broken(event, subject, **facts):
        raise ZeroDivisionError
    orkosi.plugins["demo"].listeners.append(("user.erased", (), broken))
    orkosi._heard.clear()
    try:
        with pytest.raises(ZeroDivisionError):
            users.erase(who(canary))
    finally:
        orkosi.plugins["demo"].listeners.pop()
        orkosi._heard.clear()
    assert canary.get("/organizations").meta["total"] == 1 and not (data / "erasures.jsonl").exists()
    assert db.value("SELECT count(*) FROM letters") > 0 and settings.data == data and mail.outbox().exists()


# ── cut short ──


KILLED = """
import os, sys
sys.path.insert(0, {home!r})
import orkosi
orkosi.load()
from orkosi import acting, settings, system
from plugins import storage, users
from plugins.users import erasure
settings.load(data={data!r})
storage.open_data()
real = erasure.{at}
erasure.{at} = lambda *what: (real(*what) if {done} else None, os._exit(9))
with acting(system()):
    users.erase({id})
"""


@pytest.mark.parametrize("at, done", [("_begin", True), ("_record", False), ("_record", True), ("fold", False)])
def test_an_erasure_that_is_killed_is_finished_at_the_next_start(canary, posted, data, at, done):
    deliver(posted, data)
    id = who(canary)
    assert {"outbox", "logs", "orkosi.db-wal"} <= {one.partition("/")[0] for one in traces(data)}
    storage.close_data()
    killed = subprocess.run([sys.executable, "-c", KILLED.format(home=str(orkosi.HOME), data=str(data), at=at, done=done, id=id)],
                            env=os.environ | {"ORKOSI_NO_INSTALL": "1"}, capture_output=True, text=True)
    assert killed.returncode == 9 and traces(data), killed.stderr
    storage.open_data(exclusive=True)
    assert traces(data) == [] and db.value("SELECT 1 FROM users WHERE id = :id", id=id) is None
    assert [json.loads(line)["id"] for line in (data / "erasures.jsonl").read_text().splitlines()] == [id]


def test_an_erasure_whose_record_cannot_be_written_is_finished_in_a_minute(canary, client, posted, data):
    deliver(posted, data)
    id = who(canary)
    (data / "erasures.jsonl").mkdir()
    assert client.delete(f"/users/{id}").status == 200
    assert "erasing" in {one.partition("/")[0] for one in traces(data)}
    (data / "erasures.jsonl").rmdir()
    with acting(system()):
        users.erasure.finish()
    assert traces(data) == [] and json.loads((data / "erasures.jsonl").read_text())["id"] == id


def test_an_erasure_that_cannot_be_noted_is_not_done(canary, client, data):
    id = who(canary)
    (data / "erasing").write_text("no folder")
    assert client.delete(f"/users/{id}").status == 503
    assert canary.get("/organizations").meta["total"] == 1 and not (data / "erasures.jsonl").exists()
    (data / "erasing").unlink()
    assert client.delete(f"/users/{id}").status == 200 and traces(data) == []


def test_an_erasure_whose_commit_failed_is_forgotten(canary, data, monkeypatch):
    id, real = who(canary), users.erasure._begin
    monkeypatch.setattr(users.erasure, "_begin", lambda gone: (real(gone), 1 / 0))
    with pytest.raises(ZeroDivisionError), acting(system()):
        users.erase(id)
    assert list((data / "erasing").iterdir())
    with acting(system()):
        users.erasure.finish()
    assert not list((data / "erasing").iterdir()) and not (data / "erasures.jsonl").exists() and who(canary) == id


# ── what is not theirs, stays ──


@pytest.fixture
def others(client, as_, posted, data):
    """What others have: letters, notifications, activity, log lines and invitations, in two tenants."""
    tom = as_("tom", tenant=None)
    for one in (client, tom):
        org = one.post("/organizations", {"name": "Corp"}).data["id"]
        one.post(f"/organizations/{org}/invites", {"email": "m@corp.example"})
        one.post("/notifications", {"title": "Write to tom@corp.example", "message": "or to m@corp.example, or m@corp.example.org"})
        one.post("/activity-log", {"actor_type": "user", "actor_id": "1", "action": "wrote", "metadata": {"to": "m@corp.example"}})
    with acting(system()):
        db.write(lambda: lines(["mail to tom@corp.example bounced", "mail to m@corp.example bounced", "disk error at felix"]))
    (data / "logs").mkdir(exist_ok=True)
    (data / "logs/orkosi.log").write_text("disk error of m@corp.example and tom@corp.example\n")
    deliver(posted, data)
    deliver(posted, data)

    def everything():
        tables = {name: db.all(dict, f"SELECT * FROM {name}") for name in ("invites", "notifications", "activity", "letters")}
        tables["activity"] = [row for row in tables["activity"] if row["action"] == "wrote"]
        return {**tables, "lines": [row["message"] for row in db.all(dict, "SELECT message FROM log_lines")],
                "outbox": sorted(file.read_bytes() for file in mail.outbox().iterdir()), "log": (data / "logs/orkosi.log").read_text()}
    return everything


@pytest.mark.parametrize("email, name", [("orkosi@localhost", "error"), ("m@corp.example", "felix"), ("to@m", "disk"), ("om@corp.example", "mail")])
def test_an_address_nobody_proved_erases_nothing_of_others(others, application, anonymous, email, name):
    settings.values["registration"] = "open"
    before = others()
    assert before["outbox"] and len(before["invites"]) == 2
    body = {"username": name, "email": email, "password": PASSWORD, "terms_accepted": True, "privacy_accepted": True}
    assert anonymous.post("/auth/register", body).status == 201
    stranger = Client(application, anonymous.post("/auth/login", {"email": email, "password": PASSWORD}).json["token"])
    assert stranger.delete("/users/me").status == 200
    assert others() == before


def test_an_address_that_is_proven_is_erased_as_a_whole_word_and_only_at_home(others, as_, client):
    from plugins.users import invites, people
    ann = as_("ann")
    people.set_role("ann@example.com", "viewer")
    db.write(lambda: db.run("UPDATE users SET email = 'm@corp.example', email_key = 'm@corp.example', email_proven_at = created_at WHERE username = 'ann'"))
    before = others()
    ann.token = users.open_session(db.value("SELECT id FROM users WHERE username = 'ann'"), "test").access
    assert ann.delete("/users/me").status == 200 and invites
    after = others()
    assert after["invites"] == [] and not [one for one in after["outbox"] if b"To: m@corp.example" in one]
    home = {row["tenant_id"]: row for row in after["notifications"]}
    assert home[HOST_TENANT]["message"] == "or to …, or m@corp.example.org" and home[HOST_TENANT]["title"] == "Write to tom@corp.example"
    assert [row for row in after["notifications"] if row["tenant_id"] != HOST_TENANT] == [row for row in before["notifications"] if row["tenant_id"] != HOST_TENANT]
    assert [row["metadata"] for row in after["activity"]] == ['{"to":"…"}', '{"to":"m@corp.example"}']
    assert after["lines"] == ["mail to tom@corp.example bounced", "mail to … bounced", "disk error at felix"]
    assert after["log"] == "disk error of ************** and tom@corp.example\n"


def test_an_address_counts_as_proven_by_the_mail_that_was_answered(client, as_, anonymous, posted):
    def proven(email):
        return db.value("SELECT email_proven_at IS NOT NULL FROM users WHERE email = :email", email=email)
    org = client.post("/organizations", {"name": "Acme"}).data["id"]
    client.post(f"/organizations/{org}/invites", {"email": "ann@example.com"})
    body = {"username": "Ann", "email": "ann@example.com", "password": PASSWORD, "terms_accepted": True, "privacy_accepted": True}
    assert anonymous.post("/auth/register", body | {"invite_code": posted()[0].token}).status == 201 and proven("ann@example.com")
    bob = as_("bob")
    assert not proven("bob@example.com")
    anonymous.post("/auth/forgot-password", {"email": "bob@example.com"})
    assert anonymous.post("/auth/reset-password", {"token": posted()[0].token, "password": "another horse"}).status == 200 and proven("bob@example.com")
    assert client.patch(f"/users/{bob_id(client)}", {"email": "tom@corp.example"}).status == 200 and not proven("tom@corp.example")
    assert bob.get("/auth/me").status == 401


def bob_id(client):
    return next(one["id"] for one in client.get("/users").data if one["username"] == "bob")
