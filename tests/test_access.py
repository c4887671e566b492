"""Who may call what: the table, held against the running application, and two tenants that must not meet."""
import itertools
import os
import subprocess
import sys

import msgspec
import pytest
from conftest import Client
from test_shape import TENANT_OWNED

import orkosi
from orkosi import HOST_TENANT, NOBODY, acting, db, now, settings, system
from plugins import access, backups, keys, queue, tokens, users
from plugins.access import PRINCIPALS, cell, table
from plugins.billing import credits, plans, topups
from plugins.orgs.ranks import RANK

orkosi.load()
MARK = "xqcanary"
# They end what the others stand on, and so come last, each with fresh sessions.
LAST = [("DELETE", "/api/teams/{id}"), ("DELETE", "/api/organizations/{id}"), ("POST", "/api/auth/logout"), ("DELETE", "/api/users/me")]
# Pages first: what they show is still there.
ROUTES = sorted(orkosi.endpoints(), key=lambda one: LAST.index((one.method, one.path)) if (one.method, one.path) in LAST else -1 - hasattr(one.fn, "shows"))


def token_of(user):
    return users.open_session(user.id, "test").access


def address(name):
    return f"{name.replace(' ', '-')}@example.com"


def another_backup():
    name = backups.fresh_name("manual")
    (backups.making.folder() / name).write_bytes(backups.at(backups.everything()[0].filename).read_bytes())
    return name


# ── every cell of the table, by one status ──


def unset_topups(cast, who):
    db.write(lambda: db.run("DELETE FROM topups"))
    return {}, {"threshold_tokens": 5, "package_id": "tokens-1m", "enabled": False}


def unset_credits(cast, who):
    db.write(lambda: db.run("DELETE FROM topups"))
    return {}, {"threshold_cents": 5, "package_slug": "credits-10", "enabled": False}


def topup(cast, who, kind):
    with acting(system(cast.people[who].tenant_id)):
        topups.put(kind, cast.people[who].id if kind == "credits" else 0, topups.find(kind, cast.people[who].id if kind == "credits" else 0) is None, None,
                   enabled=False, threshold=5, package={"tokens": "tokens-1m", "credits": "credits-10"}[kind], max_monthly=1)
    return {}, {"enabled": False}


def plan_ends():
    """Every plan that is paid for ends with its period."""
    db.write(lambda: db.run("UPDATE subscriptions SET cancel_at_period_end = 1"))


def buy(client, stripe):
    """A plan of the tier solo, and what comes with it."""
    session = client.post("/billing/checkout", {"tier": "solo"}).data["session_id"]
    stripe.pay(session)
    with acting(system(client.get("/tokens/balance").data["company_id"])):
        plans.sync(stripe.checkout_sessions[session]["customer"])


