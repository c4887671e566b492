"""Who may call what: the table, held against the running application, and two tenants that must not meet."""
import os
import subprocess
import sys

import msgspec
import pytest
from conftest import Client
from test_shape import TENANT_OWNED

import orkosi
from orkosi import HOST_TENANT, acting, db, now, settings, system
from plugins import access, keys, queue, users
from plugins.access import PRINCIPALS, cell, table
from plugins.orgs.ranks import RANK

orkosi.load()
MARK = "xqcanary"
# They end what the others stand on, and so come last, each with fresh sessions.
LAST = [("DELETE", "/api/teams/{id}"), ("DELETE", "/api/organizations/{id}"), ("POST", "/api/auth/logout"), ("DELETE", "/api/users/me")]
ROUTES = sorted(orkosi.endpoints(), key=lambda one: LAST.index((one.method, one.path)) if (one.method, one.path) in LAST else -1)


def token_of(user):
    return users.open_session(user.id, "test").access


@pytest.fixture
def cast(application, data, client):
    """Every principal of the table, alive: name → a client whose token can be had anew."""
    people, clients = {}, {"anonymous": Client(application)}
    with acting(system()):
        for name in PRINCIPALS:
            role = name if name in access.ROLES else "member"
            if not name.startswith("key") and name != "anonymous":
                home = None if name == "founder elsewhere" else HOST_TENANT
                people[name] = users.add(name, f"{name.replace(' ', '-')}@example.com", users.passwords.hashed("correct horse"), role, home)
                clients[name] = Client(application, token_of(people[name]))
        maker, elsewhere = people["admin"], people["founder elsewhere"]
        past = now(-60)
        for name, options in {"key without scopes": ((), {}), "key with all scopes": (keys.SCOPES, {}), "key expired": (keys.SCOPES, {"expires_at": past}),
                              "key revoked": (keys.SCOPES, {}), "key of an agent": (keys.AGENT_SCOPES, {"agent": "felix"}),
                              "key elsewhere": (keys.SCOPES, {"tenant": elsewhere.tenant_id, "by": elsewhere.id})}.items():
            scopes, more = options
            made, raw = keys.issue(more.pop("tenant", HOST_TENANT), name, scopes, **{"by": None if "agent" in more else maker.id} | more)
            clients[name] = Client(application, raw)
            if name == "key revoked":
                db.write(lambda made=made: db.run("UPDATE api_keys SET is_active = 0, revoked_at = created_at WHERE id = :id", id=made.id))
    owner = clients["rank owner"]
    ids = {"organizations": owner.post("/organizations", {"name": "Acme"}).data["id"], "teams": owner.post("/teams", {"name": "Crew"}).data["id"]}
    for kind, id in ids.items():
        for rank in set(RANK) - {"owner"} - ({"viewer"} if kind == "teams" else set()):
            assert owner.post(f"/{kind}/{id}/members", {"user_id": people[f"rank {rank}"].id, "role": rank}).status == 201

    def refresh():
        for name, user in people.items():
            clients[name].token = token_of(user)
    clients["refresh"], clients["ids"] = refresh, ids
    return clients


def placeholder(endpoint, cast):
    """The route's path with made-up ids, or real ones where a rank in the thing is what counts."""
    path, kind = endpoint.path, endpoint.path.removeprefix("/api/").split("/")[0]
    for name, wire in endpoint.path_names.items():
        value = 999999 if endpoint.path_types[name] is int else "none"
        if endpoint.auth.within and wire in ("id", "orgId"):
            value = cast["ids"][kind]
        if endpoint.path == "/pages/{file}":
            value = "pages.js"
        path = path.replace("{%s}" % wire, str(value))
    return path


def body_of(endpoint, principal):
    """Nothing, which is refused as a body only after the gate; or, where a verb is the gate, what gets as far as that verb."""
    if endpoint.body_type is None:
        return None
    names = {one.encode_name for one in msgspec.structs.fields(endpoint.body_type)} if endpoint.auth.within else set()
    known = {"name": "Anew", "user_id": 999999, "email": f"{principal.replace(' ', '-')}.friend@example.com", "role": "member"}
    return {name: value for name, value in known.items() if name in names}


def test_every_cell_of_the_table_holds(cast):
    settings.values |= {name: "off" for name in settings.known if name.startswith("limit_")}
    wrong, seen = [], 0
    for endpoint in ROUTES:
        path = placeholder(endpoint, cast)
        for principal in PRINCIPALS:
            if (endpoint.method, endpoint.path) == LAST[2]:
                cast["refresh"]()
            answer = cast[principal].request(endpoint.method, path, body_of(endpoint, principal), root="/")
            expected, seen = cell(endpoint, principal), seen + 1
            held = {"yes": answer.status not in (401, 403), "no": answer.status in (401, 403) or (answer.status == 404 and endpoint.auth.within),
                    "rank": answer.status != 401, "own": answer.status != 401}[expected]
            if not held:
                wrong.append(f"{endpoint.method} {endpoint.path} as {principal}: {expected}, but {answer}")
        if endpoint.path.startswith("/api/auth"):
            cast["refresh"]()
    assert not wrong, "\n".join(wrong)
    assert seen == len(orkosi.endpoints()) * len(PRINCIPALS)


