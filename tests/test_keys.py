"""API keys: made, shown once, taken back at once, and never more than their maker is."""
import threading
import time

import pytest
from conftest import Client, command, eventually, limiter

import orkosi
from orkosi import acting, db, now, settings, system
from plugins import keys, queue, storage
from plugins.keys import uses
from plugins.users import tokens

ORG = "org_a"


def member(org, user, role):
    """Make somebody a member of an organization, or of another rank there."""
    db.write(lambda: db.run("""INSERT INTO org_members (org_id, user_id, role, joined_at) VALUES (:org, :user, :role, :now)
                               ON CONFLICT (org_id, user_id) DO UPDATE SET role = :role""", org=org, user=user, role=role, now=now()))


def organization(id, tenant, **people):
    db.write(lambda: db.run("""INSERT INTO organizations (id, tenant_id, name, slug, created_at, updated_at)
                               VALUES (:id, :home, :id, :id, :now, :now)""", id=id, home=tenant, now=now()))
    for role, user in people.items():
        member(id, user, role)


@pytest.fixture
def ann(application, people):
    """The administrator of the host and owner of organization ORG."""
    user, token = people("ann", "admin")
    organization(ORG, 1, owner=user.id)
    client = Client(application, token)
    client.user = user
    return client


@pytest.fixture
def make(ann):
    """Makes a key of ORG: its data, with `key`."""
    def made(*scopes, **more):
        answer = ann.post(f"/organizations/{ORG}/api-keys", {"name": "k", "scopes": list(scopes) or ["tasks:read", "tasks:write"], **more})
        assert answer.status == 201, answer
        return answer.data
    return made


def speaks(application, raw):
    return Client(application, raw).get("/auth/me").status == 200


def path(key, rest=""):
    return f"/organizations/{ORG}/api-keys/{key['id']}{rest}"


def test_a_key_is_shown_once_and_stored_nowhere(data, ann):
    made = ann.post(f"/organizations/{ORG}/api-keys", {"name": "Shop"}).data
    raw = made["key"]
    assert tokens.is_one(raw, "live") and made["masked"] == f"ork_live_…{raw[-4:]}" and made["id"].startswith("key_")
    assert made["scopes"] == ["tasks:read", "agents:read", "templates:read"] and made["org_id"] == ORG and made["is_active"]
    for answer in (ann.get(path(made)), ann.get(f"/organizations/{ORG}/api-keys")):
        assert raw.encode() not in answer.body and b"hash" not in answer.body
    db.write(lambda: None)
    for file in data.glob("*.db*"):
        assert raw.encode() not in file.read_bytes()


@pytest.mark.parametrize("body, status, field", [
    ({"name": "k"}, 201, None), ({"name": "k", "scopes": ["queue:work", "queue:work"]}, 201, None),
    ({"name": "k", "scopes": ["credentials:read:stripe", "credentials:read:STRIPE_KEY"]}, 201, None),
    ({"name": "k", "expires_at": "2999-01-01T00:00:00+02:00"}, 201, None), ({"name": "k", "expires_at": None}, 201, None),
    ({}, 400, "name"), ({"name": ""}, 400, "name"), ({"name": "  "}, 400, "name"), ({"name": "a\nb"}, 400, "name"),
    ({"name": "k", "scopes": []}, 400, "scopes"), ({"name": "k", "scopes": ["*"]}, 400, "scopes"),
    ({"name": "k", "scopes": ["users:write"]}, 400, "scopes"), ({"name": "k", "scopes": ["credentials:read:"]}, 400, "scopes"),
    ({"name": "k", "scopes": ["tasks:read\n"]}, 400, "scopes"), ({"name": "k", "scopes": "tasks:read"}, 400, "scopes"),
    ({"name": "k", "expires_at": "2001-01-01"}, 400, "expires_at"), ({"name": "k", "expires_at": "soon"}, 400, "expires_at"),
    ({"name": "k", "expires_at": "0001-01-01T00:00:00+14:00"}, 400, "expires_at"),
    ({"name": "k", "tenant_id": 2}, 400, "tenant_id")])
def test_making_a_key(ann, body, status, field):
    answer = ann.post(f"/organizations/{ORG}/api-keys", body)
    assert answer.status == status
    assert field is None or answer.wrong == [field]


def test_an_unknown_scope_is_answered_with_the_known_ones(ann):
    said = ann.post(f"/organizations/{ORG}/api-keys", {"name": "k", "scopes": ["tasks:reed"]}).error["message"]
    assert "tasks:reed" in said and all(scope in said for scope in keys.SCOPES)


