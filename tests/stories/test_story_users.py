"""Stories of accounts: registering, logging in, sessions, passwords and addresses, and the people of a tenant."""
import pytest
from conftest import Client, Like, db, listed, put

from orkosi import HOST_TENANT, settings
from plugins import keys, users

PASSWORD = "correct horse"
OLD, OLDER, AHEAD = "2026-11-03T10:00:00.000Z", "2026-11-02T10:00:00.000Z", "2099-01-01T00:00:00.000Z"
ACCESS, REFRESH = Like("ork_ses_[0-9A-Za-z]{38}"), Like("ork_ref_[0-9A-Za-z]{38}")


def person(id, name, home=HOST_TENANT, **fields):
    """Somebody as they are stored, and as they are shown."""
    shown = {"username": name, "email": f"{name}@example.com", "role": "member", "avatar_url": f"https://example.com/{name}.png", "created_at": OLDER,
             "updated_at": OLD, "tenant_id": home} | fields
    put("users", id=id, username_key=name, email_key=shown["email"], password=users.passwords.hashed(PASSWORD), **shown)
    return {"id": id} | shown


def log_in(client, name="ann", password=PASSWORD, **more):
    return client.post("/auth/login", {"email": f"{name}@example.com", "password": password}, **more)


def signed_in(client, name="ann"):
    return Client(client.application, log_in(client, name).json["token"])


def pair(user):
    """What is answered to whoever is let in."""
    return {"success": True, "token": ACCESS, "refresh_token": REFRESH, "expires_in": 1800, "user": user}


def is_pair(anonymous, answer, user):
    """Whether that is the answer, and its token speaks for that user."""
    assert answer.json == pair(user)
    assert Client(anonymous.application, answer.json["token"]).get("/auth/me").data["id"] == user["id"]
    assert anonymous.post("/auth/refresh", {"refresh_token": answer.json["refresh_token"]}).json == pair(user)
    return True


# ── coming in ──


@pytest.mark.story("POST /api/auth/register")
def test_whoever_registers_with_an_invitation_is_in_the_tenant_of_the_inviter(client, anonymous, posted, lately):
    org = client.post("/organizations", {"name": "Acme"}).data["id"]
    client.post(f"/organizations/{org}/invites", {"email": "bob@example.com"})
    body = {"username": "Bob", "email": "Bob@example.com", "password": PASSWORD, "terms_accepted": True, "privacy_accepted": True, "invite_code": posted()[0].token}
    made = anonymous.post("/auth/register", body)
    user = {"id": made.data["id"], "username": "Bob", "email": "Bob@example.com", "role": "member", "avatar_url": None, "created_at": lately, "updated_at": lately,
            "tenant_id": HOST_TENANT}
    assert (made.status, made.json) == (201, {"data": user}) and is_pair(anonymous, log_in(anonymous, "bob"), user)
    assert client.get("/users").data[0] == user
    assert dict(db.all(tuple, "SELECT username, terms_accepted_at FROM users")) == {"root": None, "Bob": lately}, "only Bob was asked"


@pytest.mark.story("POST /api/auth/register")
def test_where_registration_is_open_one_founds_a_tenant(anonymous, monkeypatch, lately):
    monkeypatch.setitem(settings.values, "registration", "open")
    body = {"username": "Ann", "email": "ann@example.com", "password": PASSWORD, "terms_accepted": True, "privacy_accepted": True}
    made = anonymous.post("/auth/register", body)
    tenant = db.value("SELECT max(id) FROM tenants")
    assert made.json == {"data": {"id": made.data["id"], "username": "Ann", "email": "ann@example.com", "role": "member", "avatar_url": None, "created_at": lately,
                                  "updated_at": lately, "tenant_id": tenant}} and tenant != HOST_TENANT
    assert db.value("SELECT terms_accepted_at FROM users WHERE username = 'Ann'") == lately
    assert anonymous.post("/auth/register", body | {"terms_accepted": False}).wrong == ["terms_accepted"]
    assert anonymous.post("/auth/register", body | {"privacy_accepted": False}).wrong == ["privacy_accepted"]


@pytest.mark.story("POST /api/auth/login", "POST /api/auth/refresh")
def test_a_log_in_gives_a_pair_of_tokens_and_each_refresh_the_next(anonymous):
    ann = person(7, "ann", role="editor")
    answer = log_in(anonymous)
    assert is_pair(anonymous, answer, ann) and is_pair(anonymous, log_in(anonymous), ann)
    following = anonymous.post("/auth/refresh", {"refresh_token": log_in(anonymous).json["refresh_token"]})
    assert is_pair(anonymous, following, ann) and following.json["token"] != answer.json["token"]


@pytest.mark.story("POST /api/auth/refresh")
def test_a_refreshed_token_speaks_and_the_one_before_does_not(anonymous):
    ann = person(7, "ann")
    first = log_in(anonymous).json
    second = anonymous.post("/auth/refresh", {"refresh_token": first["refresh_token"]}).json
    assert second == pair(ann) and {first["token"], first["refresh_token"]}.isdisjoint({second["token"], second["refresh_token"]})
    assert Client(anonymous.application, second["token"]).get("/auth/me").data["id"] == 7 and Client(anonymous.application, first["token"]).get("/auth/me").status == 401
    assert anonymous.post("/auth/refresh", {"refresh_token": second["refresh_token"]}).json["user"] == ann


