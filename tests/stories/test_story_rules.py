"""Stories of rules: written, changed, listed, gone."""
import pytest
from conftest import listed, put


def stored(id, home=1, **fields):
    """A rule as it is stored, and as it is shown."""
    shown = {"rule": f"Rule {id}", "scope": "all", "category": "general", "permanent": False, "created_by": "user:7",
             "created_at": f"2026-11-02T10:00:0{id}.000Z", "updated_at": f"2026-11-03T10:00:0{id}.000Z"} | fields
    put("rules", **shown | {"id": id, "tenant_id": home, "permanent": int(shown["permanent"])})
    return {"id": id} | shown


@pytest.mark.story("GET /api/rules")
def test_rules_are_listed_the_permanent_ones_first(client):
    first, felix = stored(1, permanent=True), stored(2, scope="felix", category="workflow")
    otto, all_again = stored(3, scope="otto"), stored(4, created_by="user:8")
    stored(5, home=2)
    assert listed(client, "/rules", [first, all_again, otto, felix], default=1000)
    for query, found in [("scope=otto", [otto]), ("scope=all", [first, all_again]), ("agent=felix", [first, all_again, felix]), ("category=workflow", [felix]),
                         ("permanent=1", [first]), ("permanent=0", [all_again, otto, felix]), ("permanent=0&agent=otto", [all_again, otto]),
                         ("scope=nobody", [])]:
        assert listed(client, f"/rules?{query}", found, default=1000)


@pytest.mark.story("POST /api/rules")
def test_a_rule_is_what_was_sent(client, lately):
    me = client.get("/auth/me").data["id"]
    full = {"rule": "Never push to main", "scope": "felix", "category": "workflow", "permanent": True}
    made = client.post("/rules", full)
    times = {"created_by": f"user:{me}", "created_at": lately, "updated_at": lately}
    assert (made.status, made.json) == (201, {"data": full | times | {"id": made.data["id"]}})
    bare = client.post("/rules", {"rule": "Ask"}).data
    assert bare == {"id": made.data["id"] + 1, "rule": "Ask", "scope": "all", "category": "general", "permanent": False} | times
    assert client.get("/rules").data == [made.data, bare]


@pytest.mark.story("PATCH /api/rules/{id}")
@pytest.mark.parametrize("change", [{"rule": "Anew"}, {"scope": "otto"}, {"category": "security"}, {"permanent": True}, {},
                                    {"rule": "All", "scope": "ada", "category": "c", "permanent": True}])
def test_what_is_sent_of_a_rule_is_changed_and_no_more(client, lately, change):
    before, other = stored(1), stored(2)
    after = client.patch("/rules/1", change)
    assert after.json == {"data": before | change | {"updated_at": lately if change else after.data["updated_at"]}}
    assert sorted(client.get("/rules").data, key=lambda one: one["id"]) == [after.data, other]


@pytest.mark.story("DELETE /api/rules/{id}")
def test_a_deleted_rule_is_gone_and_the_others_are_not(client):
    stored(1), stored(2)
    assert client.delete("/rules/1").json == {"data": {"deleted": True, "id": 1}}
    assert [one["id"] for one in client.get("/rules").data] == [2]