def test_the_scopes_and_the_endpoints_agree():
    least = {}
    for one in orkosi.endpoints():
        if one.auth.scope and "<" not in one.auth.scope:
            scope = one.auth.scope.partition(" or ")[0]  # what stands behind it is of before there was this one
            least[scope] = min(least.get(scope, 9), orkosi.RANKS[one.auth.role])
    for scope, rank in least.items():
        assert orkosi.RANKS[keys.LEAST[scope]] == rank, scope


def test_keys_are_listed_newest_first(ann, make):
    made = []
    for _ in range(3):
        made.append(make()["id"])
        time.sleep(0.002)  # their order is that of their times, to the millisecond
    answer = ann.get(f"/organizations/{ORG}/api-keys?limit=2")
    assert [one["id"] for one in answer.data] == made[:0:-1] and answer.meta["total"] == 3 and "key" not in answer.data[0]


@pytest.mark.parametrize("role, org_role, status", [
    ("admin", "owner", 201), ("admin", "admin", 201), ("member", "owner", 201), ("viewer", "admin", 201),
    ("admin", "member", 403), ("admin", "viewer", 403), ("demo", "owner", 403), ("agent", "owner", 403), ("admin", None, 403), ("editor", None, 404), ("viewer", None, 404)])
def test_admins_of_the_organization_make_keys(application, ann, people, role, org_role, status):
    user, token = people("bob", role)
    if org_role:
        member(ORG, user.id, org_role)
    bob = Client(application, token)
    assert bob.post(f"/organizations/{ORG}/api-keys", {"name": "k", "scopes": ["tasks:read"]}).status == status
    assert bob.get(f"/organizations/{ORG}/api-keys").status == (200 if status == 201 else status)


