"""Stories of credentials: what is told of a secret, who is given it, and what is left of it once it is gone."""
import pytest
from conftest import Client, db, listed

from orkosi import acting, now, system
from plugins import keys

VALUE = "sk_live_é\n\t\"quoted\" 😀"


@pytest.fixture
def felix(client, application):
    """Agent felix's own key."""
    client.post("/agents", {"name": "felix"}), client.post("/agents", {"name": "ada"})
    with acting(system()):
        return Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])


def told(key, lately, **more):
    return {"key": key, "description": None, "version": 1, "grants": [], "created_at": lately, "updated_at": lately, "last_used_at": None, "used_by": None,
            "age_days": 0} | more


@pytest.mark.story("POST /api/credentials", "GET /api/credentials/{key}")
def test_a_credential_is_what_was_sent_and_each_saving_is_a_version(client, felix, lately):
    made = client.post("/credentials", {"key": "STRIPE_KEY", "value": VALUE, "description": "for payments", "grants": ["felix", "ada", "felix"]})
    row = told("STRIPE_KEY", lately, description="for payments", grants=["ada", "felix"])
    assert (made.status, made.json) == (201, {"data": row | {"created": True}})
    assert client.get("/credentials/STRIPE_KEY").data == row | {"value": VALUE, "last_used_at": lately, "used_by": f"user:{client.get('/auth/me').data['id']}"}
    again = client.post("/credentials", {"key": "STRIPE_KEY", "value": "two"}).data
    assert (again["version"], again["created"], again["description"], again["grants"]) == (2, False, "for payments", ["ada", "felix"])
    assert client.get("/credentials/STRIPE_KEY").data["value"] == "two"
    last = client.post("/credentials", {"key": "STRIPE_KEY", "value": "x", "description": "other", "grants": []}).data
    assert (last["version"], last["description"], last["grants"]) == (3, "other", []) and felix.get("/credentials/STRIPE_KEY").status == 404
    for _ in range(5):
        client.post("/credentials", {"key": "STRIPE_KEY", "value": "more"})
    assert [version for version, in db.all(tuple, "SELECT version FROM credential_versions WHERE :tenant ORDER BY 1")] == [4, 5, 6, 7, 8]


@pytest.mark.story("GET /api/credentials")
def test_credentials_are_listed_by_key_without_their_values(client, felix, key_for, lately):
    for name, grants in (("ZED", ["felix"]), ("AAA", ["ada"]), ("MID_1", ["ada", "felix"])):
        client.post("/credentials", {"key": name, "value": f"secret of {name}", "grants": grants})
    rows = [told("AAA", lately, grants=["ada"]), told("MID_1", lately, grants=["ada", "felix"]), told("ZED", lately, grants=["felix"])]
    assert listed(client, "/credentials", rows, default=1000) and listed(felix, "/credentials", rows[1:], default=1000)
    assert listed(key_for("credentials:read:AAA", "credentials:read:ZED", "credentials:read:NONE"), "/credentials", [rows[0], rows[2]], default=1000)
    db.write(lambda: db.run("UPDATE credentials SET updated_at = :then WHERE key = 'ZED' AND tenant_id = 1", then=now(-3 * 86400 - 60)))
    felix.get("/credentials/ZED")
    zed = client.get("/credentials").data[2]
    assert (zed["age_days"], zed["used_by"], zed["last_used_at"]) == (3, "agent:felix", lately)


@pytest.mark.story("GET /api/credentials/{key}")
def test_a_value_is_given_to_whom_it_is_granted_and_each_reading_is_on_record(client, felix, key_for, as_, lately):
    client.post("/credentials", {"key": "MINE", "value": "one", "grants": ["felix"]}), client.post("/credentials", {"key": "THEIRS", "value": "two", "grants": ["ada"]})
    robot = key_for("credentials:read:THEIRS")
    assert felix.get("/credentials/MINE").data["value"] == "one" and robot.get("/credentials/THEIRS").data["value"] == "two"
    assert [who.get(path).status for who, path in ((felix, "/credentials/THEIRS"), (robot, "/credentials/MINE"), (felix, "/credentials/NONE"))] == [404] * 3
    assert [who.get("/credentials/MINE").status for who in (as_("ed", "editor"), as_("olga", tenant=None), key_for("queue:work"))] == [403] * 3
    reads = db.all(tuple, "SELECT key, version, actor FROM credential_reads WHERE tenant_id = 1 ORDER BY id")
    assert reads == [("MINE", 1, "agent:felix"), ("THEIRS", 1, reads[1][2])] and reads[1][2].startswith("key:")
    client.post("/agents/felix/stop"), client.delete("/agents/felix")
    assert client.get("/credentials").data[0]["grants"] == []


@pytest.mark.story("DELETE /api/credentials/{key}")
def test_a_deleted_credential_leaves_nothing_but_the_record_of_its_readings(client, felix):
    client.post("/credentials", {"key": "GONE", "value": "x", "grants": ["felix"]}), client.post("/credentials", {"key": "STAYS", "value": "y"})
    client.get("/credentials/GONE")
    assert client.delete("/credentials/GONE").json == {"data": {"deleted": True, "id": "GONE"}}
    assert client.delete("/credentials/GONE").status == client.get("/credentials/GONE").status == felix.get("/credentials/GONE").status == 404
    left = {table: db.value(f"SELECT count(*) FROM {table} WHERE :tenant") for table in ("credential_versions", "credential_grants", "credential_reads")}
    assert left == {"credential_versions": 1, "credential_grants": 0, "credential_reads": 1} and client.get("/credentials/STAYS").data["value"] == "y"
    assert client.post("/credentials", {"key": "GONE", "value": "new"}).data["created"] is True


