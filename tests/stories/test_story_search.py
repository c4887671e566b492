"""Stories of the search over everything: each group by what its own list would show, exact numbers and slugs first."""
import pytest
from conftest import put

from orkosi import now

OLD = "2026-11-02T10:00:00.000Z"
EMPTY = {"tasks": [], "products": [], "agents": [], "files": [], "logs": []}


@pytest.fixture
def company(client):
    for id, title, home, job in ((53430, "Paint the boat", 1, 77), (12, "Sell the boat 53430", 1, None), (13, "Their boat", 2, None)):
        put("tasks", id=id, tenant_id=home, title=title, title_key=title, status="todo" if id != 12 else "blocked", job_id=job, assignee="felix" if id == 12 else None,
            created_by="system", created_at=OLD, updated_at=OLD)
    for slug, name, home in (("boat", "Boats & more", 1), ("a-boat-shop", "A boat shop", 1), ("boat-theirs", "Boat", 2)):
        put("products", tenant_id=home, name=name, slug=slug, tagline=f"of {slug}", folded=f"{name} {slug}".lower(), created_at=OLD, updated_at=OLD)
    for name, role, home in (("boatswain", "crew", 1), ("boat", "builder", 1), ("felix", "boat painter", 1), ("boaty", "x", 2)):
        put("agents", tenant_id=home, name=name, display_name=name.title(), role=role, created_at=OLD, updated_at=OLD)
    put("files", id=5, tenant_id=1, name="boat.md", path="notes/boat.md", content="All of the boat", created_at=OLD, updated_at=OLD)
    for id in (1, 2):
        put("log_lines", id=id, source="db", agent="felix", level="error", message=f"the boat leaks {'x' * 300 if id == 2 else ''}", created_at=OLD)
        put("log_lines_fts", rowid=id, message=f"the boat leaks {id}")
    return client


TASKS = [{"id": 53430, "title": "Paint the boat", "detail": "todo", "url": "/api/tasks/53430"}, {"id": 12, "title": "Sell the boat 53430", "detail": "blocked", "url": "/api/tasks/12"}]


@pytest.mark.story("GET /api/search")
def test_each_group_has_what_its_list_would_show(company):
    found = company.get("/search?q=boat")
    assert found.status == 200 and found.json == {"data": {
        "tasks": TASKS,
        "products": [{"id": "boat", "title": "Boats & more", "detail": "of boat", "url": "/api/products/boat"},
                     {"id": "a-boat-shop", "title": "A boat shop", "detail": "of a-boat-shop", "url": "/api/products/a-boat-shop"}],
        "agents": [{"id": "boat", "title": "Boat", "detail": "builder, running", "url": "/api/agents/boat"},
                   {"id": "boatswain", "title": "Boatswain", "detail": "crew, running", "url": "/api/agents/boatswain"},
                   {"id": "felix", "title": "Felix", "detail": "boat painter, running", "url": "/api/agents/felix"}],
        "files": [{"id": 5, "title": "boat.md", "detail": "notes/boat.md", "url": "/api/files/5"}],
        "logs": [{"id": "boat", "title": ("the boat leaks " + "x" * 300)[:199] + "…", "detail": f"{OLD} error felix", "url": "/api/logs?q=boat"},
                 {"id": "boat", "title": "the boat leaks ", "detail": f"{OLD} error felix", "url": "/api/logs?q=boat"}]}}


@pytest.mark.parametrize("q, ids", [("53430", [53430, 12]), ("%2353430", [53430, 12]), ("job_77", [53430]), ("job_78", []), ("99", []), ("sell BOAT", [12]), ("%23", []),
                                    ("9" * 30, []), ("pai", [53430])])
def test_numbers_come_first(company, q, ids):
    assert [one["id"] for one in company.get(f"/search?q={q}").data["tasks"]] == ids


@pytest.mark.parametrize("q", ["%22" * 100, "NEAR(", "-x", "*", "%F0%9F%8E%89", "a%22%20OR%20%22b", "%25", "_", "'); DROP TABLE tasks", ""])
def test_no_question_is_an_operator(company, q):
    assert company.get(f"/search?q={q.replace(' ', '%20').replace(chr(39), '%27')}").data == EMPTY


def test_what_is_too_long_or_missing_is_named(company):
    for query in ("", "?q=" + "x" * 101, "?q=" + "x" * 10_000, "?q=a&more=1", "?q=%00"):
        assert company.get(f"/search{query}").status == 400, query
    assert company.get("/search?q=" + "x" * 100).data == EMPTY


def test_everybody_finds_what_they_may_list(company, as_, key_for, application):
    from conftest import Client

    from plugins import keys
    assert company.get("/search?q=boat").data["logs"]
    viewer = as_("ann", role="viewer").get("/search?q=boat").data
    assert viewer["tasks"] == TASKS and viewer["products"] and viewer["agents"] and viewer["files"] == viewer["logs"] == []
    assert key_for("files:read").get("/search?q=boat").data == EMPTY | {"files": company.get("/search?q=boat").data["files"]}
    assert key_for("rules:read").get("/search?q=boat").data == EMPTY
    felix = Client(application, keys.issue(1, "felix's", ["tasks:read"], agent="felix")[1])
    assert felix.get("/search?q=boat").data == EMPTY | {"tasks": TASKS[1:]} == felix.get("/search?q=53430").data
    put("tenants", id=2, name="Far", created_at=OLD)
    theirs = as_("eve", role="admin", tenant=2).get("/search?q=boat").data
    assert [one["id"] for one in theirs["tasks"]] == [13] and [one["id"] for one in theirs["products"]] == ["boat-theirs"] and theirs["logs"] == theirs["files"] == []


def test_a_group_ends_at_ten(client):
    for id in range(1, 15):
        put("tasks", id=id, tenant_id=1, title=f"boat {id}", title_key=f"{id}", created_by="system", created_at=now(), updated_at=now())
    assert [one["id"] for one in client.get("/search?q=boat").data["tasks"]] == list(range(14, 4, -1))