def test_the_command_prints_every_operation():
    done = subprocess.run([sys.executable, f"{orkosi.HOME}/orkosi.py", "access"], capture_output=True, text=True, env=os.environ | {"ORKOSI_NO_INSTALL": "1"})
    assert done.returncode == 0 and len(table()) == len(orkosi.endpoints())
    for endpoint in orkosi.endpoints():
        assert f"{endpoint.method:6} {endpoint.path} " in done.stdout


def test_what_the_table_must_say():
    found = {(one.method, one.path): cells for one, cells in table()}
    assert found["DELETE", "/api/organizations/{id}"]["rank admin"] == "no" and found["DELETE", "/api/organizations/{id}"]["rank owner"] == "yes"
    assert set(found["GET", "/api/health"].values()) == {"yes"}
    assert all(cells[name] == "no" for key, cells in found.items() for name in ("anonymous", "key expired", "key revoked")
               if not next(one for one in ROUTES if (one.method, one.path) == key).auth.public)
    for (method, path), cells in found.items():
        if any(part in path for part in ("/users", "/members", "/invites", "/teams", "/organizations")):
            assert cells["key with all scopes"] == "no", f"{method} {path}: no key manages people"
        if cells["demo"] == "yes" and cells["anonymous"] == "no":
            assert method == "GET" or path.startswith(("/api/auth/logout", "/api/auth/sessions")), f"demo only reads: {method} {path}"


# ── two tenants ──


@pytest.fixture
def theirs(client, data):
    """What the host tenant has, everything marked and a row in every table: ids by the first part of a path."""
    def made(path, body, **more):
        answer = client.post(path, body, **more)
        assert answer.status in (200, 201), answer
        return answer.data
    made("/agents", {"name": "felix"})
    made("/products", {"name": f"{MARK} shop", "slug": f"{MARK}-shop"})
    task = made("/tasks", {"title": f"{MARK} task", "assignee": "felix"})["id"]
    made("/tasks", {"title": f"{MARK} after", "blocked_by": [task]})
    job = made("/task-queue/submit", {"task_type": MARK, "payload": {"x": MARK}, "queue_name": "default"})["id"]
    queue.pause(MARK)
    org, team = made("/organizations", {"name": MARK})["id"], made("/teams", {"name": MARK})["id"]
    invite = made(f"/organizations/{org}/invites", {"email": f"{MARK}@example.com"})["id"]
    template = made("/v1/public/templates", {"name": MARK, "slug": MARK}, headers={"Idempotency-Key": MARK})["id"]
    me = client.get("/auth/me").data["id"]
    key, _ = keys.issue(HOST_TENANT, MARK, keys.DEFAULT_SCOPES, org_id=org, by=me)
    ids = {"agent-runs": made("/agent-runs", {"agent": "felix", "task_id": task}), "notifications": made("/notifications", {"title": MARK, "message": MARK}),
           "rules": made("/rules", {"rule": MARK}), "files": made("/files", {"name": f"{MARK}.txt", "path": f"notes/{MARK}.txt", "content": MARK}),
           "automations": made("/automations", {"name": MARK, "agent_name": "felix", "type": "script", "path": f"agents/felix/{MARK}.sh"})}
    ids = {name: {"id": one["id"]} for name, one in ids.items()}
    return ids | {"organizations": {"id": org, "orgId": org}, "teams": {"id": team}, "tasks": {"id": task}, "task-queue": {"id": job}, "users": {"id": me},
                  "templates": {"id": template}, "auth": {"id": db.value("SELECT min(id) FROM sessions WHERE user_id = :id", id=me)},
                  "*": {"name": "felix", "orgId": org, "keyId": key.id, "slug": f"{MARK}-shop", "id": 1, "userId": me, "inviteId": invite, "token": "none", "file": "pages.js"}}


def rows():
    """Everything the host tenant owns, as it is stored."""
    found = {}
    for name, columns in db.columns.items():
        if "tenant_id" in columns:
            found[name] = db.all(tuple, f"SELECT * FROM {name} WHERE tenant_id = :tenant ORDER BY 1")
    return found | {name: db.all(tuple, f"SELECT * FROM {name} ORDER BY 1, 2") for name in ("org_members", "team_members")}


EMPTY = {}  # table: why the host tenant of these tests has no row in it


def test_the_host_tenant_has_a_row_in_every_table_that_tenants_own(theirs):
    """Otherwise the tests below would hold for a table because nothing is in it."""
    empty = {name for name, found in rows().items() if not found}
    assert empty == set(EMPTY), "fill it in `theirs`, or give the reason in EMPTY"
    assert set(rows()) >= TENANT_OWNED