@pytest.mark.story("POST /api/auth/setup")
def test_the_first_administrator_is_made_by_the_printed_link_once(anonymous, lately):
    body = {"token": users.ticket("setup", None, 3600), "username": "Ann", "email": "ann@example.com", "password": PASSWORD}
    answer = anonymous.post("/auth/setup", body)
    ann = {"id": 1, "username": "Ann", "email": "ann@example.com", "role": "admin", "avatar_url": None, "created_at": lately, "updated_at": lately, "tenant_id": HOST_TENANT}
    assert answer.status == 201 and is_pair(anonymous, answer, ann) and is_pair(anonymous, log_in(anonymous), ann)
    assert anonymous.post("/auth/setup", body | {"username": "Eve", "email": "eve@example.com"}).status == 404


# ── who one is, and from where ──


@pytest.mark.story("GET /api/auth/me")
def test_one_is_told_who_one_is(anonymous, application):
    person(7, "ann", role="editor")
    assert signed_in(anonymous).get("/auth/me").json == {"data": {
        "id": 7, "username": "ann", "email": "ann@example.com", "role": "editor", "tenant": HOST_TENANT, "kind": "user", "scopes": None, "agent": None}}
    key = Client(application, keys.issue(HOST_TENANT, "k", ["tasks:write", "tasks:read"], by=7)[1])
    assert key.get("/auth/me").json == {"data": {
        "id": 7, "username": "ann", "email": "ann@example.com", "role": "editor", "tenant": HOST_TENANT, "kind": "key", "scopes": ["tasks:read", "tasks:write"],
        "agent": None}}
    felix = Client(application, keys.issue(HOST_TENANT, "felix", ["tasks:read"], agent="felix")[1])
    assert felix.get("/auth/me").json == {"data": {
        "id": None, "username": None, "email": None, "role": "agent", "tenant": HOST_TENANT, "kind": "agent", "scopes": ["tasks:read"], "agent": "felix"}}


def session(id, user, **fields):
    """A session as it is stored, and as it is shown."""
    shown = {"agent": f"Browser {id}", "created_at": OLDER, "last_used_at": OLD, "ends_at": AHEAD} | fields
    put("sessions", id=id, user_id=user, access_hash=bytes([id]), access_expires_at=AHEAD, refresh_hash=bytes([id]), refresh_expires_at=AHEAD, **shown)
    return {"id": id} | shown | {"current": False}


@pytest.mark.story("GET /api/auth/sessions")
def test_ones_own_sessions_are_listed_newest_first(anonymous, lately):
    person(7, "ann"), person(8, "bob")
    one, two = session(1, 7), session(2, 7, agent="")
    session(3, 8), session(4, 7, ends_at=OLD)
    ann = Client(anonymous.application, log_in(anonymous, headers={"User-Agent": "Phone"}).json["token"])
    mine = {"id": 5, "agent": "Phone", "created_at": lately, "last_used_at": lately, "ends_at": lately(30 * 86400), "current": True}
    assert ann.get("/auth/sessions").json == {"data": [mine, two, one]}


@pytest.mark.story("DELETE /api/auth/sessions/{id}")
def test_an_ended_session_speaks_no_more(anonymous):
    person(7, "ann")
    left, other = signed_in(anonymous), signed_in(anonymous)
    newest, oldest = (one["id"] for one in left.get("/auth/sessions").data)
    assert left.delete(f"/auth/sessions/{newest}").json == {"data": {"deleted": True, "id": newest}}
    assert [one["id"] for one in left.get("/auth/sessions").data] == [oldest] and other.get("/auth/me").status == 401


@pytest.mark.story("POST /api/auth/logout")
@pytest.mark.parametrize("sent, ended", [({}, 1), ({"all_devices": False}, 1), ({"all_devices": True}, 3)])
def test_logging_out_ends_this_session_or_all(anonymous, sent, ended):
    person(7, "ann"), person(8, "bob")
    ann, other, _, bob = signed_in(anonymous), signed_in(anonymous), signed_in(anonymous), signed_in(anonymous, "bob")
    assert ann.post("/auth/logout", sent).json == {"data": {"logged_out": ended}}
    assert [one.get("/auth/me").status for one in (ann, other, bob)] == [401, 200 if ended == 1 else 401, 200]


# ── passwords and addresses ──


@pytest.mark.story("POST /api/auth/forgot-password", "POST /api/auth/reset-password")
def test_a_forgotten_password_is_replaced_by_a_mailed_link(anonymous, posted):
    person(7, "ann")
    ann = signed_in(anonymous)
    sent = anonymous.post("/auth/forgot-password", {"email": "ann@example.com"})
    assert sent.json == {"data": {"message": "If that address has an account, a link is on its way"}}
    letter, = posted()
    assert letter["To"] == "ann@example.com"
    assert anonymous.post("/auth/reset-password", {"token": letter.token, "password": "another horse"}).json == {"data": {"success": True}}
    assert log_in(anonymous, password="another horse").status == 200 and log_in(anonymous).status == 401 and ann.get("/auth/me").status == 401