class Cast:
    """Every principal of the table, alive, in front of a company with a row in every table."""

    def __init__(self, application, host, ids, stripe):
        self.application, self.host, self.ids, self.numbers = application, host, ids, itertools.count(1)
        self.people, self.clients = {}, {"anonymous": Client(application)}
        for name in PRINCIPALS:
            if not name.startswith("key") and name != "anonymous":
                self.people[name] = self.person(name, name if name in access.ROLES else "member", None if name == "founder elsewhere" else HOST_TENANT)
        self.enter()
        self.give_keys()
        self.found()
        for tenant, in db.all(tuple, "SELECT id FROM tenants"):
            with acting(system(tenant)):
                tokens.credit(10**6, "bonus", MARK)
        buy(self.clients["founder elsewhere"], stripe)

    def person(self, name, role="member", tenant=HOST_TENANT):
        return users.add(name, address(name), users.passwords.hashed("correct horse"), role, tenant)

    def enter(self):
        """Log everybody in, again."""
        for name, user in self.people.items():
            self.clients[name] = Client(self.application, token_of(user))

    def give_keys(self):
        maker, elsewhere = self.people["admin"], self.people["founder elsewhere"]
        for name, scopes, tenant, by, more in [
                ("key without scopes", (), HOST_TENANT, maker, {}), ("key with all scopes", keys.SCOPES, HOST_TENANT, maker, {}),
                ("key expired", keys.SCOPES, HOST_TENANT, maker, {"expires_at": now(-60)}), ("key revoked", keys.SCOPES, HOST_TENANT, maker, {}),
                ("key elsewhere", keys.SCOPES, elsewhere.tenant_id, elsewhere, {})]:
            made, raw = keys.issue(tenant, name, scopes, by=by.id, **more)
            self.clients[name] = Client(self.application, raw)
            if name == "key revoked":
                db.write(lambda made=made: db.run("UPDATE api_keys SET is_active = 0, revoked_at = created_at WHERE id = :id", id=made.id))
        self.clients["key of an agent"] = Client(self.application, (settings.data / "keys" / "felix").read_text().strip())

    def found(self, *kinds):
        """An organization and a team in which there is every rank."""
        for kind in kinds or ("organizations", "teams"):
            id = self.own(f"/{kind}", {"name": f"Acme {next(self.numbers)}"})["id"]
            self.ids[kind] = {"id": id, "orgId": id}
            for rank in set(RANK) - {"owner"} - ({"viewer"} if kind == "teams" else set()):
                self.own(f"/{kind}/{id}/members", {"user_id": self.people[f"rank {rank}"].id, "role": rank})

    def again(self, endpoint):
        """What the principal before may have ended: the organization or team, or the session."""
        kind = endpoint.path.split("/")[2]
        if endpoint.auth.within and self.host.get(path_of(endpoint, self.ids)).status == 404:
            self.found(kind)
        elif kind == "auth":
            self.enter()

    def make(self, path, body, by=None):
        answer = (by or self.host).post(path, body)
        assert answer.status in (200, 201), answer
        return answer.data

    def own(self, path, body):
        return self.make(path, body, self.clients["rank owner"])


@pytest.fixture
def cast(application, client, theirs, stripe, monkeypatch):
    monkeypatch.setitem(settings.values, "limit_billing", "off")
    return Cast(application, client, theirs, stripe)


def job(cast, n, **more):
    """A job of felix's queue, claimed: its id, and the token with which whoever has it says how it went."""
    cast.make("/task-queue/submit", {"task_type": n, "queue_name": "agent:felix"})
    held = cast.make("/task-queue/claim", {"worker_id": "w", "task_type": n, "queue_name": "agent:felix"})
    return {"id": held["id"]}, {"lease_token": held["lease_token"], **more}


def idle_job(cast, n, cancelled=False):
    made = cast.make("/task-queue/submit", {"task_type": n})
    if cancelled:
        cast.make(f"/task-queue/{made['id']}/cancel", None)
    return {"id": made["id"]}, None


def bull_job(cast, n, cancelled=False, **more):
    """A job of a queue of its own, as BullMQ names it."""
    id = cast.make("/bull-queue/submit", {"queue": n, "name": n, "data": {}, **more})["id"]
    if cancelled:
        cast.make(f"/task-queue/job_{id}/cancel", None)
    return {"queue": n, "id": id}, None


def dead_delivery(cast, n):
    """A delivery that was given up."""
    id = cast.make("/webhooks", {"url": "https://example.com/" + n})["id"]
    delivery = cast.make(f"/webhooks/{id}/test", None)["id"]
    db.write(lambda: db.run("UPDATE webhook_deliveries SET status = 'dead' WHERE id = :id", id=delivery))
    return {"id": id, "deliveryId": delivery}, None


def scheduled(cast, n):
    cast.make("/bull-queue/submit-scheduled", {"queue": n, "name": n, "data": {}, "every": 60_000})
    return {"name": n}, None


def finished_job(cast, n):
    names, body = job(cast, n)
    return {}, {"jobs": [names | body]}