def test_no_key_manages_keys(application, make):
    made = make(*keys.SCOPES)
    robot = Client(application, made["key"])
    for method, rest in [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/revoke"), ("POST", "/rotate"), ("POST", "/roll"), ("GET", "/usage")]:
        assert robot.request(method, path(made, rest)).status == 403, (method, rest)
    assert robot.post(f"/organizations/{ORG}/api-keys", {"name": "k"}).status == 403


@pytest.mark.parametrize("role, scopes, status", [
    ("member", ["tasks:write"], 201), ("member", ["agents:write"], 403), ("viewer", ["tasks:write"], 403),
    ("editor", ["agents:control"], 201), ("editor", ["credentials:read:stripe"], 403)])
def test_nobody_gives_more_than_he_has(application, ann, people, role, scopes, status):
    user, token = people("bob", role)
    member(ORG, user.id, "admin")
    answer = Client(application, token).post(f"/organizations/{ORG}/api-keys", {"name": "k", "scopes": scopes})
    assert answer.status == status
    assert status == 201 or scopes[0] in answer.error["message"]


def test_a_key_can_do_what_its_scopes_say_and_no_more(application, make):
    reader = Client(application, make("tasks:read")["key"])
    assert reader.get("/tasks").status == 200
    denied = reader.post("/tasks", {"title": "x"})
    assert denied.status == 403 and "tasks:write" in denied.error["message"]
    assert reader.get("/auth/me").data["scopes"] == ["tasks:read"]
    assert Client(application).get("/tasks", headers={"X-API-Key": reader.token}).status == 200


def set_role(user, role):
    db.write(lambda: db.run("UPDATE users SET role = :role WHERE id = :id AND :tenant", id=user.id, role=role))


def test_a_key_weakens_with_its_maker_and_ends_when_he_leaves(application, ann, people):
    user, token = people("bob", "editor")
    member(ORG, user.id, "admin")
    raw = Client(application, token).post(f"/organizations/{ORG}/api-keys", {"name": "k", "scopes": ["tasks:read", "tasks:write", "agents:write"]}).data["key"]
    scopes = lambda: Client(application, raw).get("/auth/me").data["scopes"]  # noqa: E731
    assert scopes() == ["agents:write", "tasks:read", "tasks:write"]
    set_role(user, "member")
    assert scopes() == ["tasks:read", "tasks:write"]
    set_role(user, "editor")
    member(ORG, user.id, "viewer")
    assert scopes() == ["tasks:read"]
    member(ORG, user.id, "admin")
    assert len(scopes()) == 3
    db.write(lambda: db.run("DELETE FROM org_members WHERE user_id = :id", id=user.id))
    assert not speaks(application, raw)


def test_a_key_does_not_come_back_with_its_maker(application, ann, people):
    user, token = people("bob", "editor")
    join = lambda: ann.post(f"/organizations/{ORG}/members", {"user_id": user.id, "role": "admin"}).status  # noqa: E731
    assert join() == 201
    raw = Client(application, token).post(f"/organizations/{ORG}/api-keys", {"name": "k"}).data["key"]
    assert speaks(application, raw)
    assert ann.delete(f"/organizations/{ORG}/members/{user.id}").status == 200
    assert not speaks(application, raw) and join() == 201 and not speaks(application, raw)
    assert [key["revoked_at"] is not None for key in ann.get(f"/organizations/{ORG}/api-keys").data] == [True]


def test_a_key_ends_with_the_account_of_its_maker_or_with_the_organization(application, ann, people, make):
    user, token = people("bob", "editor")
    member(ORG, user.id, "admin")
    his, hers = Client(application, token).post(f"/organizations/{ORG}/api-keys", {"name": "k"}).data["key"], make()["key"]
    alone = keys.issue(1, "alone", ("tasks:read",), by=user.id)[1]
    assert speaks(application, alone)
    db.write(lambda: db.run("DELETE FROM users WHERE id = :id AND :tenant", id=user.id))
    assert not speaks(application, his) and not speaks(application, alone) and speaks(application, hers)
    db.write(lambda: db.run("UPDATE organizations SET deleted_at = :now WHERE id = :id AND :tenant", id=ORG, now=now()))
    assert not speaks(application, hers) and ann.get(f"/organizations/{ORG}/api-keys").status == 404


def test_a_guest_makes_keys_of_the_organization_he_is_admin_of_but_never_an_editors(application, ann, people):
    guest, token = people("gus", "member", tenant=None)
    member(ORG, guest.id, "admin")
    gus = Client(application, token)
    assert gus.post(f"/organizations/{ORG}/api-keys", {"name": "k", "scopes": ["agents:control"]}).status == 403
    raw = gus.post(f"/organizations/{ORG}/api-keys", {"name": "k", "scopes": ["tasks:read", "tasks:write"]}).data["key"]
    ann.post("/tasks", {"title": "Of the host"})
    gus.post("/tasks", {"title": "Of the guest"})
    assert [task["title"] for task in Client(application, raw).get("/tasks").data] == ["Of the host"]


def test_another_tenants_organization_is_not_there(application, ann, people, make):
    made = make()
    stranger = Client(application, people("eve", "admin", tenant=None)[1])
    organization("org_b", stranger.get("/auth/me").data["tenant"], owner=stranger.get("/auth/me").data["id"])
    for org in (ORG, "org_b", "org_none"):
        for method, rest, body in [("GET", "", None), ("PATCH", "", {"name": "x"}), ("DELETE", "", None), ("POST", "/revoke", None),
                                   ("POST", "/rotate", None), ("POST", "/roll", None), ("GET", "/usage", None)]:
            assert stranger.request(method, f"/organizations/{org}/api-keys/{made['id']}{rest}", body).status == 404, (org, method, rest)
    assert speaks(application, made["key"])


@pytest.mark.parametrize("body, status", [
    ({"name": "New", "description": "d"}, 200), ({"scopes": ["tasks:read"]}, 200), ({"is_active": False}, 200),
    ({"expires_at": "2999-01-01T00:00:00Z"}, 200), ({"expires_at": None}, 200), ({}, 200),
    ({"expires_at": "2001-01-01T00:00:00Z"}, 400), ({"scopes": []}, 400), ({"scopes": ["x"]}, 400), ({"hash": "x"}, 400), ({"name": None}, 400)])
def test_changing_a_key(ann, make, body, status):
    answer = ann.patch(path(make()), body)
    assert answer.status == status
    if status == 200:
        assert {name: answer.data[name] for name in body} == {name: "2999-01-01T00:00:00.000Z" if value == "2999-01-01T00:00:00Z" else value
                                                             for name, value in body.items()}


def test_a_key_is_switched_off_and_on_but_never_revived(application, ann, make):
    made = make()
    ann.patch(path(made), {"is_active": False})
    assert not speaks(application, made["key"])
    ann.patch(path(made), {"is_active": True})
    assert speaks(application, made["key"])
    assert ann.post(path(made, "/revoke")).data["revoked_at"]
    assert ann.post(path(made, "/revoke")).status == 200
    assert not speaks(application, made["key"])
    assert ann.patch(path(made), {"is_active": True}).status == 409
    assert ann.patch(path(made), {"name": "Was the shop's"}).status == 200
    assert ann.post(path(made, "/rotate")).status == ann.post(path(made, "/roll")).status == 409


def test_a_lesser_admin_neither_adds_scopes_he_has_not_nor_gets_the_secret_of_a_stronger_key(application, ann, people, make):
    user, token = people("bob", "member")
    member(ORG, user.id, "admin")
    bob, strong = Client(application, token), make("tasks:read", "agents:control")
    assert bob.patch(path(strong), {"scopes": ["tasks:read", "agents:control", "agents:write"]}).status == 403
    assert bob.patch(path(strong), {"scopes": ["tasks:read", "agents:control", "tasks:write"]}).status == 200
    assert bob.post(path(strong, "/rotate")).status == bob.post(path(strong, "/roll")).status == 403
    assert bob.patch(path(strong), {"scopes": ["tasks:read"]}).status == 200
    assert bob.post(path(strong, "/roll")).status == 200


def test_a_deleted_key_is_gone(application, ann, make):
    made = make()
    assert ann.delete(path(made)).data == {"deleted": True, "id": made["id"]}
    assert not speaks(application, made["key"]) and ann.get(f"/organizations/{ORG}/api-keys").data == []
    for method, rest in [("GET", ""), ("DELETE", ""), ("POST", "/revoke"), ("POST", "/rotate"), ("GET", "/usage")]:
        assert ann.request(method, path(made, rest)).status == 404


def test_an_expired_key_is_dead(application, monkeypatch, ann, make):
    made = make(expires_at="2999-01-01T00:00:00Z")
    assert speaks(application, made["key"])
    monkeypatch.setattr(keys, "now", lambda ahead=0.0: "2999-01-01T00:00:00.000Z")
    assert not speaks(application, made["key"])


def test_a_key_is_looked_up_once_between_two_commits(application, monkeypatch, make):
    asked, made, plain = [], make(), keys._row
    monkeypatch.setattr(keys, "_row", lambda digest, moment: asked.append(digest) or plain(digest, moment))
    assert speaks(application, made["key"]) and speaks(application, made["key"]) and len(asked) == 1
    db.write(lambda: db.run("UPDATE api_keys SET is_active = 0 WHERE id = :id", id=made["id"]))  # by whatever way
    assert not speaks(application, made["key"]) and len(asked) == 2
    monkeypatch.setattr(type(db), "stamp", lambda self: asked.append("stamp"))
    assert not speaks(application, "") and not speaks(application, "no key at all") and len(asked) == 2, "a stranger costs the database nothing"


# ── rotating ──


def test_a_rotated_key_has_two_secrets_for_a_while_and_never_three(application, ann, make):
    made = make()
    second = ann.post(path(made, "/rotate")).data
    assert second["version"] == 2 and second["id"] == made["id"] and second["old_until"] > now(23.9 * 3600)
    assert speaks(application, made["key"]) and speaks(application, second["key"])
    third = ann.post(path(made, "/rotate"), {"grace_hours": 1}).data
    assert [speaks(application, one["key"]) for one in (made, second, third)] == [False, True, True]


@pytest.mark.parametrize("body, status", [
    ({"grace_hours": 0}, 200), ({"grace_hours": 168}, 200), ({"version": 1}, 200), ({"version": 7}, 409),
    ({"grace_hours": 169}, 400), ({"grace_hours": -1}, 400), ({"grace_hours": "1"}, 400), ({"grace": 1}, 400)])
def test_rotating(ann, make, body, status):
    assert ann.post(path(make(), "/rotate"), body).status == status


def test_the_grace_ends(application, monkeypatch, ann, make):
    made = make()
    fresh = ann.post(path(made, "/rotate"), {"grace_hours": 2}).data
    monkeypatch.setattr(keys, "now", lambda ahead=0.0: now(2 * 3600 + 1 + ahead))
    assert not speaks(application, made["key"]) and speaks(application, fresh["key"])


@pytest.mark.parametrize("method, rest, left", [("POST", "/revoke", False), ("POST", "/roll", True), ("DELETE", "", False)])
def test_ending_a_key_ends_both_its_secrets(application, ann, make, method, rest, left):
    first = make()
    second = ann.post(path(first, "/rotate")).data
    answer = ann.request(method, path(first, rest))
    assert not speaks(application, first["key"]) and not speaks(application, second["key"])
    assert not left or speaks(application, answer.data["key"])


def test_of_two_rotations_at_once_one_wins(application, monkeypatch, ann, make):
    made, both, mint = make(), threading.Barrier(2), tokens.mint

    def slowly(kind):
        both.wait(10)  # both have read the key by now
        return mint(kind)
    monkeypatch.setattr(tokens, "mint", slowly)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ann.post(path(made, "/rotate")))) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(answer.status for answer in answers) == [200, 409]
    winner = next(answer for answer in answers if answer.status == 200).data
    assert winner["version"] == 2 and speaks(application, winner["key"]) and speaks(application, made["key"])


