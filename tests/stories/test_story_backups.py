"""Stories of backups: what each operation answers, with the file, the database and the remote looked at in another way."""
import hashlib
import json
import os
import subprocess

import apsw
import pytest
from browser import required
from conftest import Like, listed

from orkosi import acting, db, settings, system
from plugins import backups, doctor, queue
from plugins.queue import executor

NAME = r"orkosi-\d{8}-\d{6}(-\d+)?-manual\.backup"


def work():
    """Do the server's own jobs that wait."""
    with acting(system()):
        while jobs := queue.claim(queue.OWN, "w"):
            for job in jobs:
                executor.run(job)


@pytest.fixture
def made(client):
    """A backup of a small company: its name."""
    client.post("/agents", {"name": "felix"})
    (settings.data / "agents/felix/workspace/note.txt").write_text("all of it")
    client.post("/tasks", {"title": "Count the gulls", "assignee": "felix"})
    name = client.post("/backups/trigger").data["filename"]
    work()
    return name


def rows_of(file):
    con = apsw.Connection(str(file))
    tables = [name for name, sql in con.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'")
              if not sql.startswith("CREATE VIRTUAL") and "_fts_" not in name and not name.startswith("sqlite_")]
    return sum(con.execute(f'SELECT count(*) FROM "{name}"').fetchall()[0][0] for name in tables)


@pytest.mark.story("POST /api/backups/trigger", "GET /api/backups")
def test_a_backup_is_made_once_verified_and_listed(client, lately):
    before = [db.value(f"SELECT count(*) FROM {name} WHERE :tenant") for name in ("tasks", "users")]
    assert before[1] == 1
    first, second = client.post("/backups/trigger"), client.post("/backups/trigger")
    assert first.json == second.json == {"data": {"job_id": Like(r"job_\d+"), "filename": Like(NAME), "status": "waiting"}}
    assert client.get("/backups").data == []
    with acting(system()):
        place = settings.data / "twin"
        place.mkdir()
    work()
    name = first.data["filename"]
    raw = (settings.data / "backups" / name).read_bytes()
    assert sorted(os.listdir(settings.data / "backups")) == [name, f"{name}.json"], "nothing half made lies about"
    shown = client.get("/backups").data[0]
    assert listed(client, "/backups", [shown], default=1000)
    assert shown == {"filename": name, "kind": "manual", "size_bytes": len(raw), "created_at": lately, "sha256": hashlib.sha256(raw).hexdigest(),
                     "schema": int(db.writer.pragma("user_version")), "rows": shown["rows"], "encrypted": True, "verified_at": lately,
                     "verification": "ok", "offsite": "none",
                     "includes": ["database", "logs", "workspaces", "products", "workers", "settings", "vault"]}
    unpacked = settings.data / "twin"
    backups.restoring.unpack(backups.at(name), unpacked, backups.restoring.key_of(backups.at(name)))
    assert shown["rows"] == rows_of(unpacked / "orkosi.db") + rows_of(unpacked / "logs.db") > 3
    assert b"Count" not in raw and b"sqlite" not in raw.lower(), "nothing of it can be read"
    third = client.post("/backups/trigger").data
    assert third["job_id"] != first.data["job_id"] and third["filename"] != name
    work()
    assert [one["filename"] for one in client.get("/backups").data] == [third["filename"], name], "the newest first"
    assert [one["filename"] for one in client.get(f"/backups?limit=1&after={client.get('/backups?limit=1').meta['next_after']}").data] == [name]


@pytest.mark.story("GET /api/backups/stats")
def test_the_sums_of_backups(client, lately):
    founded = db.value("SELECT created_at FROM tenants WHERE id = :tenant")
    settings.values["backup_hours"] = 2.0
    nothing = client.get("/backups/stats").data
    assert nothing == {"count": 0, "total_bytes": 0, "last_backup_at": None, "next_backup_at": nothing["next_backup_at"], "last_verified_at": None,
                       "last_drill": None, "recovery_key_confirmed_at": None}
    assert orkosi_seconds(nothing["next_backup_at"]) == pytest.approx(orkosi_seconds(founded) + 7200, abs=1)
    client.post("/backups/trigger")
    work()
    with acting(system()):
        from plugins import vault
        vault.confirm(vault.recovery_key()[-4:])
        backups.verify(backups.everything()[0].filename, drill=True)
    work()
    one = client.get("/backups").data[0]
    shown = client.get("/backups/stats").data
    assert shown == {"count": 1, "total_bytes": one["size_bytes"], "last_backup_at": one["created_at"], "next_backup_at": shown["next_backup_at"],
                     "last_verified_at": one["verified_at"], "last_drill": {"at": lately, "seconds": shown["last_drill"]["seconds"], "ok": True},
                     "recovery_key_confirmed_at": lately}
    assert orkosi_seconds(shown["next_backup_at"]) == pytest.approx(orkosi_seconds(one["created_at"]) + 7200, abs=1)
    assert 0 <= shown["last_drill"]["seconds"] < 30
    settings.values["backup_hours"] = 0.0
    assert client.get("/backups/stats").data["next_backup_at"] is None


