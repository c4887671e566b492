"""Stories of agent templates, under /v1/public."""
import pytest
from conftest import db, listed, put

PATH = "/v1/public/templates"
FULL = {"name": "Writer", "slug": "writer", "description": "Writes", "icon": "🖋️", "category": "content", "model": "opus", "interval_sec": 30,
        "identity": "You write.", "tools": ["search"], "capabilities": ["draft", "revise"], "config": {"tone": {"warmth": 3}}, "is_featured": True,
        "sort_order": 5}


def stored(id, home=1, **fields):
    """A template as it is stored, and as it is shown."""
    times = {"created_at": "2026-11-02T10:00:00.000Z", "updated_at": "2026-11-03T10:00:00.000Z"}
    shown = FULL | {"name": f"T{id}", "slug": f"t{id}"} | times | fields
    archived = {"archived_at": shown.pop("archived_at", None)}
    put("agent_templates", **shown | archived | {"id": id, "tenant_id": home, "is_featured": int(shown["is_featured"])})
    return {"id": id} | shown


@pytest.mark.story("GET /api/v1/public/templates", "GET /api/v1/public/templates/{id}")
def test_templates_are_listed_in_their_order(client):
    one, two = stored(1), stored(2, sort_order=-1, is_featured=False)
    three = stored(3, name="A", category="general", icon=None, model=None, tools=[], config={})
    stored(4, home=2), stored(5, archived_at="2026-11-04T10:00:00.000Z")
    assert listed(client, PATH, [two, three, one])
    for query, found in [("category=content", [two, one]), ("featured=true", [three, one]), ("featured=false", [two, three, one]),
                         ("featured=true&category=general", [three]), ("category=none", [])]:
        assert listed(client, f"{PATH}?{query}", found)
    for shown in (one, two, three):
        assert client.get(f"{PATH}/{shown['id']}").json == {"data": shown}


@pytest.mark.story("POST /api/v1/public/templates")
def test_a_template_is_what_was_sent(client, lately):
    made = client.post(PATH, FULL)
    times = {"created_at": lately, "updated_at": lately}
    assert (made.status, made.json) == (201, {"data": FULL | times | {"id": made.data["id"]}})
    bare = client.post(PATH, {"name": "x", "slug": "x"}).data
    assert bare == {"id": made.data["id"] + 1, "name": "x", "slug": "x", "description": "", "icon": None, "category": "general", "model": None,
                    "interval_sec": 60, "identity": "", "tools": [], "capabilities": [], "config": {}, "is_featured": False, "sort_order": 0} | times
    assert client.get(PATH).data == [bare, made.data]


@pytest.mark.story("PATCH /api/v1/public/templates/{id}")
@pytest.mark.parametrize("name, value", [("name", "Author"), ("description", "d"), ("icon", None), ("category", "c"), ("model", None), ("interval_sec", 7),
                                         ("identity", "i"), ("tools", []), ("capabilities", ["x"]), ("config", {}), ("is_featured", False), ("sort_order", -2)])
def test_what_is_sent_of_a_template_is_changed_and_no_more(client, lately, name, value):
    before, other = stored(1), stored(2)
    after = client.patch(f"{PATH}/1", {name: value})
    assert after.json == {"data": before | {name: value, "updated_at": lately}}
    assert client.get(f"{PATH}/1").data == after.data and client.get(f"{PATH}/2").data == other


@pytest.mark.story("DELETE /api/v1/public/templates/{id}")
def test_an_archived_template_is_shown_no_more(client, lately):
    stored(1), stored(2)
    assert client.delete(f"{PATH}/1").json == {"data": {"deleted": True, "id": 1}}
    assert [one["id"] for one in client.get(PATH).data] == [2]
    assert db.all(tuple, "SELECT id, archived_at FROM agent_templates WHERE archived_at IS NOT NULL AND :tenant") == [(1, lately)]