# ── using ──


def test_a_revoked_key_ends_its_open_long_poll_and_gets_no_job(application, ann, make):
    made, answers = make("queue:work"), []
    robot = Client(application, made["key"])
    began = time.monotonic()
    thread = threading.Thread(target=lambda: answers.append(robot.post("/task-queue/claim", {"worker_id": "w", "wait_seconds": 20})))
    thread.start()
    eventually(lambda: queue.waiting._sleepers)
    ann.post(path(made, "/revoke"))
    with acting(system()):
        queue.submit("default", "resize", {})  # this wakes the poll
    thread.join(3)
    assert not thread.is_alive() and time.monotonic() - began < 3
    assert answers[0].status == 401
    assert db.value("SELECT state FROM jobs WHERE :tenant") == "waiting"


def test_a_long_poll_ends_when_its_keys_scope_is_taken_away(application, ann, make):
    made, answers = make("queue:work", "tasks:read"), []
    thread = threading.Thread(target=lambda: answers.append(
        Client(application, made["key"]).post("/task-queue/claim", {"worker_id": "w", "wait_seconds": 20})))
    thread.start()
    eventually(lambda: queue.waiting._sleepers)
    ann.patch(path(made), {"scopes": ["tasks:read"]})
    thread.join(3)
    assert answers and answers[0].status == 403


