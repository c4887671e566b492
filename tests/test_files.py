"""Files: the sync against everything an agent may do in its workspace, and the wire."""
import os
import threading
import time
from urllib.parse import quote

import pytest
from conftest import eventually

from orkosi import acting, db, settings, system
from plugins import files, folders
from plugins.files import sync
from plugins.files.sync import Sync


@pytest.fixture
def workspace(data):
    """Agent felix's workspace."""
    made = data / "agents/felix/workspace"
    made.mkdir(parents=True)
    return made


def put(file, content="text"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def rows():
    return {path.removeprefix("agents/felix/workspace/"): content for path, content in
            db.all(tuple, "SELECT path, content FROM files WHERE tenant_id = :tenant ORDER BY path")}


# ── the disk ──


def test_a_workspace_becomes_rows(client, data, workspace):
    put(workspace / "SOUL.md", "I am Felix")
    put(workspace / "src/app.py", "print()")
    Sync(data).round()
    assert rows() == {"SOUL.md": "I am Felix", "src/app.py": "print()"}
    found = client.get("/files/search?q=felix").data[0]
    assert (found["path"], found["workspace"], found["category"], found["ext"], found["synced"], found["excerpt"]) == (
        "agents/felix/workspace/SOUL.md", "felix", "identity", "md", True, "I am Felix")
    assert client.get(f"/files/{found['id']}").data["content"] == "I am Felix"


def test_changes_renames_and_deletions_follow(data, workspace):
    kept = Sync(data)
    put(workspace / "a.md", "one")
    put(workspace / "b.md", "two")
    kept.round()
    id = db.value("SELECT id FROM files WHERE name = 'a.md' AND tenant_id = :tenant")
    put(workspace / "a.md", "three")
    (workspace / "b.md").rename(workspace / "c.md")
    kept.round()
    assert rows() == {"a.md": "three", "c.md": "two"}
    assert db.value("SELECT id FROM files WHERE name = 'a.md' AND tenant_id = :tenant") == id
    assert len(files.search(files.SearchQuery(q="one")).items) == 0
    (workspace / "a.md").unlink()
    Sync(data).round()  # also what went away while nobody looked
    assert rows() == {"c.md": "two"}


def test_the_end_of_watching_is_no_error(tmp_path, caplog):
    for number in range(60):  # it came in a fifth of them
        folder = tmp_path / str(number)
        folder.mkdir()
        bell = folders.Bell(recursive=True)
        bell.watch([folder])
        (folder / "a").write_text("x")
        bell.close()
    assert not caplog.records


def test_an_unchanged_file_is_not_read_again(data, workspace, monkeypatch):
    read = []
    monkeypatch.setattr(sync, "look", lambda path, *more, real=sync.look: read.append(path) or real(path, *more))
    put(workspace / "a.md")
    kept = Sync(data)
    kept.round()
    kept.round()
    Sync(data).round()
    assert len(read) == 1
    os.utime(workspace / "a.md", (1, 1))  # touched: read, but its content is not written again
    before = db.one(dict, "SELECT * FROM files WHERE tenant_id = :tenant")
    kept.round()
    after = db.one(dict, "SELECT * FROM files WHERE tenant_id = :tenant")
    assert (len(read), after["updated_at"], after["modified_at"]) == (2, before["updated_at"], "1970-01-01T00:00:01.000Z")


@pytest.mark.parametrize("name", ["id_rsa", "id_ed25519.pub", "server.key", "CERT.PEM", "a.p12", ".env", ".env.local", "prod.env", "credentials.json",
                                  "Credentials", "sub/id_rsa", "credentials/token.txt", ".env.d/token.txt"])
def test_what_looks_like_a_secret_is_left_out(client, data, workspace, name):
    put(workspace / name, "hunter2")
    put(workspace / "notes.md", "hunter2")
    Sync(data).round()
    assert rows() == {"notes.md": "hunter2"}
    assert [one["name"] for one in client.get("/files/search?q=hunter2").data] == ["notes.md"]
    settings.values["sync_leave_out"] = "notes.*"
    Sync(data).round()
    assert rows() == {name: "hunter2"}, "what is left out is a setting, and what was there before goes"


WORST = {"one letter, over and over": "a " * (1 << 19), "one word without an end": "a" * (1 << 20), "letters and hits far on": "b " * 60_000 + "a " * 400_000,
         "words that begin alike": " ".join(f"a{number}" for number in range(140_000))}


@pytest.mark.parametrize("content", WORST.values(), ids=WORST)
@pytest.mark.slow
def test_a_search_takes_as_long_as_the_files_are(client, data, workspace, content):
    """snippet() took minutes for one such file, and no deadline stopped it."""
    for number in range(10):
        put(workspace / f"{number}.txt", content[:1 << 20])
    Sync(data).round()
    began = time.process_time()
    for q in ("a", "a a a a a a a a", "a á â ã ä å ā ă", "a b"):
        assert client.get(f"/files/search?q={quote(q)}&limit=200").status == 200
    assert time.process_time() - began < 2


@pytest.mark.parametrize("content, q, excerpt", [
    ("Felix fixes the fax", "fix", "Felix fixes the fax"), ("a short one", "nothing", None), ("x " * 100 + "here it is " + "y " * 200, "here", "…"),
    ("line\nof\tmany   gaps", "many", "line of many gaps"), ("word " * 20_000 + "needle", "needle", "word word"), ("Änderung am Haus", "ander", "Änderung am Haus")])
def test_the_excerpt_shows_where_it_is(client, data, workspace, content, q, excerpt):
    put(workspace / "a.txt", content)
    Sync(data).round()
    found = client.get(f"/files/search?q={q}").data
    if excerpt is None:
        assert found == []
        return
    said = found[0]["excerpt"]
    assert set(found[0]) == {"id", "name", "path", "workspace", "file_type", "ext", "category", "size", "hash", "synced", "modified_at", "created_at",
                             "updated_at", "excerpt"}
    assert len(said) <= 190 and (said == excerpt or (excerpt == "…" and said.startswith("…x") and "here it is y" in said and said.endswith("…"))
                                 or (excerpt == "word word" and said.startswith("word word") and said.endswith("…")))


@pytest.mark.parametrize("name, content, kept", [
    ("a.txt", "é", True),
    ("empty.txt", "", True),
    ("nul.txt", b"a\0b", False),
    ("latin.txt", b"\xe9", False),
    ("long.txt", "x" * (1 << 20), True),
    ("longer.txt", "x" * (1 << 20) + "x", False),
])
def test_which_content_is_kept(data, workspace, name, content, kept):
    put(workspace / name, content)
    Sync(data).round()
    row = db.one(dict, "SELECT * FROM files WHERE tenant_id = :tenant")
    assert (row["content"] is not None) is kept
    assert row["size"] == (workspace / name).stat().st_size and row["hash"]


def test_a_huge_file_has_a_row_and_no_more(data, workspace):
    with open(workspace / "model.bin", "wb") as file:
        file.truncate(9 << 20)
    Sync(data).round()
    row = db.one(dict, "SELECT * FROM files WHERE tenant_id = :tenant")
    assert (row["size"], row["content"], row["hash"]) == (9 << 20, None, None)


def test_nothing_outside_the_workspace_is_read(data, workspace, tmp_path):
    put(tmp_path / "outside/secret.md", "secret")
    put(workspace / "own.md", "own")
    (workspace / "link.md").symlink_to(tmp_path / "outside/secret.md")
    (workspace / "folder").symlink_to(tmp_path / "outside")
    os.link(tmp_path / "outside/secret.md", workspace / "hard.md")
    os.mkfifo(workspace / "pipe.md")
    put(workspace / "state.db", "SQLite")
    put(workspace / ".git/config", "git")
    put(workspace / "node_modules/x/y.js", "js")
    put(workspace / "bad\nname.md", "x")
    (data / "agents/mallory").mkdir()
    (data / "agents/mallory/workspace").symlink_to(tmp_path / "outside")
    (data / "agents/trudy").symlink_to(tmp_path / "outside")
    Sync(data).round()
    assert rows() == {"own.md": "own"}


def test_a_link_that_takes_a_files_place_is_not_followed(data, workspace, tmp_path, monkeypatch):
    put(tmp_path / "secret.md", "secret")
    put(workspace / "a.md", "a")

    def swap(path, name, parent, real=sync.look):
        (workspace / "a.md").unlink()
        (workspace / "a.md").symlink_to(tmp_path / "secret.md")
        return real(path, name, parent)
    monkeypatch.setattr(sync, "look", swap)
    Sync(data).round()
    assert rows() == {}


@pytest.mark.slow
def test_the_observer_follows_what_happens(data):
    stop = threading.Event()

    def serve():
        with acting(system()):
            sync.follow(stop)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        workspace = data / "agents/felix/workspace"
        put(workspace / "a.md", "one")
        eventually(lambda: rows() == {"a.md": "one"})
        put(workspace / "deep/er/b.md", "two")
        eventually(lambda: rows() == {"a.md": "one", "deep/er/b.md": "two"})
        (workspace / "deep").rename(workspace / "other")
        (workspace / "a.md").unlink()
        eventually(lambda: rows() == {"other/er/b.md": "two"})
    finally:
        stop.set()
        thread.join(5)
    assert not thread.is_alive()


# ── the wire ──

NEW = {"name": "Plan", "path": "plans/2027.md", "content": "Grow slowly"}


@pytest.mark.parametrize("body, status", [
    (NEW, 201),
    ({"name": "x", "path": "x"}, 201),
    (NEW | {"path": "./plans//2027.md"}, 201),
    (NEW | {"path": "/etc/passwd"}, 400),
    (NEW | {"path": "../x"}, 400),
    (NEW | {"path": "a/../../x"}, 400),
    (NEW | {"path": "a/.."}, 400),
    (NEW | {"path": "~/x"}, 400),
    (NEW | {"path": "a\\b"}, 400),
    (NEW | {"path": "C:x"}, 400),
    (NEW | {"path": "a\nb"}, 400),
    (NEW | {"path": "."}, 400),
    (NEW | {"path": ""}, 400),
    (NEW | {"path": "x" * 1025}, 400),
    (NEW | {"content": "x" * ((1 << 20) + 1)}, 400),
    (NEW | {"tenant_id": 2}, 400),
    ({"name": "x"}, 400),
])
def test_recording_a_file(client, body, status):
    assert client.post("/files", body).status == status


def test_recording_again_replaces(client):
    first = client.post("/files", NEW).data
    again = client.post("/files", NEW | {"path": "plans/./2027.md", "content": "Grow", "category": "strategy"}).data
    assert (again["id"], again["path"], again["content"], again["category"]) == (first["id"], "plans/2027.md", "Grow", "strategy")
    assert client.get("/files?category=strategy").meta["total"] == 1


def test_what_the_disk_has_is_not_overwritten(client, data, workspace):
    put(workspace / "a.md", "one")
    Sync(data).round()
    assert client.post("/files", NEW | {"path": "agents/felix/workspace/a.md"}).status == 409
    client.post("/files", NEW | {"path": "agents/felix/workspace/b.md"})
    put(workspace / "b.md", "from the disk")
    kept = Sync(data)
    kept.round()
    assert rows()["b.md"] == "from the disk"


@pytest.mark.parametrize("on_disk, told", [("caf\u00e9.md", "cafe\u0301.md"), ("cafe\u0301.md", "caf\u00e9.md")])
def test_one_name_in_two_spellings_is_one_file(client, data, workspace, on_disk, told):
    put(workspace / on_disk, "one")
    Sync(data).round()
    assert client.post("/files", NEW | {"path": f"agents/felix/workspace/{told}"}).status == 409
    first = client.post("/files", NEW | {"path": f"plans/{on_disk}"}).data
    again = client.post("/files", NEW | {"path": f"plans/{told}", "content": "Grow"}).data
    assert (again["id"], again["path"], again["content"]) == (first["id"], f"plans/{on_disk}", "Grow")


def test_another_tenants_files_are_not_there(client, as_):
    olga = as_("olga", tenant=None)
    id = client.post("/files", NEW).data["id"]
    assert (olga.get(f"/files/{id}").status, olga.get("/files").data, olga.get("/files/search?q=grow").data) == (404, [], [])
    assert olga.post("/files", NEW).data["id"] != id


def test_lists_page_and_searches_narrow(client):
    for number in range(5):
        client.post("/files", {"name": f"Report {number}", "path": f"reports/{number}.{'md' if number % 2 else 'py'}", "content": "grow"})
    page = client.get("/files?limit=2&page=2")
    assert ([one["name"] for one in page.data], page.meta["offset"], "content" in page.data[0]) == (["Report 2", "Report 1"], 2, False)
    for query, count in [("q=report", 5), ("q=grow&ext=md", 2), ("q=gro&category=code", 3), ("q=grow&workspace=felix", 0),
                         ("q=", 0), ("", 0), ('q="-*', 0), ("q=NEAR(", 0)]:
        assert len(client.get(f"/files/search?{query}").data) == count, query
    for query in ("page=0", "limit=0", "limit=201", "path=x"):
        assert client.get(f"/files?{query}").status == 400, query
    assert (client.get("/files/99").status, client.get("/files/x").status) == (404, 400)


@pytest.mark.parametrize("role, scopes, status", [
    ("member", None, 200), ("viewer", None, 403), ("demo", None, 403),
    (None, ("files:read",), 200), (None, ("tasks:read",), 403)])
def test_reading_takes_a_member_or_a_scope(as_, key_for, role, scopes, status):
    ann = as_("ann", role) if role else key_for(*scopes)
    assert ann.get("/files").status == ann.get("/files/search").status == status


def test_the_search_over_everything_finds_files(client):
    client.post("/files", NEW)
    assert [hit.title for hit in files.hits("grow", 5)] == ["Plan"]