@pytest.mark.story("POST /api/auth/change-password")
def test_another_password_ends_every_other_session(anonymous, posted):
    person(7, "ann")
    ann, other, _ = signed_in(anonymous), signed_in(anonymous), signed_in(anonymous)
    sent = {"current_password": PASSWORD, "new_password": "another horse"}
    assert ann.post("/auth/change-password", sent | {"current_password": "wrong horse"}).status == 403
    assert ann.post("/auth/change-password", sent).json == {"data": {"logged_out": 2}}
    assert ann.get("/auth/me").status == 200 and other.get("/auth/me").status == 401
    assert log_in(anonymous, password="another horse").status == 200 and log_in(anonymous).status == 401


@pytest.mark.story("POST /api/auth/change-email", "POST /api/auth/verify-email")
def test_another_address_counts_once_its_link_was_followed(anonymous, posted):
    person(7, "ann")
    ann = signed_in(anonymous)
    assert ann.post("/auth/change-email", {"email": "new@example.com", "password": "wrong horse"}).status == 403
    sent = ann.post("/auth/change-email", {"email": "new@example.com", "password": PASSWORD})
    assert sent.json == {"data": {"message": "If nobody else has that address, a link is on its way"}}
    letter, = posted()
    assert letter["To"] == "new@example.com" and ann.get("/auth/me").data["email"] == "ann@example.com"
    assert anonymous.post("/auth/verify-email", {"token": letter.token}).json == {"data": {"success": True}}
    assert ann.get("/auth/me").data["email"] == "new@example.com" and log_in(anonymous, "new").status == 200 and log_in(anonymous).status == 401


@pytest.mark.story("POST /api/auth/invitation")
def test_whoever_has_an_invitation_is_told_what_it_is_good_for(client, anonymous, posted, lately):
    org = client.post("/organizations", {"name": "Acme"}).data["id"]
    client.post(f"/organizations/{org}/invites", {"email": "bob@example.com", "role": "viewer"})
    assert anonymous.post("/auth/invitation", {"token": posted()[0].token}).json == {"data": {
        "kind": "org", "email": "bob@example.com", "role": "viewer", "expires_at": lately(7 * 86400)}}


# ── people ──


@pytest.mark.story("GET /api/users", "GET /api/users/{id}")
def test_the_people_of_a_tenant_are_listed_newest_first(client, anonymous):
    root = db.one(dict, "SELECT id, username, email, role, avatar_url, created_at, updated_at, tenant_id FROM users WHERE username = 'root' AND :tenant")
    ann, bob = person(17, "ann", role="viewer"), person(18, "bob", avatar_url=None)
    put("tenants", id=2, name="Far", created_at=OLD)
    person(19, "far", home=2)
    assert listed(client, "/users", [bob, ann, root], default=1000) and listed(signed_in(anonymous), "/users", [bob, ann, root], default=1000)
    for whole in (bob, ann, root):
        assert client.get(f"/users/{whole['id']}").json == signed_in(anonymous).get(f"/users/{whole['id']}").json == {"data": whole}
    db.write(lambda: db.run("UPDATE users SET role = 'demo' WHERE id = 17 AND :tenant"))
    names = [{"id": one["id"], "username": one["username"]} for one in (bob, root)]
    seen = [names[0], ann | {"role": "demo"}, names[1]]
    assert listed(signed_in(anonymous), "/users", seen, default=1000), "of the role demo, oneself one sees whole, of others the names"
    for part in seen:
        assert signed_in(anonymous).get(f"/users/{part['id']}").json == {"data": part}


@pytest.mark.story("PATCH /api/users/{id}")
@pytest.mark.parametrize("change", [{"username": "Anew"}, {"email": "new@example.com"}, {"role": "editor"}, {"username": "All", "email": "all@example.com", "role": "demo"}, {}])
def test_what_is_sent_of_somebody_is_changed_and_no_more(client, lately, change):
    before, other = person(17, "ann"), person(18, "bob")
    after = client.patch("/users/17", change)
    assert after.json == {"data": before | change | {"updated_at": lately if change else after.data["updated_at"]}}
    assert client.get("/users").data[:2] == [other, after.data]
    assert client.post("/auth/login", {"email": (before | change)["email"], "password": PASSWORD}).json["user"] == after.data


@pytest.mark.story("DELETE /api/users/{id}", "DELETE /api/users/me")
@pytest.mark.parametrize("path", ["me", "17"])
def test_an_erased_account_is_gone(client, anonymous, path):
    person(17, "ann"), person(18, "bob")
    ann = signed_in(anonymous)
    assert (ann if path == "me" else client).delete(f"/users/{path}").json == {"data": {"deleted": True, "id": 17}}
    assert [one["id"] for one in client.get("/users").data][:1] == [18] and client.get("/users").meta["total"] == 2
    assert ann.get("/auth/me").status == log_in(anonymous).status == 401