def member(cast, kind, n):
    """Somebody new in the organization or team."""
    user = cast.person(n)
    cast.own(f"/{kind}/{cast.ids[kind]['id']}/members", {"user_id": user.id, "role": "member"})
    return {"userId": user.id}, {"role": "admin"}


def invited(cast, kind, who, n):
    """The code of an invitation for the caller's own address, to something new."""
    id = cast.make(f"/{kind}", {"name": n})["id"]
    _, code = users.invite({"organizations": "org", "teams": "team"}[kind], str(id), address(who), "member", cast.ids["users"]["id"], HOST_TENANT)
    return {"token": code}, None


def key(cast, n):
    return {"keyId": cast.own(f"/organizations/{cast.ids['organizations']['id']}/api-keys", {"name": n})["id"]}, {}


def ticket(cast, kind, n, **more):
    return {}, {"token": users.ticket(kind, cast.person(n).id, 60, address(f"new-{n}")), **more}


# What an operation uses up, and what its body must say: for each who may call it, what stands in the path, and the body.
ANEW = {
    "DELETE /api/backups/{filename}": lambda cast, who, n: ({"filename": another_backup()}, None),
    "DELETE /api/users/{id}": lambda cast, who, n: ({"id": cast.person(n).id}, None),
    "DELETE /api/credentials/{key}": lambda cast, who, n: ({"key": cast.make("/credentials", {"key": n.upper().replace("-", "_"), "value": "x"})["key"]}, None),
    "DELETE /api/agents/{name}": lambda cast, who, n: ({"name": cast.make("/agents", {"name": n})["name"]}, None),
    "DELETE /api/automations/{id}": lambda cast, who, n: (
        {"id": cast.make("/automations", {"name": n, "agent_name": "felix", "type": "script", "path": f"{n}.sh"})["id"]}, None),
    "DELETE /api/rules/{id}": lambda cast, who, n: ({"id": cast.make("/rules", {"rule": n})["id"]}, None),
    "DELETE /api/tasks/{id}": lambda cast, who, n: ({"id": cast.make("/tasks", {"title": n})["id"]}, None),
    "DELETE /api/v1/public/tasks/{id}": lambda cast, who, n: ({"id": cast.make("/tasks", {"title": n, "assignee": "felix"})["id"]}, None),
    "DELETE /api/v1/public/agents/{id}": lambda cast, who, n: ({"id": cast.make("/v1/public/agents", {"name": n, "role": "x"})["id"]}, None),
    "DELETE /api/v1/public/templates/{id}": lambda cast, who, n: ({"id": cast.make("/v1/public/templates", {"name": n, "slug": n})["id"]}, None),
    "DELETE /api/auth/sessions/{id}": lambda cast, who, n: ({"id": users.open_session(cast.people[who].id, n).session_id}, None),
    "DELETE /api/organizations/{id}/invites/{inviteId}": lambda cast, who, n: (
        {"inviteId": cast.own(f"/organizations/{cast.ids['organizations']['id']}/invites", {"email": address(n)})["id"]}, None),
    "POST /api/organizations/{id}/invites": lambda cast, who, n: ({}, {"email": address(n)}),
    "POST /api/teams/{id}/invites": lambda cast, who, n: ({}, {"email": address(n)}),
    "POST /api/organizations/invites/{token}/accept": lambda cast, who, n: invited(cast, "organizations", who, n),
    "POST /api/teams/invites/{token}/accept": lambda cast, who, n: invited(cast, "teams", who, n),
    **{f"{method} /api/{kind}/{{id}}/members/{{userId}}": lambda cast, who, n, kind=kind: member(cast, kind, n)
       for kind in ("organizations", "teams") for method in ("PATCH", "DELETE")},
    **{f"POST /api/{kind}/{{id}}/members": lambda cast, who, n: ({}, {"user_id": cast.person(n).id, "role": "member"}) for kind in ("organizations", "teams")},
    **{f"{one} /api/organizations/{{orgId}}/api-keys/{{keyId}}{more}": lambda cast, who, n: key(cast, n) for one, more in [
        ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/usage"), ("POST", "/revoke"), ("POST", "/rotate"), ("POST", "/roll")]},
    "POST /api/task-queue/{id}/complete": lambda cast, who, n: job(cast, n),
    "POST /api/task-queue/{id}/fail": lambda cast, who, n: job(cast, n, error="x"),
    "POST /api/task-queue/{id}/heartbeat": lambda cast, who, n: job(cast, n),
    "POST /api/task-queue/{id}/release": lambda cast, who, n: job(cast, n),
    "POST /api/task-queue/complete": lambda cast, who, n: finished_job(cast, n),
    "GET /api/task-queue/{id}": lambda cast, who, n: job(cast, n),
    "POST /api/task-queue/{id}/cancel": lambda cast, who, n: idle_job(cast, n),
    "GET /organizations/{orgId}/api-keys": lambda cast, who, n: ({"orgId": cast.ids["organizations"]["orgId"]}, None),
    "POST /api/task-queue/retry": lambda cast, who, n: ({}, {"queue_name": MARK}),
    "POST /api/task-queue/bury": lambda cast, who, n: ({}, {"ids": ["job_1"]}),
    "POST /api/task-queue/{id}/retry": lambda cast, who, n: idle_job(cast, n, cancelled=True),
    "POST /api/bull-queue/submit-scheduled": lambda cast, who, n: ({}, {"queue": n, "name": n, "data": {}, "every": 60_000}),
    "POST /api/discovery-engines": lambda cast, who, n: ({}, {"name": n, "layer": "tasks"}),
    "DELETE /api/discovery-engines/{slug}": lambda cast, who, n: ({"slug": cast.make("/discovery-engines", {"name": n, "layer": "tasks"})["slug"]}, None),
    **{f"POST /api/tasks/{{id}}/{word}": lambda cast, who, n: ({"id": cast.make("/tasks", {"title": n, "status": "review"})["id"]}, {"note": n})
       for word in ("approve", "reject")},
    "DELETE /api/files/{id}": lambda cast, who, n: ({"id": cast.make("/files", {"name": n, "path": n})["id"]}, None),
    "POST /api/webhooks": lambda cast, who, n: ({}, {"url": "https://example.com/" + n}),
    "PATCH /api/webhooks/{id}": lambda cast, who, n: ({"id": cast.make("/webhooks", {"url": "https://example.com/" + n})["id"]}, {"description": n}),
    "POST /api/webhooks/{id}/deliveries/{deliveryId}/replay": lambda cast, who, n: dead_delivery(cast, n),
    "DELETE /api/webhooks/{id}": lambda cast, who, n: ({"id": cast.make("/webhooks", {"url": "https://example.com/" + n})["id"]}, None),
    "POST /api/schedules": lambda cast, who, n: ({}, {"name": n, "every_ms": 60_000, "queue_name": n}),
    "DELETE /api/schedules/{id}": lambda cast, who, n: ({"id": cast.make("/schedules", {"name": n, "every_ms": 60_000, "queue_name": n})["id"]}, None),
    "POST /api/tasks/{id}/ask": lambda cast, who, n: ({"id": cast.make("/tasks", {"title": n, "assignee": "felix"})["id"]}, {"question": n}),
    "POST /api/hooks": lambda cast, who, n: ({}, {"name": n, "kind": "none", "title": {"text": n}}),
    "DELETE /api/hooks/{id}": lambda cast, who, n: ({"id": cast.make("/hooks", {"name": n, "kind": "none", "title": {"text": n}})["id"]}, None),
    "POST /hooks/{token}": lambda cast, who, n: (
        {"token": cast.make("/hooks", {"name": n, "kind": "none", "title": {"text": n}})["url"].rpartition("/")[2]}, None),
    "POST /api/bull-queue/{queue}/jobs/{id}/retry": lambda cast, who, n: bull_job(cast, n, cancelled=True),
    "POST /api/bull-queue/{queue}/jobs/{id}/promote": lambda cast, who, n: bull_job(cast, n, delay=60_000),
    "DELETE /api/bull-queue/{queue}/jobs/{id}": lambda cast, who, n: bull_job(cast, n),
    "DELETE /api/bull-queue/schedules/{name}": lambda cast, who, n: scheduled(cast, n),
    "POST /api/task-queue/claim": lambda cast, who, n: ({}, {"worker_id": n, "queue_name": "agent:felix"}),
    "POST /api/agent-runs": lambda cast, who, n: ({}, {"agent": "felix"}),
    "POST /api/tasks": lambda cast, who, n: ({}, {"title": n, "assignee": "felix"}),
    "POST /api/v1/public/tasks": lambda cast, who, n: ({}, {"title": n, "assigned_to": "felix"}),
    "POST /api/logs": lambda cast, who, n: ({}, {"agent": "felix", "message": n}),
    "POST /api/auth/setup": lambda cast, who, n: (
        {}, {"token": users.ticket("setup", None, 60), "username": n, "email": address(n), "password": "correct horse"}),
    "GET /console/{hash}/{file}": lambda cast, who, n: ({"hash": n, "file": "console.css"}, None),
    "GET /api/docs/{file}": lambda cast, who, n: ({"file": "swagger-ui.css"}, None),
    "POST /api/auth/register": lambda cast, who, n: (
        {}, {"username": n, "email": address(n), "password": "correct horse", "terms_accepted": True, "privacy_accepted": True}),
    "POST /api/auth/login": lambda cast, who, n: ({}, {"email": address("viewer"), "password": "correct horse"}),
    "POST /api/auth/refresh": lambda cast, who, n: ({}, {"refresh_token": users.open_session(cast.people["viewer"].id, n).refresh}),
    "POST /api/auth/forgot-password": lambda cast, who, n: ({}, {"email": address("viewer")}),
    "POST /api/auth/reset-password": lambda cast, who, n: ticket(cast, "reset", n, password="correct horse"),
    "POST /api/auth/change-password": lambda cast, who, n: ({}, {"current_password": "correct horse", "new_password": "a better horse"}),
    "POST /api/auth/change-email": lambda cast, who, n: ({}, {"email": address(n), "password": "a better horse"}),
    "POST /api/auth/verify-email": lambda cast, who, n: ticket(cast, "email", n),
    "DELETE /api/users/me": lambda cast, who, n: plan_ends() or ({}, None),  # a founder who pays ends that first
    **{f"POST /api/billing/{one}": lambda cast, who, n: ({}, {"tier": "solo"}) for one in ("validate-downgrade", "checkout", "change-plan")},
    "POST /api/billing/create-payment-intent": lambda cast, who, n: ({}, {"package_slug": "tokens-1m"}),
    "POST /api/billing/auto-topup": lambda cast, who, n: unset_topups(cast, who),
    "PUT /api/billing/auto-topup": lambda cast, who, n: topup(cast, who, "tokens"),
    "POST /api/billing/credit-auto-topup": lambda cast, who, n: unset_credits(cast, who),
    "PUT /api/billing/credit-auto-topup": lambda cast, who, n: topup(cast, who, "credits"),
    "POST /api/auth/invitation": lambda cast, who, n: ({}, invited(cast, "teams", n, n)[0]),
}

# What a GET must be asked, and what else is no success, however right the request is.
ASKED = {"GET /api/search": "?q=x", "GET /api/agent-runs/idle-check": "?agent_name=felix"}
EARNS = {
    "POST /mcp": 400,  # the empty body is no message
    "POST /api/billing/checkout": 409, "POST /api/billing/webhook": 400,  # there is a subscription already; it is not signed
    "POST /api/auth/setup": 404,  # there is an administrator already
    "POST /login": 401, "GET /login/{token}": 404, "GET /setup/{token}": 404, "POST /setup/{token}": 400,  # as forms that nobody filled in
}
# A queue is there as soon as somebody names it, and each tenant's of a name is its own.
NAMED_AT_WILL = {"GET /api/bull-queue/{queue}/jobs", "POST /api/bull-queue/{queue}/pause", "POST /api/bull-queue/{queue}/resume",
                 "POST /api/bull-queue/{queue}/clean", "POST /api/bull-queue/{queue}/retry"}
NOT_ITS_OWN = {"POST /api/notifications", "GET /api/bull-queue/{queue}/jobs", "GET /api/bull-queue/schedules"}  # what an agent's scope would allow, and its verb does not


def spoken(endpoint):
    return f"{endpoint.method} {endpoint.path}"


def request_of(endpoint, principal, cast):
    """Path and body of a request that is right in every way, but for who sends it."""
    n = f"n{next(cast.numbers)}"
    sent = {name: n if value == "xxxxxxxx" else value for name, value in sample(endpoint.body_type).items()} if endpoint.body_type else None
    names = {}
    if (cell(endpoint, principal) != "no" or endpoint.auth.within) and spoken(endpoint) in ANEW:
        names, body = ANEW[spoken(endpoint)](cast, principal, n)
        sent = body if endpoint.body_type else None
    return path_of(endpoint, cast.ids, names) + ASKED.get(spoken(endpoint), ""), sent


def status_of_page(endpoint, shows, principal):
    """A page asks whoever is not logged in to be; to the others it is what the operation is that it shows."""
    actor = PRINCIPALS[principal]
    if actor.user is None or actor.scopes is not None:
        return 200
    if isinstance(shows, str):
        return status_of(next(one for one in ROUTES if spoken(one) == shows), principal)
    try:
        orkosi.admit(shows, actor)
    except orkosi.Problem:
        return 403
    return 200


def status_of(endpoint, principal):
    """The one status that an operation has for a principal."""
    if shows := getattr(endpoint.fn, "shows", None):
        return status_of_page(endpoint, shows, principal)
    kind, actor, earned = cell(endpoint, principal), PRINCIPALS[principal], EARNS.get(spoken(endpoint), endpoint.status)
    if kind == "no":
        return 401 if actor is NOBODY else 403
    if kind == "rank" and endpoint.path.startswith("/api/organizations"):  # seen by its members alone, and by the tenant's administrator
        return 404 if principal != "admin" else earned if endpoint.auth.within == "viewer" else 403
    if kind == "rank":  # a team is seen by its whole tenant, whose administrator does in it what its own may
        return 404 if actor.tenant != HOST_TENANT else earned if principal == "admin" else 403
    if kind == "own" and spoken(endpoint) in NOT_ITS_OWN:
        return 403
    if kind == "own" and spoken(endpoint) == "GET /api/files/{id}":
        return 404  # that file is of no workspace
    # What a path names is the host tenant's, but for one's own sessions, and invitations to organizations: those go anywhere.
    hidden = endpoint.path_names and not endpoint.auth.public and not endpoint.path.startswith(("/api/auth/", "/api/organizations/invites/"))
    hidden = hidden and spoken(endpoint) not in NAMED_AT_WILL
    return 404 if hidden and actor.tenant != HOST_TENANT else earned


def test_every_cell_of_the_table_holds(cast):
    settings.values |= {name: "off" for name in settings.known if name.startswith("limit_")} | {"registration": "open"}
    wrong, seen = [], 0
    for endpoint in ROUTES:
        last = (endpoint.method, endpoint.path) in LAST
        for principal in sorted(PRINCIPALS, key=lambda one: cell(endpoint, one) == "yes") if last else PRINCIPALS:  # noqa: B023
            if last:
                cast.again(endpoint)
            path, body = request_of(endpoint, principal, cast)
            answer, seen = cast.clients[principal].request(endpoint.method, path, body, root="/"), seen + 1
            if answer.status != status_of(endpoint, principal):
                wrong.append(f"{spoken(endpoint)} as {principal} ({cell(endpoint, principal)}): {status_of(endpoint, principal)}, but {answer}")
        if endpoint.path.startswith("/api/auth"):
            cast.enter()
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)
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
            assert cells["key with all scopes"] == "no" or method == "GET", f"{method} {path}: no key manages people"
        if cells["demo"] == "yes" and cells["anonymous"] == "no":
            assert method == "GET" or path.startswith(("/api/auth/logout", "/api/auth/sessions", "/mcp")), f"demo only reads: {method} {path}"


# ── two tenants ──


@pytest.fixture
def theirs(client, data, stripe):
    """What the host tenant has, everything marked and a row in every table: ids by the first part of a path."""
    def made(path, body, **more):
        answer = client.post(path, body, **more)
        assert answer.status in (200, 201), answer
        return answer.data
    made("/agents", {"name": "felix"})
    made("/products", {"name": f"{MARK} shop", "slug": f"{MARK}-shop"})
    task = made("/tasks", {"title": f"{MARK} task", "assignee": "felix"})["id"]
    made("/tasks", {"title": f"{MARK} after", "blocked_by": [task]})
    made("/tasks", {"title": f"{MARK} before", "status": "done"})
    job = made("/task-queue/submit", {"task_type": MARK, "payload": {"x": MARK}, "queue_name": "default"})["id"]
    made("/bull-queue/submit-scheduled", {"queue": MARK, "name": MARK, "data": {"x": MARK}, "every": 60_000})
    queue.pause(MARK)
    org, team = made("/organizations", {"name": MARK})["id"], made("/teams", {"name": MARK})["id"]
    invite = made(f"/organizations/{org}/invites", {"email": f"{MARK}@example.com"})["id"]
    template = made("/v1/public/templates", {"name": MARK, "slug": MARK}, headers={"Idempotency-Key": MARK})["id"]
    made("/tokens/grant", {"company_id": HOST_TENANT, "amount": 100, "note": MARK})
    made("/credentials", {"key": MARK.upper(), "value": MARK, "description": MARK, "grants": ["felix"]})
    assert client.get(f"/credentials/{MARK.upper()}").status == 200
    me = client.get("/auth/me").data["id"]
    key, _ = keys.issue(HOST_TENANT, MARK, keys.DEFAULT_SCOPES, org_id=org, by=me)
    ids = {"agent-runs": made("/agent-runs", {"agent": "felix", "task_id": task}), "notifications": made("/notifications", {"title": MARK, "message": MARK}),
           "rules": made("/rules", {"rule": MARK}), "files": made("/files", {"name": f"{MARK}.txt", "path": f"notes/{MARK}.txt", "content": MARK}),
           "automations": made("/automations", {"name": MARK, "agent_name": "felix", "type": "script", "path": f"agents/felix/{MARK}.sh"})}
    assert client.patch(f"/notifications/{ids['notifications']['id']}/read").status == client.patch("/notifications/read-all").status == 200
    made("/notifications", {"title": MARK, "message": MARK}), client.patch("/notifications/read-all")
    assert client.patch("/factory-workers/config", {"worker_count": 1}).status == 200
    db.write(lambda: db.run("INSERT INTO factory_jobs (tenant_id, worker, outcome, ms, finished_at) VALUES (1, 1, 'completed', 5, :now)", now=now()))
    made("/discovery-engines", {"name": MARK, "layer": "tasks"}), made(f"/discovery-engines/{MARK}/run", None)
    db.write(lambda: db.run("INSERT INTO discovery_tasks (tenant_id, engine_id, run_id, fingerprint, task_id, filed_at) VALUES (1, 1, 1, :mark, 1, :now)",
                            mark=MARK, now=now()))
    db.write(lambda: db.run("""INSERT INTO file_versions (tenant_id, path, workspace, content, since, until)
                               VALUES (1, :path, 'felix', :mark, :now, :now)""", path=f"notes/{MARK}.txt", mark=MARK, now=now()))
    db.write(lambda: db.run("INSERT INTO idle_days (tenant_id, agent, day, skipped) VALUES (1, 'felix', '2026-11-02', 1)"))
    run = made("/agent-runs", {"agent": "felix", "task_id": task})["id"]
    assert client.patch(f"/agent-runs/{run}", {"status": "done", "tokens_in": 5, "cost_micros": 7, "note": MARK}).status == 200
    assert client.post("/integrations/webhook/configure", {"fields": {"url": "https://example.com/" + MARK}}).status == 200
    db.write(lambda: db.run("INSERT INTO integration_checks (tenant_id, id, status, detail, checked_at) VALUES (1, 'webhook', 'verified', :mark, :now)",
                            mark=MARK, now=now()))
    buy(client, stripe)
    made("/billing/auto-topup", {"threshold_tokens": 5, "package_id": "tokens-1m"}), made("/billing/create-payment-intent", {"package_slug": "credits-10"})
    db.write(lambda: db.run("INSERT INTO plan_grants (tenant_id, tier, granted_by, granted_at) VALUES (1, 'free', 'system', :now)", now=now()))
    with acting(system()):
        credits.move_credits(me, "purchase", 10_000, MARK)
    ids["webhooks"] = made("/webhooks", {"url": "https://example.com/" + MARK})
    made(f"/webhooks/{ids['webhooks']['id']}/test", None)
    ids["schedules"] = made("/schedules", {"name": MARK, "every_ms": 60_000, "queue_name": MARK + ".", "payload": {"x": MARK}})
    ids["hooks"] = made("/hooks", {"name": MARK, "kind": "none", "title": {"text": MARK}})
    assert client.post(ids["hooks"]["url"].partition("/hooks/")[1] + ids["hooks"]["url"].partition("/hooks/")[2], {"x": MARK}, root="/").status == 201
    ids = {name: {"id": one["id"]} for name, one in ids.items()} | {"discovery-engines": {"slug": MARK}, "integrations": {"id": "litestream"}}
    kept = settings.data / "agents/felix/runs" / str(ids["agent-runs"]["id"])
    kept.mkdir(parents=True)
    (kept / "stdout").write_text(MARK), (kept / "input.json").write_text('{"told": {"task": null}}')
    backup = backups.fresh_name("manual")
    backups.making.folder().mkdir(exist_ok=True)
    with acting(system()):
        backups.making.make(backup, "manual")
    return ids | {"backups": {"filename": backup}, "organizations": {"id": org, "orgId": org}, "teams": {"id": team}, "tasks": {"id": task}, "task-queue": {"id": job}, "users": {"id": me}, "credentials": {"key": MARK.upper()},
                  "templates": {"id": template}, "auth": {"id": db.value("SELECT min(id) FROM sessions WHERE user_id = :id", id=me)},
                  "*": {"name": "felix", "deliveryId": 1, "orgId": org, "keyId": key.id, "slug": f"{MARK}-shop", "id": 1, "userId": me, "inviteId": invite, "token": "none", "file": "pages.js", "page": "done"}}


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


def path_of(endpoint, theirs, names=None):
    path, own = endpoint.path, theirs.get(endpoint.path.removeprefix("/api/").removeprefix("v1/public/").split("/")[0], {})
    for name, wire in endpoint.path_names.items():
        value = (names or {}).get(wire, own.get(wire, theirs["*"].get(wire, "felix")))
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


def test_an_agents_key_sees_nothing_of_the_company(application, client):
    for name in ("felix", "dina"):
        client.post("/agents", {"name": name})
    client.post("/tasks", {"title": "SECRET review of dina", "assignee": "dina", "status": "review"})
    felix = Client(application, keys.issue(1, "felix's", ["tasks:read", "queue:work"], agent="felix")[1])
    for path in ("dashboard/needs", "dashboard/stats", "dashboard/agent-queue-health", "discovery-engines", "discovery-engines/efficiency",
                 "discovery-engines/logs"):
        assert client.get(f"/{path}").status in (200, 404), path
        refused = felix.get(f"/{path}")
        assert refused.status == 403 and "SECRET" not in refused.body.decode(), path