def test_every_id_that_is_hidden_below_is_there(client, theirs):
    for endpoint in BEARING:
        if endpoint.method == "GET" and not endpoint.auth.public:
            assert client.get(path_of(endpoint, theirs)).status == 200, endpoint.path


def sample(kind):
    """A body that fits: the simplest value of every required field."""
    body = {}
    for one in msgspec.structs.fields(kind):
        if one.required:
            for value in ("xxxxxxxx", 1, True, [], {}, ["x"], "admin", "P1", "todo", "member", "user"):
                try:
                    msgspec.convert(value, one.type)
                    body[one.encode_name] = value
                    break
                except msgspec.ValidationError:
                    continue
    return body


@pytest.fixture
def strangers(application, people):
    """Another tenant's administrator, and a key of that tenant that may all that a key may."""
    user, _ = people("stranger", "member", None)
    db.write(lambda: db.run("UPDATE users SET role = 'admin' WHERE id = :id AND :tenant", id=user.id))
    _, raw = keys.issue(user.tenant_id, "all", keys.SCOPES, by=user.id)
    return user, lambda: Client(application, token_of(user)), lambda: Client(application, raw)


def path_of(endpoint, theirs):
    path, own = endpoint.path, theirs.get(endpoint.path.removeprefix("/api/").removeprefix("v1/public/").split("/")[0], {})
    for name, wire in endpoint.path_names.items():
        value = own.get(wire, theirs["*"].get(wire, "felix"))
        if endpoint.path_types[name] is int and not isinstance(value, int):
            value = 1
        path = path.replace("{%s}" % wire, str(value))
    return path


BEARING = [one for one in ROUTES if "{" in one.path and one.path.startswith("/api/") and (one.method, one.path) not in LAST[2:]]


def test_no_id_of_another_tenant_opens_anything(theirs, strangers):
    settings.values |= {name: "off" for name in settings.known if name.startswith("limit_")}
    before, wrong = rows(), []
    for endpoint in BEARING:
        # A number, or a key_, job_ or org_, is one row's alone; a name may be one's own as well, and then only nothing of theirs may show.
        by_name = all(wire in ("name", "slug", "queue", "token", "filename", "file", "agent") for wire in endpoint.path_names.values())
        for make in strangers[1:]:
            answer = make().request(endpoint.method, path_of(endpoint, theirs), sample(endpoint.body_type) if endpoint.body_type else None)
            fine = MARK not in answer.body.decode(errors="replace").replace(f"{MARK}-shop", "") if by_name else answer.status in (403, 404)
            if not fine and not (answer.status == 400 and endpoint.body_type):
                wrong.append(f"{endpoint.method} {endpoint.path}: {answer}")
    assert not wrong, "\n".join(wrong)
    assert rows() == before


def test_no_list_or_body_names_another_tenant(theirs, strangers):
    settings.values |= {name: "off" for name in settings.known if name.startswith("limit_")}
    before, wrong, tried = rows(), [], 0
    foreign = {"tenant_id": HOST_TENANT, "company_id": HOST_TENANT, "user_id": 1, "task_id": 1, "blocked_by": [1], "org_id": theirs["*"]["orgId"], "agent": "felix"}
    for endpoint in ROUTES:
        if not endpoint.path.startswith("/api/") or endpoint.auth.public:
            continue
        path = path_of(endpoint, theirs)
        for make in strangers[1:]:
            if endpoint.method == "GET":
                names = {one.encode_name for one in msgspec.structs.fields(endpoint.query_type)} if endpoint.query_type else set()
                queries = ["", *(f"?{name}={foreign[name]}" for name in names & set(foreign) - {"blocked_by"}), *(f"?{name}={MARK}" for name in names & {"q"})]
                for query in queries:
                    tried += 1
                    answer = make().get(path + query)
                    # What one asked for comes back in a refusal; an answer may hold nothing of theirs.
                    if answer.status == 200 and MARK in answer.body.decode(errors="replace"):
                        wrong.append(f"GET {endpoint.path}{query}: {answer}")
                    if query.startswith(("?tenant_id", "?company_id")) and answer.status == 200:
                        wrong.append(f"GET {endpoint.path}{query}: {answer}")
            elif endpoint.body_type:
                for name in {one.encode_name for one in msgspec.structs.fields(endpoint.body_type)} & set(foreign):
                    tried += 1
                    answer = make().request(endpoint.method, path, sample(endpoint.body_type) | {name: foreign[name]})
                    if answer.status < 300 and name in ("tenant_id", "company_id", "user_id", "blocked_by", "org_id"):
                        wrong.append(f"{endpoint.method} {endpoint.path} {name}: {answer}")
    assert not wrong, "\n".join(wrong)
    assert rows() == before and tried > 100