@pytest.mark.parametrize("ends, status", [
    (lambda ann, made: ann.post(path(made, "/revoke")), 401), (lambda ann, made: ann.delete(path(made)), 401),
    (lambda ann, made: ann.patch(path(made), {"scopes": ["tasks:read"]}), 403)])
def test_a_heartbeat_that_waits_ends_with_its_key(application, ann, make, ends, status):
    made, answers = make("queue:work", "queue:submit", "tasks:read"), []
    robot = Client(application, made["key"])
    robot.post("/task-queue/submit", {"task_type": "t"})
    held = robot.post("/task-queue/claim", {"worker_id": "w"}).data
    thread = threading.Thread(target=lambda: answers.append(
        robot.post(f"/task-queue/{held['id']}/heartbeat", {"lease_token": held["lease_token"], "wait_seconds": 20})))
    thread.start()
    eventually(lambda: queue.working._listening)
    ends(ann, made)
    thread.join(2)
    assert answers and answers[0].status == status and not queue.working._listening
    assert db.value("SELECT state FROM jobs WHERE :tenant") == "active", "the lease is the job's matter"


def test_the_usage_log_has_routes_and_answers_newest_first(application, ann, make):
    made = make("tasks:read")
    robot = Client(application, made["key"], address="192.0.2.7")
    for question in ("/tasks", "/tasks/99?secret=1", "/agents"):
        robot.get(question)
    answer = ann.get(path(made, "/usage?limit=2"))
    assert [(one["method"], one["route"], one["status"], one["address"]) for one in answer.data] == [
        ("GET", "/api/agents", 403, "192.0.2.7"), ("GET", "/api/tasks/{id}", 400, "192.0.2.7")]
    assert answer.meta["total"] == 3 and "secret" not in str(answer.json)
    assert ann.get(path(made)).data["last_used_at"] <= now()


def test_a_request_does_not_write_its_own_use(application, make):
    robot = Client(application, make("tasks:read")["key"])
    uses.flush()
    before = db.value("SELECT count(*) FROM api_key_uses")
    changes = db.writer.total_changes()
    for _ in range(20):
        robot.get("/tasks")
    assert db.writer.total_changes() == changes
    uses.flush()
    assert db.value("SELECT count(*) FROM api_key_uses") == before + 20


def test_uses_are_forgotten_after_thirty_days_and_kept_to_a_number_of_each_key(data, monkeypatch):
    monkeypatch.setattr(uses, "KEEP_EACH", 3)
    monkeypatch.setattr(uses, "BATCH", 2)
    one = ("GET", "/api/tasks", 200, "local")
    uses._uses.clear()
    uses._uses.extend([("old", *one, now(-31 * 86400)) for _ in range(5)])
    uses._uses.extend([(key, *one, now()) for key in ("a", "b", "a", "a", "a", "a")])
    uses.flush()
    uses.prune()
    assert db.all(tuple, "SELECT key_id, count(*) FROM api_key_uses GROUP BY key_id ORDER BY key_id") == [("a", 3), ("b", 1)]


