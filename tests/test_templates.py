"""Agent templates: ordered, archived, each tenant's own."""
import threading

import pytest
from conftest import CURSOR, Client, Like

from orkosi import db, jsoned

FULL = {"name": "Writer", "slug": "writer", "description": "Writes", "icon": "🖋️", "category": "content", "model": "opus", "interval_sec": 30,
        "identity": "You write.", "tools": ["search"], "capabilities": ["draft", "revise"], "config": {"tone": {"warmth": 3}}, "is_featured": True,
        "sort_order": 5}


@pytest.mark.story("POST /api/v1/public/templates", "GET /api/v1/public/templates/{id}")
def test_a_template_comes_back_as_it_was_sent(client):
    made = client.post("/v1/public/templates", FULL)
    assert made.status == 201 and {name: made.data[name] for name in FULL} == FULL
    assert client.get(f"/v1/public/templates/{made.data['id']}").data == made.data


@pytest.mark.parametrize("change, status, field", [
    ({}, 201, None), ({"config": {}}, 201, None), ({"sort_order": -3}, 201, None),
    ({"name": ""}, 400, "name"), ({"slug": "Not A Slug"}, 400, "slug"), ({"slug": "a--b"}, 400, "slug"), ({"slug": "a\n"}, 400, "slug"),
    ({"interval_sec": 0}, 400, "interval_sec"), ({"interval_sec": True}, 400, "interval_sec"), ({"tools": "search"}, 400, "tools"),
    ({"tools": [1]}, 400, "tools[0]"), ({"config": []}, 400, "config"), ({"config": {"x": "y" * 70_000}}, 400, "config"),
    ({"is_featured": 1}, 400, "is_featured"), ({"sort_order": 2**40}, 400, "sort_order"), ({"tenant_id": 2}, 400, "tenant_id")])
def test_adding_a_template(client, change, status, field):
    answer = client.post("/v1/public/templates", FULL | change)
    assert answer.status == status
    if field:
        assert [one.split("[")[0] for one in answer.wrong] == [field.split("[")[0]]


def test_name_and_slug_are_required(client):
    assert client.post("/v1/public/templates", {}).wrong == ["name", "slug"]


def test_templates_stand_by_their_order_then_by_name(client):
    for name, order, featured in [("b", 1, False), ("a", 1, True), ("z", 0, False), ("c", -1, True)]:
        client.post("/v1/public/templates", {"name": name, "slug": name, "sort_order": order, "is_featured": featured, "category": name})
    names = lambda query: [one["name"] for one in client.get("/v1/public/templates" + query).data]  # noqa: E731
    assert names("") == ["c", "z", "a", "b"] and names("?limit=2&offset=1") == ["z", "a"]
    assert names("?featured=true") == ["c", "a"] and names("?category=z") == ["z"] and names("?category=c&featured=true") == ["c"]
    assert client.get("/v1/public/templates?limit=1").meta == {"total": 4, "limit": 1, "offset": 0, "has_more": True, "next_after": Like(CURSOR)}
    assert client.get("/v1/public/templates?limit=201").status == client.get("/v1/public/templates?featured=maybe").status == 400


@pytest.mark.parametrize("body, status", [
    ({"name": "Author"}, 200), ({"config": {"a": [1]}}, 200), ({"tools": []}, 200), ({"model": None}, 200), ({"is_featured": False}, 200), ({}, 200),
    ({"slug": "author"}, 400), ({"name": None}, 400), ({"config": None}, 400), ({"interval_sec": -1}, 400)])
def test_changing_a_template(client, body, status):
    made = client.post("/v1/public/templates", FULL).data
    answer = client.patch(f"/v1/public/templates/{made['id']}", body)
    assert answer.status == status
    if status == 200:
        assert {name: answer.data[name] for name in made if name != "updated_at"} == {name: (made | body)[name] for name in made if name != "updated_at"}


