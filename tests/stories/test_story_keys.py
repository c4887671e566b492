"""Stories of API keys: made, seen, changed, rotated, ended, and what they were used for."""
import pytest
from conftest import Client, Like, listed, put

from plugins.keys import uses
from plugins.users import tokens

PATH = "/organizations/acme/api-keys"
OLD, OLDER, AHEAD = "2026-11-03T10:00:00.000Z", "2026-11-02T10:00:00.000Z", "2099-01-01T00:00:00.000Z"
SECRET = Like("ork_live_[0-9A-Za-z]{38}")


@pytest.fixture
def ann(as_):
    """An administrator, and owner of the organization acme."""
    uses._uses.clear()  # what the keys of other tests were used for, and nobody wrote down
    made = as_("ann", "admin")
    made.id = made.get("/auth/me").data["id"]
    for id in ("acme", "bank"):
        put("organizations", id=id, tenant_id=1, name=id, slug=id, created_at=OLD, updated_at=OLD)
        put("org_members", org_id=id, user_id=made.id, role="owner", joined_at=OLD)
    return made


@pytest.fixture
def stored(ann):
    """A key as it is stored, and as it is shown; `raw` is its secret."""
    def make(number, raw=None, deleted_at=None, **fields):
        shown = {"id": f"key_{number}", "name": f"Key {number}", "description": "For the shop", "masked": f"ork_live_…{number}", "scopes": ["tasks:read"],
                 "org_id": "acme", "agent": None, "is_active": True, "version": 3, "created_by": ann.id, "old_until": OLD, "expires_at": AHEAD, "revoked_at": None,
                 "last_used_at": OLD, "created_at": f"2026-11-02T10:00:0{number}.000Z", "updated_at": OLD} | fields
        put("api_keys", **shown | {"tenant_id": 1, "hash": tokens.digest(raw or tokens.mint("live")), "deleted_at": deleted_at, "is_active": int(shown["is_active"])})
        return shown
    return make


def good(client, raw):
    """Whether a secret opens the door."""
    return Client(client.application, raw).get("/tasks").status == 200


@pytest.mark.story("GET /api/organizations/{orgId}/api-keys", "GET /api/organizations/{orgId}/api-keys/{keyId}")
def test_the_keys_of_an_organization_are_listed_newest_first(ann, stored):
    one = stored(1, is_active=False, revoked_at=OLD, agent="felix")
    two, three = stored(2, expires_at=None, last_used_at=None, old_until=None, created_by=None), stored(3, scopes=["queue:work", "tasks:write"], description="")
    stored(4, org_id="bank"), stored(5, deleted_at=OLD)
    assert listed(ann, PATH, [three, two, one], default=1000)
    for key in (one, two, three):
        assert ann.get(f"{PATH}/{key['id']}").json == {"data": key}


@pytest.mark.story("POST /api/organizations/{orgId}/api-keys")
def test_a_key_is_what_was_sent_and_its_secret_opens_what_its_scopes_say(ann, lately):
    made = ann.post(PATH, {"name": "Shop", "description": "For the shop", "scopes": ["tasks:read", "tasks:write"], "expires_at": "2099-01-01T02:00:00+02:00"})
    raw = made.data["key"]
    told = {"org_id": "acme", "agent": None, "is_active": True, "version": 1, "created_by": ann.id, "old_until": None, "revoked_at": None, "last_used_at": None,
            "created_at": lately, "updated_at": lately, "key": SECRET, "id": Like("key_[0-9a-f]{16}")}
    assert (made.status, made.json) == (201, {"data": told | {
        "name": "Shop", "description": "For the shop", "scopes": ["tasks:read", "tasks:write"], "expires_at": AHEAD, "masked": f"ork_live_…{raw[-4:]}"}})
    shop = Client(ann.application, raw)
    assert shop.get("/auth/me").data["scopes"] == ["tasks:read", "tasks:write"] and shop.get("/files").status == 403
    bare = ann.post(PATH, {"name": "x"}).data
    assert bare == told | {"name": "x", "description": "", "scopes": ["tasks:read", "agents:read", "templates:read"], "expires_at": None,
                           "masked": f"ork_live_…{bare['key'][-4:]}"}
    assert ann.get(f"{PATH}/{bare['id']}").data == {name: value for name, value in bare.items() if name != "key"}


@pytest.mark.story("PATCH /api/organizations/{orgId}/api-keys/{keyId}")
@pytest.mark.parametrize("change", [{"name": "Anew"}, {"description": "d"}, {"scopes": ["files:read", "tasks:read"]}, {"expires_at": "2098-01-01T00:00:00.000Z"},
                                    {"expires_at": None}, {"is_active": False}, {}])