def orkosi_seconds(stamp):
    from datetime import datetime
    return datetime.fromisoformat(stamp).timestamp()


@pytest.mark.story("POST /api/backups/{filename}/verify")
def test_verifying_restores_it_and_says_what_came_of_that(client, made, lately):
    path = settings.data / "backups" / made
    asked = client.post(f"/backups/{made}/verify")
    assert asked.json == {"data": {"job_id": Like(r"job_\d+"), "filename": made, "status": "waiting"}}
    assert client.post(f"/backups/{made}/verify").data == asked.data
    work()
    assert (client.get("/backups").data[0]["verification"], client.get("/backups").data[0]["verified_at"]) == ("ok", lately)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    client.post(f"/backups/{made}/verify")
    work()
    assert client.get("/backups").data[0]["verification"] == "failed"
    told = client.get("/notifications").data[0]
    assert (told["type"], told["source"]) == ("error", "backups") and made in told["title"] and "damaged" in told["message"]
    for name, status in [("x", 400), ("orkosi-20200101-000000-manual.backup", 404), ("..", 400), ("a" * 200, 400)]:
        assert client.post(f"/backups/{name}/verify").status == status, name
    (settings.data / "backups" / "before-upgrade-9-20261126120000.db").write_bytes(b"SQLite format 3\0")
    assert client.post("/backups/before-upgrade-9-20261126120000.db/verify").status == 409


@pytest.mark.story("GET /api/backups/{filename}/download")
def test_a_download_is_the_file_whole_or_in_part(client, made):
    raw = (settings.data / "backups" / made).read_bytes()
    whole = client.get(f"/backups/{made}/download")
    assert (whole.status, whole.body) == (200, raw)
    assert {name: whole.headers[name] for name in ("Content-Type", "Content-Length", "Content-Disposition", "Accept-Ranges", "Cache-Control")} == {
        "Content-Type": "application/octet-stream", "Content-Length": str(len(raw)), "Content-Disposition": f'attachment; filename="{made}"',
        "Accept-Ranges": "bytes", "Cache-Control": "no-store"}
    for asked, start, end in [("bytes=0-9", 0, 10), ("bytes=5-5", 5, 6), ("bytes=100-", 100, len(raw)), ("bytes=-7", len(raw) - 7, len(raw)),
                              (f"bytes=9-{10 ** 15}", 9, len(raw)), (f"bytes=-{10 ** 15}", 0, len(raw))]:
        part = client.get(f"/backups/{made}/download", headers={"Range": asked})
        assert (part.status, part.body, part.headers["Content-Range"]) == (206, raw[start:end], f"bytes {start}-{end - 1}/{len(raw)}"), asked
    for asked in (f"bytes={len(raw)}-", "bytes=9-3", "bytes=-0"):
        refused = client.get(f"/backups/{made}/download", headers={"Range": asked})
        assert (refused.status, refused.code, refused.headers["Content-Range"]) == (416, "range_not_satisfiable", f"bytes */{len(raw)}"), asked
    for asked in ("bytes=0-1,4-5", "lines=1-2", "bytes=-", "x"):
        assert client.get(f"/backups/{made}/download", headers={"Range": asked}).body == raw, asked
    assert client.request("HEAD", f"/backups/{made}/download").headers["Content-Length"] == str(len(raw))
    os.remove(settings.data / "backups" / made)
    os.symlink("/etc/passwd", settings.data / "backups" / made)
    assert client.get(f"/backups/{made}/download").status == 404 and client.get("/backups").data == []


@pytest.mark.story("DELETE /api/backups/{filename}")
def test_deleting_says_where_it_was_the_last_good_one(client, made):
    client.post("/backups/trigger")
    work()
    newer = client.get("/backups").data[0]["filename"]
    assert client.delete(f"/backups/{made}").json == {"data": {"deleted": True, "id": made}}
    gone = client.delete(f"/backups/{newer}").json
    assert gone["data"] == {"deleted": True, "id": newer} and "newest backup that is verified" in gone["meta"]["warnings"][0]
    assert os.listdir(settings.data / "backups") == [] and client.delete(f"/backups/{newer}").status == 404


# ── off the machine ──


@pytest.fixture
def remote(tmp_path, application):
    required("git", "git")
    path = tmp_path / "remote.git"
    subprocess.run(["git", "init", "--bare", "-q", str(path)], check=True)
    settings.values["backup_remote"] = str(path)
    return path


def on(remote, *arguments):
    return subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@example.com", "-C", str(remote), *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.story("GET /api/backups/github-status", "GET /api/backups/logs")