def test_making_keys_is_limited_and_taking_them_back_is_not(ann, make, monkeypatch):
    made = make()
    monkeypatch.setitem(settings.values, "limit_key_management", "2/hour")
    limiter.__init__()
    statuses = [ann.post(f"/organizations/{ORG}/api-keys", {"name": "k"}).status for _ in range(3)]
    assert statuses == [201, 201, 429] and ann.post(path(made, "/roll")).status == 429
    assert ann.post(path(made, "/revoke")).status == 200


@pytest.mark.parametrize("headers", [
    {"Authorization": "Bearer " + "x" * (1 << 20)}, {"X-API-Key": "ork_live_" + "0" * (1 << 20)}, {"Authorization": "Bearer "},
    {"Authorization": "Bearer ork_live_" + "0" * 38}, {"Authorization": "Basic YTpi"}, {"Authorization": "\xff\xfe\x00"},
    {"Authorization": "Bearer ork_live_\n" + "0" * 37}, {"X-API-Key": "' OR 1=1 --"}, {"X-API-Key": "ørk_live_ÿ"},
    {"Authorization": "Bearer"}, {"Authorization": "bearer bearer bearer"}])
def test_junk_for_a_key_is_401(anonymous, headers):
    answer = anonymous.get("/auth/me", headers=headers)
    assert answer.status == 401 and answer.headers["WWW-Authenticate"] == "Bearer" and len(answer.body) < 1000


def test_every_letter_of_a_key_counts(application, make):
    raw = make()["key"]
    for at in (9, 20, len(raw) - 1):
        other = raw[:at] + ("0" if raw[at] != "0" else "1") + raw[at + 1:]
        assert not speaks(application, other)
    assert not speaks(application, raw.upper()) and not speaks(application, raw + "0") and speaks(application, raw)


# ── the command ──


@pytest.mark.slow
def test_the_key_command_works_without_a_server_and_beside_one(server, tmp_path):
    folder = tmp_path / "data"
    command("user", "add", "root@example.com", "--role", "admin", "--password-stdin", folder=folder, stdin="correct horse battery\n")
    raw, said = command("key", "create", "Shop", "--scope", "tasks:read", "--scope", "tasks:write", folder=folder).stdout.splitlines()
    id = said.split()[0]
    running = server(folder=folder)
    assert running.call("GET", "/auth/me", token=raw)[1]["data"]["scopes"] == ["tasks:read", "tasks:write"]
    listed = command("key", "list", folder=folder).stdout
    assert id in listed and "'Shop'" in listed and "active" in listed and raw not in listed
    eventually(lambda: "never" not in command("key", "list", folder=folder).stdout, every=0.5)
    command("key", "revoke", id, folder=folder)
    assert running.call("GET", "/auth/me", token=raw)[0] == 401
    assert "revoked" in command("key", "list", folder=folder).stdout


@pytest.mark.parametrize("arguments, said", [
    (("revoke", "key_none"), "no key key_none"), (("create",), "Say which"), (("create", "x", "--scope", "all"), "no scope 'all'"),
    (("create", "x", "--as", "nobody@example.com"), "nobody@example.com")])
def test_the_key_command_says_what_is_wrong(data, tmp_path, people, arguments, said):
    people("root", "admin")
    storage.close_data()
    done = command("key", *arguments, folder=data, check=False)
    storage.open_data(exclusive=True)
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_last_uses_are_written_when_the_server_ends(server, tmp_path):
    folder = tmp_path / "data"
    command("user", "add", "root@example.com", "--role", "admin", "--password-stdin", folder=folder, stdin="correct horse battery\n")
    raw = command("key", "create", "Shop", folder=folder).stdout.splitlines()[0]
    running = server(folder=folder)
    for _ in range(3):
        assert running.call("GET", "/tasks", token=raw)[0] == 200
    running.stop()
    settings.load(data=folder)
    storage.open_data()
    try:
        assert db.value("SELECT count(*) FROM api_key_uses") == 3
    finally:
        storage.close_data()


def test_an_agent_has_one_key(application):
    raw = keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1]
    second = keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1]
    assert not speaks(application, raw) and speaks(application, second)