def test_what_is_sent_of_a_key_is_changed_and_no_more(ann, stored, lately, change):
    raw = tokens.mint("live")
    before, other = stored(1, raw, org_id="acme"), stored(2)
    after = ann.patch(f"{PATH}/key_1", change)
    assert after.json == {"data": before | change | {"updated_at": lately if change else after.data["updated_at"]}}
    assert ann.get(PATH).data == [other, after.data] and good(ann, raw) is (before | change)["is_active"]


@pytest.mark.story("PATCH /api/organizations/{orgId}/api-keys/{keyId}", "POST /api/organizations/{orgId}/api-keys/{keyId}/revoke")
def test_a_revoked_key_is_shown_with_when_it_ended(ann, stored, lately):
    raw = tokens.mint("live")
    before = stored(1, raw)
    after = ann.post(f"{PATH}/key_1/revoke")
    assert after.json == {"data": before | {"is_active": False, "revoked_at": lately, "old_until": None, "updated_at": lately}}
    assert ann.get(f"{PATH}/key_1").data == after.data and not good(ann, raw)
    assert ann.post(f"{PATH}/key_1/revoke").data == after.data
    assert ann.patch(f"{PATH}/key_1", {"name": "x"}).data == after.data | {"name": "x", "updated_at": lately}


@pytest.mark.story("DELETE /api/organizations/{orgId}/api-keys/{keyId}")
def test_a_deleted_key_is_off_the_list_and_ends(ann, stored):
    raw, other = tokens.mint("live"), stored(2)
    stored(1, raw)
    assert good(ann, raw)
    assert ann.delete(f"{PATH}/key_1").json == {"data": {"deleted": True, "id": "key_1"}}
    assert [one["id"] for one in ann.get(PATH).data] == [other["id"]] and not good(ann, raw)


@pytest.mark.story("POST /api/organizations/{orgId}/api-keys/{keyId}/rotate")
@pytest.mark.parametrize("sent, hours", [({}, 24), ({"grace_hours": 2}, 2), ({"grace_hours": 0, "version": 3}, 0)])
def test_a_rotated_key_has_a_new_secret_and_the_old_one_ends_after_its_grace(ann, stored, lately, sent, hours):
    raw = tokens.mint("live")
    before = stored(1, raw)
    after = ann.post(f"{PATH}/key_1/rotate", sent)
    fresh = after.data["key"]
    assert after.json == {"data": before | {"version": 4, "old_until": lately(hours * 3600) if hours else None, "masked": f"ork_live_…{fresh[-4:]}",
                                            "updated_at": lately, "key": SECRET}}
    assert ann.get(f"{PATH}/key_1").data == {name: value for name, value in after.data.items() if name != "key"}
    assert good(ann, fresh) and good(ann, raw) is (hours > 0)
    assert ann.post(f"{PATH}/key_1/rotate", {"version": 3}).status == 409


@pytest.mark.story("POST /api/organizations/{orgId}/api-keys/{keyId}/roll")
def test_a_rolled_key_has_a_new_secret_and_the_old_one_ends_at_once(ann, stored, lately):
    raw = tokens.mint("live")
    before = stored(1, raw)
    after = ann.post(f"{PATH}/key_1/roll")
    fresh = after.data["key"]
    assert after.json == {"data": before | {"version": 4, "old_until": None, "masked": f"ork_live_…{fresh[-4:]}", "updated_at": lately, "key": SECRET}}
    assert ann.get(f"{PATH}/key_1").data == {name: value for name, value in after.data.items() if name != "key"}
    assert good(ann, fresh) and not good(ann, raw)


@pytest.mark.story("GET /api/organizations/{orgId}/api-keys/{keyId}/usage")
def test_what_a_key_was_used_for_is_listed_newest_first(ann, stored, lately):
    raw = tokens.mint("live")
    stored(1, raw), stored(2)

    def use(id, key="key_1", **fields):
        shown = {"method": "GET", "route": "/api/tasks", "status": 200, "address": "10.0.0.9", "at": OLDER} | fields
        put("api_key_uses", id=id, key_id=key, **shown)
        return {"id": id} | shown
    one, two, three = use(1), use(2, method="POST", status=429), use(3, at=OLD, route="/api/rules")
    use(4, "key_2")
    assert listed(ann, f"{PATH}/key_1/usage", [three, two, one])
    Client(ann.application, raw, address="10.0.0.7").post("/tasks", {"title": "x"})
    assert ann.get(f"{PATH}/key_1/usage").data == [{"id": 5, "method": "POST", "route": "/api/tasks", "status": 403, "address": "10.0.0.7", "at": lately},
                                                   three, two, one]
    assert ann.get(f"{PATH}/key_1").data["last_used_at"] == lately
