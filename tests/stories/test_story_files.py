"""Stories of files: what the disk has and what clients recorded, listed, read and searched."""
import hashlib
import os

import pytest
from conftest import listed, put

from plugins.files.sync import Sync

TIMES = {"created_at": "2026-11-02T10:00:00.000Z", "updated_at": "2026-11-03T10:00:00.000Z"}


def stored(id, home=1, content="Grow slowly", **fields):
    """A file as it is stored, and as a list shows it."""
    shown = {"name": f"Plan {id}", "path": f"plans/{id}.md", "workspace": None, "file_type": "text/markdown", "ext": "md", "category": "docs", "size": 11,
             "hash": None, "synced": False, "modified_at": None} | TIMES | fields
    put("files", **shown | {"id": id, "tenant_id": home, "content": content, "synced": int(shown["synced"])})
    return {"id": id} | shown


@pytest.mark.story("GET /api/files", "GET /api/files/{id}")
def test_files_are_listed_without_and_read_with_their_content(client):
    one = stored(1)
    two = stored(2, path="agents/felix/workspace/app.py", workspace="felix", file_type="text/x-python", ext="py", category="code", content=None, hash="abc",
                 synced=True, modified_at="2026-11-01T10:00:00.000Z")
    three = stored(3, category="strategy")
    stored(4, home=2)
    assert listed(client, "/files", [three, two, one])
    assert listed(client, "/files?category=code", [two]) and listed(client, "/files?category=none", [])
    assert client.get("/files?limit=1&page=3").json == {"data": [one], "meta": {"total": 3, "limit": 1, "offset": 2, "has_more": False, "next_after": None}}
    assert client.get("/files/1").json == {"data": one | {"content": "Grow slowly"}}
    assert client.get("/files/2").json == {"data": two | {"content": None}}


@pytest.mark.story("GET /api/files/search")
def test_a_search_finds_words_in_names_and_contents(client):
    one, two = stored(1), stored(2, name="growth.py", ext="py", category="code", workspace="felix", content=None, hash="abc", synced=True,
                                 modified_at="2026-11-01T10:00:00.000Z", file_type=None)
    three = stored(3, content="far " * 30 + "and then grow " + "more " * 40)
    stored(4, name="Other", content="nothing"), stored(5, home=2)
    one["excerpt"], two["excerpt"] = "Grow slowly", None
    three["excerpt"] = "…" + "far " * 12 + "and then grow " + "more " * 22 + "more…"
    assert listed(client, "/files/search?q=gro", [three, two, one], default=1000)
    for query, found in [("workspace=felix", [two]), ("category=docs", [three, one]), ("ext=py", [two]), ("ext=py&category=docs", [])]:
        assert listed(client, f"/files/search?q=gro&{query}", found, default=1000)
    assert listed(client, "/files/search?q=grow+slowly", [one], default=1000) and listed(client, "/files/search", [], default=1000)


@pytest.mark.story("GET /api/files/{id}", "GET /api/files", "GET /api/files/search")
def test_a_file_on_the_disk_is_shown_as_it_stands_there(client, data, lately):
    file = data / "agents/felix/workspace/memory/notes.md"
    file.parent.mkdir(parents=True)
    file.write_text("Remember the milk")
    os.utime(file, (86400, 86400))
    Sync(data).round()
    found, = client.get("/files").data
    assert found == {"id": found["id"], "name": "notes.md", "path": "agents/felix/workspace/memory/notes.md", "workspace": "felix", "file_type": "text/markdown",
                     "ext": "md", "category": "memory", "size": 17, "hash": found["hash"], "synced": True, "modified_at": "1970-01-02T00:00:00.000Z",
                     "created_at": lately, "updated_at": lately}
    assert found["hash"] in {make(b"Remember the milk").hexdigest() for make in (hashlib.sha256, hashlib.blake2b)}
    assert client.get(f"/files/{found['id']}").data == found | {"content": "Remember the milk"}
    assert client.get("/files/search?q=milk").data == [found | {"excerpt": "Remember the milk"}]