def test_the_remote_has_what_is_kept_and_no_more(client, remote, lately):
    settings.values["backup_remote"] = ""
    assert client.get("/backups/github-status").data == dict.fromkeys(
        ("remote", "branch", "latest", "local_latest", "in_sync", "behind", "last_pushed_at", "last_error")) | {"configured": False}
    assert client.get("/backups/logs").data == {"lines": []}
    settings.values["backup_remote"] = str(remote)
    names = []
    for _ in range(3):
        names.insert(0, client.post("/backups/trigger").data["filename"])
        work()
    shown = client.get("/backups/github-status").data
    assert shown == {"configured": True, "remote": str(remote), "branch": "backups", "latest": {"filename": names[0], "committed_at": lately},
                     "local_latest": names[0], "in_sync": True, "behind": 0, "last_pushed_at": lately, "last_error": None}
    assert [one["offsite"] for one in client.get("/backups").data] == ["pushed"] * 3
    assert on(remote, "ls-tree", "--name-only", "backups").splitlines() == sorted([*names, "index.json"])
    assert on(remote, "rev-list", "--count", "backups") == "1", "one commit, which is rewritten"
    index = json.loads(on(remote, "show", "backups:index.json"))
    assert [(one["filename"], one["sha256"]) for one in index] == [(name, hashlib.sha256((settings.data / "backups" / name).read_bytes()).hexdigest())
                                                                   for name in names]
    raw = subprocess.run(["git", "-C", str(remote), "cat-file", "blob", f"backups:{names[0]}/00000"], capture_output=True, check=True).stdout
    assert raw == (settings.data / "backups" / names[0]).read_bytes()
    client.delete(f"/backups/{names[1]}")
    with acting(system()):
        backups.offsite.push()
    assert on(remote, "ls-tree", "--name-only", "backups").splitlines() == sorted([names[0], names[2], "index.json"])
    lines = client.get("/backups/logs").data["lines"]
    assert len(lines) == 4 and all(str(remote) in line for line in lines) and "pushed 2 backups" in lines[-1] and names[0] in lines[-1]
    assert "logs/offsite_backup.log" in [one["path"] for one in client.get("/logs/files").data]
    # Somebody else writes to the branch: it is seen, and put right by the next push.
    other = on(remote, "commit-tree", on(remote, "rev-parse", "backups^{tree}"), "-m", "x")
    on(remote, "update-ref", "refs/heads/backups", other)
    odd = client.get("/backups/github-status").data
    assert (odd["latest"], odd["in_sync"]) == (None, False) and "rewritten by somebody else" in odd["last_error"] and other[:12] in odd["last_error"]


@pytest.mark.story("GET /api/backups/github-status")
def test_a_backup_that_cannot_be_restored_counts_for_nothing_beside_the_remote(client, remote, made):
    client.post("/backups/trigger"), work()
    good = client.get("/backups").data[0]["filename"]
    bad = settings.data / "backups" / "orkosi-20991231-235959-manual.backup"
    bad.write_bytes(b"no backup")
    spoilt = client.post("/backups/trigger").data["filename"]
    work()
    raw = bytearray((settings.data / "backups" / spoilt).read_bytes())
    raw[len(raw) // 2] ^= 1
    (settings.data / "backups" / spoilt).write_bytes(raw)
    with acting(system()):
        assert not backups.prove(spoilt)
        backups.offsite.push()
    shown = client.get("/backups/github-status").data
    assert (shown["local_latest"], shown["latest"]["filename"], shown["behind"], shown["in_sync"]) == (good, good, 0, True)
    with acting(system()):
        told = [(one.state, one.detail) for one in doctor.copies()]
    assert told[0] == ("fail", "the newest cannot be restored") and told[1][1].startswith("the newest that is good is 0 h old, ok") and good in told[2][1]
    for one in client.get("/backups").data:
        if one["filename"] not in (spoilt, bad.name):
            client.delete(f"/backups/{one['filename']}")
    assert [one.detail for one in doctor.copies()] == ["the newest cannot be restored", "there is none that can be restored"]


@pytest.mark.story("GET /api/backups/github-status", "GET /api/backups/logs")
def test_a_remote_that_fails_is_shown_and_holds_nothing_up(client, remote, tmp_path):
    for url, said in [(str(tmp_path / "nowhere.git"), "nowhere.git"), ("https://somebody:secret@127.0.0.1:9/x.git", "127.0.0.1"),
                      ("ext::sh -c touch% /tmp/orkosi-owned", "ext"), ("--upload-pack=touch /tmp/orkosi-owned", "no address")]:
        settings.values["backup_remote"] = url
        name = client.post("/backups/trigger").data["filename"]
        work()
        assert next(one for one in client.get("/backups").data if one["filename"] == name)["offsite"] == "failed", url
        shown = client.get("/backups/github-status").data
        assert shown["in_sync"] is False and said in shown["last_error"] and "secret" not in json.dumps(shown), url
        lines = client.get("/backups/logs").data["lines"]
        assert "ERROR the push to" in lines[-1] and said in lines[-1] and "secret" not in "".join(lines), url
    assert not os.path.exists("/tmp/orkosi-owned") and client.get("/backups/stats").data["count"] == 4