def test_an_archived_template_is_shown_nowhere_and_its_slug_is_free(client):
    made = client.post("/v1/public/templates", FULL).data
    path = f"/v1/public/templates/{made['id']}"
    assert client.post("/v1/public/templates", FULL).status == 409
    assert client.delete(path).data == {"deleted": True, "id": made["id"]}
    assert client.get(path).status == client.patch(path, {"name": "x"}).status == client.delete(path).status == 404
    assert client.get("/v1/public/templates").data == []
    assert client.post("/v1/public/templates", FULL).status == 201


def test_of_many_with_one_slug_one_is_made(client):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(client.post("/v1/public/templates", FULL).status)) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(answers) == [201] + [409] * 7


@pytest.mark.parametrize("role, scopes, reading, writing", [
    ("viewer", None, 200, 403), ("member", None, 200, 201), ("demo", None, 403, 403),
    (None, ("templates:read",), 200, 403), (None, ("templates:write",), 403, 201), (None, ("agents:write",), 403, 403)])
def test_who_may_do_what(as_, key_for, role, scopes, reading, writing):
    ann = as_("ann", role) if role else key_for(*scopes)
    assert (ann.get("/v1/public/templates").status, ann.post("/v1/public/templates", FULL).status) == (reading, writing)


def test_an_agent_is_what_its_template_says(client, data):
    template = FULL | {"tools": ["search", "agents:delegate"], "config": {"tone": 3, "role": "author", "display_name": "The Writer", "color": "#abc"}}
    assert client.post("/v1/public/templates", template).status == 201
    made = client.post("/agents", {"name": "ann", "template": "writer"}).data
    assert {name: made[name] for name in ("role", "display_name", "color", "delegates", "model", "interval_sec", "emoji", "template")} == {
        "role": "author", "display_name": "The Writer", "color": "#abc", "delegates": True, "model": "opus", "interval_sec": 30, "emoji": "🖋️",
        "template": "writer"}
    assert (data / "agents/ann/workspace/SOUL.md").read_text() == "You write.\n\nTools: search\n\nCapabilities: draft, revise\n"
    ann = Client(client.application, (data / "keys/ann").read_text().strip())
    assert ann.get("/agents").status == 200, "whoever delegates sees to whom"
    other = client.post("/agents", {"name": "bob", "template": "writer", "delegates": False, "role": "editor"}).data
    assert (other["delegates"], other["role"], other["display_name"]) == (False, "editor", "The Writer")
    bare = client.post("/v1/public/templates", {"name": "Bare", "slug": "bare", "identity": "You are."}).data["slug"]
    assert client.post("/agents", {"name": "carl", "template": bare}).data["delegates"] is False
    assert (data / "agents/carl/workspace/SOUL.md").read_text() == "You are."


@pytest.mark.parametrize("change, field, said", [
    ({"tools": ["costs:read"]}, "tools", "never good for costs:read"),
    ({"capabilities": ["draft", "credentials:read:bank"]}, "capabilities", "never good for credentials:read:bank"),
    ({"config": {"command": ["sh"]}}, "config", "leave command out"), ({"config": {"adapter": "shell"}}, "config", "leave adapter out"),
    ({"config": {"base_url": "http://x"}}, "config", "leave base_url out"), ({"config": {"delegates": "yes"}}, "config", "delegates")])
def test_a_template_that_no_agent_could_be_made_from_is_refused(client, change, field, said):
    refused = client.post("/v1/public/templates", FULL | change)
    assert (refused.status, refused.wrong) == (400, [field]) and said in refused.error["message"]
    made = client.post("/v1/public/templates", FULL).data
    assert client.patch(f"/v1/public/templates/{made['id']}", change).wrong == [field]
    db.write(lambda: db.run(f"UPDATE agent_templates SET {field} = :new", new=jsoned(change[field])))  # as an earlier version took it
    assert client.post("/agents", {"name": "ann", "template": "writer"}).wrong == [field]
    assert client.get("/agents").data == []