@pytest.mark.story("POST /api/files")
def test_a_recorded_file_is_what_was_sent(client, data, lately):
    full = {"name": "The plan", "path": "plans/2027.MD", "file_type": "text/plain", "category": "strategy", "content": "Wächst"}
    told = {"workspace": None, "hash": None, "synced": False, "modified_at": None, "created_at": lately, "updated_at": lately}
    made = client.post("/files", full)
    assert (made.status, made.json) == (201, {"data": full | told | {"id": made.data["id"], "ext": "md", "size": 7}})
    bare = client.post("/files", {"name": "x", "path": "./agents/otto//run.py"}).data
    assert bare == told | {"id": made.data["id"] + 1, "name": "x", "path": "agents/otto/run.py", "workspace": "otto", "file_type": "text/x-python", "ext": "py",
                           "category": "code", "size": 0, "content": None}
    assert [client.get(f"/files/{one['id']}").data for one in (made.data, bare)] == [made.data, bare] and not (data / "plans").exists()
    again = client.post("/files", {"name": "y", "path": "plans/2027.MD"}).data
    assert again == client.get(f"/files/{made.data['id']}").data and again == made.data | {"name": "y", "updated_at": lately}


@pytest.mark.story("GET /api/files/{id}/versions", "GET /api/files/{id}/diff")
def test_what_a_file_said_before(client):
    path, at = "agents/felix/workspace/a.txt", lambda n: f"2026-11-02T10:00:0{n}.000Z"  # noqa: E731
    put("files", id=5, tenant_id=1, name="a.txt", path=path, workspace="felix", content="one\nthree\n", size=10, synced=1, created_at=at(0), updated_at=at(4))
    for id, (content, start, end, home, where) in enumerate((("one\n", 1, 2, 1, path), (None, 2, 3, 1, path), ("one\ntwo\n", 3, 4, 1, path), ("x", 1, 2, 2, path), ("y", 1, 2, 1, "b")), 11):
        put("file_versions", id=id, tenant_id=home, path=where, workspace="felix", content=content, since=at(start), until=at(end))
    assert client.get("/files/5/versions").json == {"data": [
        {"id": None, "since": at(4), "until": None, "bytes": 10, "kept": True}, {"id": 13, "since": at(3), "until": at(4), "bytes": 8, "kept": True},
        {"id": 12, "since": at(2), "until": at(3), "bytes": None, "kept": False}, {"id": 11, "since": at(1), "until": at(2), "bytes": 4, "kept": True}]}
    head = f"--- a/{path}\n+++ b/{path}\n"
    assert client.get("/files/5/diff?from=11").json == {"data": {"path": path, "from_version": 11, "to_version": None, "diff": head + "@@ -1 +1,2 @@\n one\n+three"}}
    assert client.get("/files/5/diff?from=13&to=11").data == {"path": path, "from_version": 13, "to_version": 11, "diff": head + "@@ -1,2 +1 @@\n one\n-two"}
    assert client.get("/files/5/diff?from=12").status == 422
    assert client.get("/files/5/diff").data == {"path": path, "from_version": 13, "to_version": None, "diff": head + "@@ -1,2 +1,2 @@\n one\n-two\n+three"}
    put("files", id=6, tenant_id=1, name="n", path="n", created_at=at(0), updated_at=at(4))
    assert client.get("/files/6/diff").status == 404
    assert client.get("/files/5/diff?from=14").status == client.get("/files/5/diff?from=15").status == client.get("/files/9/versions").status == 404


@pytest.mark.story("DELETE /api/files/{id}")
def test_what_was_recorded_is_forgotten(client):
    kept, gone = (client.post("/files", {"name": name, "path": name, "content": "x"}).data["id"] for name in ("a", "b"))
    assert client.delete(f"/files/{gone}").json == {"data": {"deleted": True, "id": gone}} and client.delete(f"/files/{gone}").status == 404
    assert [one["id"] for one in client.get("/files").data] == [kept]
    put("files", id=50, tenant_id=1, name="c", path="c", synced=1, created_at="2026-11-02T10:00:00.000Z", updated_at="2026-11-02T10:00:00.000Z")
    assert client.delete("/files/50").status == 409 and client.get("/files/50").status == 200
