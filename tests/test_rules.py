"""Rules: who writes them, what is permanent, and which an agent gets to read."""
import pytest
from conftest import Client

from plugins import keys

NEW = {"rule": "Never push to main"}


@pytest.fixture
def felix(application):
    return Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])


@pytest.mark.parametrize("body, status", [
    (NEW, 201),
    (NEW | {"scope": "felix", "category": "workflow", "permanent": True}, 201),
    (NEW | {"scope": "two words"}, 400),
    (NEW | {"scope": "felix\n"}, 400),
    (NEW | {"scope": ""}, 400),
    (NEW | {"category": ""}, 400),
    (NEW | {"permanent": 1}, 400),
    (NEW | {"permanent": "yes"}, 400),
    (NEW | {"agent": "felix"}, 400),
    ({"rule": ""}, 400),
    ({"rule": " "}, 400),
    ({"rule": "x" * 4001}, 400),
    ({}, 400),
])
def test_adding_a_rule(client, body, status):
    assert client.post("/rules", body).status == status


@pytest.mark.parametrize("body, status", [
    ({}, 200),
    ({"rule": "Ask first", "scope": "otto", "category": "security", "permanent": True}, 200),
    ({"rule": " "}, 400),
    ({"rule": None}, 400),
    ({"scope": "a b"}, 400),
    ({"permanent": 0}, 400),
    ({"created_by": "me"}, 400),
])
def test_changing_a_rule(client, body, status):
    id = client.post("/rules", NEW).data["id"]
    answer = client.patch(f"/rules/{id}", body)
    assert answer.status == status
    if status == 200:
        assert {key: answer.data[key] for key in body} == body
        assert client.patch("/rules/99", body).status == 404


def test_a_permanent_rule_stays_and_is_an_administrators(client, as_):
    ann = as_("ann", "editor")
    assert ann.post("/rules", NEW | {"permanent": True}).status == 403
    id = client.post("/rules", NEW | {"permanent": True}).data["id"]
    ordinary = ann.post("/rules", NEW).data["id"]
    assert ann.patch(f"/rules/{id}", {"rule": "x"}).status == 403
    assert ann.patch(f"/rules/{id}", {"permanent": False}).status == 403
    assert ann.patch(f"/rules/{ordinary}", {"permanent": True}).status == 403
    assert ann.delete(f"/rules/{id}").status == client.delete(f"/rules/{id}").status == 403
    assert client.patch(f"/rules/{id}", {"permanent": False}).status == 200
    assert ann.delete(f"/rules/{id}").data == {"deleted": True, "id": id}
    assert ann.delete(f"/rules/{id}").status == 404


def test_no_key_without_the_scope_writes_a_rule(application, felix, client):
    id = client.post("/rules", NEW).data["id"]
    key = Client(application, keys.issue(1, "all", [one for one in keys.SCOPES if one != "rules:write"], by=client.get("/auth/me").data["id"])[1])
    for one in (felix, key):
        assert {one.post("/rules", NEW).status, one.patch(f"/rules/{id}", {}).status, one.delete(f"/rules/{id}").status} == {403}


def test_an_agent_reads_its_own_and_those_for_all(client, felix):
    for scope in ("all", "felix", "otto"):
        client.post("/rules", NEW | {"scope": scope, "rule": scope})
    client.post("/rules", NEW | {"rule": "for ever", "permanent": True})
    assert [rule["rule"] for rule in felix.get("/rules?agent=felix").data] == ["for ever", "felix", "all"]


def test_the_list_narrows(client):
    client.post("/rules", NEW | {"scope": "felix", "category": "workflow"})
    client.post("/rules", NEW | {"permanent": True})
    for query, count in [("", 2), ("scope=all", 1), ("scope=felix", 1), ("category=workflow", 1), ("permanent=1", 1), ("permanent=0", 1),
                         ("permanent=1&agent=felix", 1), ("scope=felix&permanent=1", 0), ("limit=1", 1)]:
        assert len(client.get(f"/rules?{query}").data) == count, query
    for query in ("permanent=2", "permanent=true", "limit=0", "rule=x"):
        assert client.get(f"/rules?{query}").status == 400, query


@pytest.mark.parametrize("role, tenant, reading, writing", [
    ("admin", 1, 200, 201), ("editor", 1, 200, 201), ("member", 1, 200, 403), ("viewer", 1, 200, 403), ("demo", 1, 403, 403),
    ("member", None, 200, 403)])
def test_who_may_do_what(client, as_, role, tenant, reading, writing):
    client.post("/rules", NEW)
    ann = as_("ann", role, tenant)
    assert (ann.get("/rules").status, ann.post("/rules", NEW).status) == (reading, writing)
    if tenant is None:
        assert ann.get("/rules").data == []
