"""Sentences of the reference that were once false, each held by the case that showed it."""
import itertools

import pytest
from conftest import Client, put

import orkosi
from orkosi import acting, system
from plugins import keys, supervisor, tenants, users
from plugins.agents import paths, rows, settling
from plugins.keys import uses

LEVELS = {"debug": "info", "info": "info", "notice": "info", "trace": "info", "warn": "warn", "Warning": "warn", "ERROR": "error", "Critical": "error",
          "fatal": "error"}


# ── logs and files ──


@pytest.mark.parametrize("sent, kept", LEVELS.items())
def test_a_log_line_may_have_any_usual_level_in_any_case(client, sent, kept):
    assert client.post("/logs", {"agent": "felix", "message": "x", "level": sent}).data["level"] == kept
    assert client.get(f"/logs?level={kept}").meta["total"] == 1


def test_an_unknown_level_is_answered_with_all_there_are(client):
    refused = client.post("/logs", {"agent": "felix", "message": "x", "level": "loud"})
    assert refused.wrong == ["level"] and "critical, fatal, error, warning" in refused.error["message"]


def test_line_breaks_and_tabs_of_a_message_come_back_as_sent(client):
    text = "one\ttwo\r\nthree\nfour \x1b[31mred\rback"
    assert client.post("/logs", {"agent": "felix", "message": text}).data["message"] == "one\ttwo\r\nthree\nfour \\x1b[31mred\\x0dback"
    assert client.get("/logs?q=four").data[0]["message"].startswith("one\ttwo\r\nthree\n")


def test_a_file_recorded_anew_keeps_what_is_not_sent(client):
    first = client.post("/files", {"name": "Plan", "path": "plans/a.txt", "file_type": "text/x-plan", "category": "strategy", "content": "Grow"}).data
    again = client.post("/files", {"name": "The plan", "path": "plans/a.txt"}).data
    assert again == first | {"name": "The plan", "updated_at": again["updated_at"]}
    assert client.post("/files", {"name": "x", "path": "plans/a.txt", "content": None}).data["content"] is None
    assert client.post("/files", {"name": "x", "path": "plans/a.txt", "category": "code"}).data["category"] == "code"


def test_files_are_found_by_filters_alone_and_by_any_spelling_of_an_extension(client):
    for name in ("a.md", "b.md", "c.py"):
        client.post("/files", {"name": name, "path": f"x/{name}", "content": "words"})
    for ext in ("md", ".md", "MD", ".Md"):
        found = client.get(f"/files/search?ext={ext}").data
        assert [(one["name"], one["excerpt"]) for one in found] == [("b.md", "words"), ("a.md", "words")]
        assert len(client.get(f"/files/search?q=words&ext={ext}").data) == 2
    assert client.get("/files/search").data == [] and client.get("/files/search?q=%22&ext=md").data == []
    assert client.get("/files/search?category=code&ext=md").data == []


def test_a_page_of_files_is_named_in_one_way(client):
    assert client.get("/files?page=2&offset=5").wrong == ["page"]
    assert client.get("/files?page=2").status == 200


# ── lists ──


def test_lists_without_a_limit_in_the_reference_are_whole(client):
    for number in range(60):
        client.post("/products", {"name": f"Product {number}"})
        client.post("/rules", {"rule": f"Rule {number}"})
        client.post("/automations", {"agent_name": "felix", "name": f"a{number}", "type": "script", "path": f"scripts/{number}.sh"})
    for path in ("/products", "/rules", "/automations", "/users"):
        answer = client.get(path)
        assert answer.meta["limit"] == 1000 and len(answer.data) == answer.meta["total"] >= 1
        assert client.get(f"{path}?limit=1001").wrong == ["limit"] and len(client.get(f"{path}?limit=1").data) == 1
    assert [client.get(path).meta["total"] for path in ("/products", "/rules", "/automations")] == [60, 60, 60]


@pytest.mark.story("GET /api/logs", "GET /api/rules", "GET /api/automations", "GET /api/changelog", "GET /api/agent-runs")
@pytest.mark.parametrize("path", ["/logs", "/rules", "/automations", "/changelog", "/agent-runs"])
def test_agent_and_agent_name_are_the_same_filter(client, path):
    client.post("/agents", {"name": "felix"}), client.post("/agents", {"name": "ada"})
    for name in ("felix", "ada"):
        client.post("/logs", {"agent": name, "message": "x"})
        client.post("/rules", {"rule": f"for {name}", "scope": name})
        client.post("/agent-runs", {"agent": name})
        task = client.post("/tasks", {"title": f"of {name}", "assignee": name}).data["id"]
        client.patch(f"/tasks/{task}", {"status": "done"})
    one, other = client.get(f"{path}?agent=felix"), client.get(f"{path}?agent_name=felix")
    assert one.data == other.data and 0 < one.meta["total"] < client.get(path).meta["total"]
    assert client.get(f"{path}?agent=felix&agent_name=felix").data == one.data
    assert client.get(f"{path}?agent=felix&agent_name=ada").wrong == ["agent_name"]


@pytest.mark.story("GET /api/changelog/feed")
def test_the_feed_is_narrowed_as_the_changelog_is(client):
    for name in ("felix", "ada"):
        task = client.post("/tasks", {"title": f"Work of {name}", "assignee": name}).data["id"]
        client.patch(f"/tasks/{task}", {"status": "done"})
    told = lambda query: [name for name in ("ada", "felix") if f"Work of {name}" in client.get(f"/changelog/feed{query}").body.decode()]  # noqa: E731
    assert told("") == ["ada", "felix"] and told("?agent_name=felix") == told("?agent=felix") == told("?offset=1") == ["felix"] == told("?limit=1&offset=1")


# ── keys ──

OPENED = {"activity:read": ["GET /activity-log", "GET /activity-log/stats"], "logs:read": ["GET /logs", "GET /logs/files"],
          "notifications:read": ["GET /notifications", "GET /notifications/unread-count"], "rules:read": ["GET /rules"], "automations:read": ["GET /automations"],
          "teams:read": ["GET /teams"], "orgs:read": ["GET /organizations"], "users:read": ["GET /users"]}


@pytest.mark.parametrize("scope", OPENED)
def test_a_scope_opens_what_it_names_and_nothing_else(client, key_for, scope):
    key = key_for(scope)
    for name, calls in OPENED.items():
        for call in calls:
            method, path = call.split()
            assert key.request(method, path).status == (200 if name == scope else 403), call


def test_scopes_that_write_write(client, key_for):
    entry = {"actor_type": "user", "actor_id": "7", "action": "deploy"}
    assert key_for("activity:write").post("/activity-log", entry).status == 201
    assert key_for("notifications:write").post("/notifications", {"title": "x", "message": "y"}).status == 201
    assert key_for("notifications:write").patch("/notifications/1/read").status == 200
    writer = key_for("rules:write")
    assert writer.post("/rules", {"rule": "Say what you did"}).status == 201 and writer.patch("/rules/1", {"rule": "Say it"}).data["rule"] == "Say it"
    assert writer.delete("/rules/1").status == 200 and client.get("/rules").data == []
    task = client.post("/tasks", {"title": "x"}).data["id"]
    assert key_for("tasks:write").delete(f"/tasks/{task}").status == 403 and key_for("tasks:delete").delete(f"/tasks/{task}").status == 200
    older = key_for("tasks:read", "tasks:write")
    assert older.get("/rules").status == 200 and older.post("/activity-log", entry).status == 201, "what they always allowed"
    assert older.post("/notifications", {"title": "x", "message": "y"}).status == 201 and older.get("/notifications").status == 403


def test_an_agents_key_writes_no_rules(client, application):
    with acting(system()):
        raw = keys.issue(1, "felix", (*keys.AGENT_SCOPES, "rules:write"), agent="felix")[1]
    assert Client(application, raw).post("/rules", {"rule": "Obey felix"}).status == 403


def test_a_key_sees_the_organizations_of_its_tenant_alone(client, application):
    me, mine = client.get("/auth/me").data["id"], client.post("/organizations", {"name": "Mine"}).data["id"]
    moment = "2026-11-01T10:00:00.000Z"
    with acting(system()):
        far = tenants.found("far")
    put("organizations", id="org_far", tenant_id=far, name="Far", slug="far", created_at=moment, updated_at=moment)
    put("org_members", org_id="org_far", user_id=me, role="member", joined_at=moment)
    with acting(system()):
        key = Client(application, keys.issue(1, "key", ("orgs:read",), by=me)[1])
    assert {one["id"] for one in client.get("/organizations").data} == {mine, "org_far"}
    assert [one["id"] for one in key.get("/organizations").data] == [mine]
    assert key.get(f"/organizations/{mine}/members").status == 200 and key.get("/organizations/org_far").status == 404


def test_the_reference_offers_keys_only_where_they_are_taken(client, key_for):
    key = key_for(*keys.SCOPES)
    described = client.get("/openapi.json").json["paths"]
    both = alone = 0
    for endpoint in orkosi.endpoints():
        path = endpoint.path.removeprefix("/api")
        if not endpoint.path.startswith("/api/") or endpoint.auth.public:
            continue
        offered = {"key": []} in described[path][endpoint.method.lower()]["security"]
        assert offered == bool(endpoint.auth.scope or endpoint.auth.any_key)
        both, alone = both + offered, alone + (not offered)
        if not offered:
            refused = key.request(endpoint.method, path.replace("{", "").replace("}", ""))
            assert refused.status in (400, 403) and (refused.status == 400 or refused.error["message"] == "No API key may do this; sign in")
    assert both > 80 and alone > 30


# ── people ──


def test_everybody_of_a_tenant_sees_who_is_there(client, as_):
    member, demo = as_("ann", "member"), as_("dora", "demo")
    whole = client.get("/users").data
    assert member.get("/users").data == whole and {"email", "role", "created_at", "updated_at"} <= set(whole[0])
    mine = demo.get("/auth/me").data["id"]
    assert all(set(one) == {"id", "username"} for one in demo.get("/users").data if one["id"] != mine)


def test_no_person_becomes_an_agent(client, as_):
    id = as_("ann").get("/auth/me").data["id"]
    refused = client.patch(f"/users/{id}", {"role": "agent"})
    assert refused.status == 400 and refused.wrong == ["role"] and client.get(f"/users/{id}").data["role"] == "member"


def test_organizations_are_ones_own_unless_all_are_asked_for(client, as_):
    ann = as_("ann")
    theirs, mine = ann.post("/organizations", {"name": "Theirs"}).data, client.post("/organizations", {"name": "Mine"}).data
    assert [one["id"] for one in client.get("/organizations").data] == [mine["id"]]
    assert {one["id"] for one in client.get("/organizations?all=true").data} == {mine["id"], theirs["id"]}
    assert client.get(f"/organizations/{theirs['id']}").status == 200
    refused = ann.get("/organizations?all=true")
    assert refused.status == 403 and "all=true" in refused.error["message"]


# ── agents ──


@pytest.mark.story("POST /api/agents")
def test_an_agent_that_is_driven_from_outside_is_taken_over_only_when_asked(client, key_for):
    key_for("agents:write").post("/v1/public/agents", {"name": "felix", "role": "helper", "status": "working"})
    refused = client.post("/agents", {"name": "felix"})
    assert refused.status == 409 and '"adopt": true' in refused.error["message"]
    taken = client.post("/agents", {"name": "felix", "adopt": True}).data
    assert all(step["ok"] for step in taken["steps"]) and len(taken["steps"]) == 10 and taken["role"] == "helper" and taken["process"]


def test_a_start_lays_what_is_missing_and_one_that_fails_changes_nothing(client, data, monkeypatch):
    client.post("/agents", {"name": "felix"})
    client.post("/agents/felix/stop", {"note": "lunch"})
    (data / "agents/felix/run.sh").unlink()
    assert client.post("/agents/felix/start", {}).status == 200 and (data / "agents/felix/run.sh").exists()
    client.post("/agents/felix/stop", {"note": "lunch"})
    monkeypatch.setattr(supervisor, "load", lambda plist, **how: (_ for _ in ()).throw(orkosi.Unavailable("launchd says no")))
    assert client.post("/agents/felix/start", {}).status == 503
    agent = client.get("/agents/felix").data
    assert (agent["wanted"], agent["note"]) == ("stopped", "lunch")


def test_a_stops_note_is_in_the_activity_and_in_the_log(client):
    client.post("/agents", {"name": "felix"})
    client.post("/agents/felix/stop", {"note": "It loops"})
    client.post("/agents/felix/start", {"note": "mended"}), client.post("/agents/felix/restart")
    said = [one["message"] for one in client.get("/logs?agent=felix").data]
    assert said[:3] == ["restarted", "started: mended", "stopped: It loops"] and said[3].startswith("made: every 60 s")
    assert client.get("/activity-log?action=agent.stopped").data[0]["metadata"] == {"note": "It loops"}


def test_a_restart_takes_in_a_plist_that_changed_on_the_disk(client, launchctl):
    """Bootout, wait until it is gone, bootstrap; and where nothing changed, one kickstart - also by a server that was started since."""
    client.post("/agents", {"name": "felix"})
    plist = paths.plist_of("felix")
    verbs = lambda: [verb for verb, _ in itertools.groupby(call[0] for call in launchctl() if call[0] in ("bootstrap", "bootout"))]  # noqa: E731
    assert client.post("/agents/felix/restart").status == 200 and verbs() == ["bootstrap"]
    supervisor.write(plist.stem, supervisor.read(plist) | {"StartInterval": 7, "EnvironmentVariables": {"PATH": "/bin"}})
    assert client.post("/agents/felix/restart").data["process"]["loaded"] and verbs()[1:] == ["bootout", "bootstrap"]
    assert supervisor.read(plist)["StartInterval"] == 7
    assert client.post("/agents/felix/restart").status == 200 and verbs()[3:] == []


def test_an_embedded_restart_takes_in_a_changed_plist(client):
    client.post("/agents", {"name": "felix"})
    plist = paths.plist_of("felix")
    job = supervisor.embedded.driver.jobs[plist.stem]
    client.post("/agents/felix/restart")
    assert supervisor.embedded.driver.jobs[plist.stem] is job
    supervisor.write(plist.stem, supervisor.read(plist) | {"StartInterval": 7})
    client.post("/agents/felix/restart")
    assert supervisor.embedded.driver.jobs[plist.stem].spec["StartInterval"] == 7


def test_a_disabled_launch_agent_stays_unloaded(client):
    made = client.post("/agents", {"name": "felix"}).data
    launch = next(one for one in made["automations"] if one["type"] == "launchagent")
    client.patch(f"/automations/{launch['id']}", {"status": "disabled"})
    loaded = lambda: client.get("/agents/felix").data["process"]["loaded"]  # noqa: E731
    assert not loaded()
    for verb in ("start", "restart"):
        refused = client.post(f"/agents/felix/{verb}")
        assert refused.status == 409 and f"PATCH /api/automations/{launch['id']}" in refused.error["message"] and not loaded()
    assert client.patch("/agents/felix", {"interval_sec": 9}).status == 200 and not loaded()
    assert client.post("/agents/felix/stop").status == 200 and client.post("/agents/felix/start").status == 409
    assert client.get("/agents/felix").data["wanted"] == "stopped"
    with pytest.raises(orkosi.Conflict), acting(system()):
        settling._settle(rows.change("felix", wanted="running"))
    assert not loaded()
    client.patch(f"/automations/{launch['id']}", {"status": "active"})
    assert client.post("/agents/felix/start").status == 200 and loaded()


def test_a_deactivated_agent_gives_back_its_job_and_gets_no_other(client, key_for):
    robot = key_for("agents:read", "agents:write", "tasks:read", "tasks:write", "queue:work")
    id = robot.post("/v1/public/agents", {"name": "felix", "role": "helper"}).data["id"]
    task = client.post("/tasks", {"title": "x", "assignee": "felix"}).data["id"]
    claim = lambda: client.post("/task-queue/claim", {"queue_name": "agent:felix", "worker_id": "w"}).data  # noqa: E731
    status = lambda: client.get("/agents/felix").data["status"]  # noqa: E731
    job = claim()
    assert status() == "working"
    assert robot.patch(f"/v1/public/agents/{id}", {"status": "blocked"}).data["status"] == "blocked" == status(), "what it says of itself is shown"
    assert robot.patch(f"/v1/public/agents/{id}", {"status": "idle"}).data["status"] == "working"
    assert robot.delete(f"/v1/public/agents/{id}").status == 200
    shown = client.get(f"/task-queue/{job['id']}").data
    assert (status(), shown["status"], shown["attempt"]) == ("offline", "waiting", 0) and client.get(f"/tasks/{task}").data["status"] == "todo"
    assert claim() is None and {one["code"] for one in client.get(f"/tasks/{task}").data["why"]} >= {"agent_offline"}
    client.post("/agents/felix/pause"), client.post("/agents/felix/resume")
    assert claim() is None, "resuming it here does not wake it there"
    assert robot.patch(f"/v1/public/agents/{id}", {"status": "idle"}).data["status"] == "idle" and claim()["id"] == job["id"]


def test_an_agent_that_is_made_offline_gets_nothing_until_it_is_adopted(client, key_for):
    key_for("agents:write").post("/v1/public/agents", {"name": "felix", "role": "helper", "status": "offline"})
    client.post("/tasks", {"title": "x", "assignee": "felix"})
    claim = lambda: client.post("/task-queue/claim", {"queue_name": "agent:felix", "worker_id": "w"}).data  # noqa: E731
    assert client.get("/agents/felix").data["status"] == "offline" and claim() is None
    assert client.post("/agents", {"name": "felix", "adopt": True}).data["status"] in ("idle", "active") and claim() is not None


@pytest.mark.story("GET /api/agent-runs/idle-check")
def test_the_idle_check_knows_its_modes_and_the_tenant_of_the_key(client, as_, application):
    client.post("/agents", {"name": "felix"})
    client.post("/tasks", {"title": "x", "assignee": "felix"})
    ask = lambda who, more="": who.get(f"/agent-runs/idle-check?agent_name=felix{more}")  # noqa: E731
    assert ask(client).data == {"skip": False, "reason": "work is waiting"} == ask(Client(application)).data
    assert ask(client, "&run_mode=task").data["skip"] is False and ask(client, "&run_mode=discovery").data["skip"] is True
    refused = ask(client, "&run_mode=dream")
    assert refused.wrong == ["run_mode"] and "task, discovery" in refused.error["message"]
    with acting(system()):
        far = tenants.found("far")
        raw = keys.issue(far, "felix", keys.AGENT_SCOPES, agent="felix")[1]
    assert ask(Client(application, raw)).data["skip"] is True


# ── what else keys and people are told ──


def test_the_usage_of_a_key_has_what_it_asked_for_in_vain(client, application):
    org = client.post("/organizations", {"name": "Acme"}).data["id"]
    made = client.post(f"/organizations/{org}/api-keys", {"name": "k", "scopes": ["tasks:read"]}).data
    key = Client(application, made["key"])
    code = "inv_" + "x" * 40
    asked = [key.get("/tasks"), key.get("/nothing/here"), key.delete("/tasks"), key.get(f"/nothing/{code}"), Client(application, "ork_wrong").get("/nothing")]
    assert [one.status for one in asked] == [200, 404, 405, 404, 404]
    uses.flush()
    found = client.get(f"/organizations/{org}/api-keys/{made['id']}/usage").data
    assert [(one["method"], one["route"], one["status"]) for one in found] == [
        ("GET", "/api/nothing/…", 404), ("DELETE", "/api/tasks", 405), ("GET", "/api/nothing/here", 404), ("GET", "/api/tasks", 200)]


@pytest.mark.story("POST /api/organizations/{id}/invites", "POST /api/organizations/invites/{token}/accept")
@pytest.mark.story("POST /api/teams/{id}/invites", "POST /api/teams/invites/{token}/accept")
@pytest.mark.parametrize("kind, low, middle, top", [("organizations", "viewer", "member", "admin"), ("teams", "member", "admin", "owner")])
def test_an_invitation_raises_the_role_of_a_member_and_never_lowers_it(client, as_, kind, low, middle, top):
    ann = as_("ann")
    id, user = client.post(f"/{kind}", {"name": "Acme"}).data["id"], ann.get("/auth/me").data["id"]
    role = lambda: next(one["role"] for one in client.get(f"/{kind}/{id}/members").data if one["user_id"] == user)  # noqa: E731
    issue = lambda role: users.invite(kind.removesuffix("anizations").removesuffix("s"), str(id), "ann@example.com", role,  # noqa: E731
                                      client.get("/auth/me").data["id"], 1)[1]
    accept = lambda code: ann.post(f"/{kind}/invites/{code}/accept")  # noqa: E731
    with acting(system()):
        early = issue(middle)
    client.post(f"/{kind}/{id}/members", {"user_id": user, "role": low})
    answer = accept(early)
    assert answer.status == 200 and answer.meta == {"was": low} and role() == middle
    refused = client.post(f"/{kind}/{id}/invites", {"email": "ann@example.com", "role": low})
    assert refused.status == 409 and "never lowers" in refused.error["message"]
    raising = client.post(f"/{kind}/{id}/invites", {"email": "ann@example.com", "role": top})
    assert (raising.status, raising.meta) == (201, {"raises": {"from": middle, "to": top}}) and role() == middle, "it is hers to accept"
    client.patch(f"/{kind}/{id}/members/{user}", {"role": top})
    with acting(system()):
        code = users.invites.mint(raising.data["id"])
    assert accept(code).meta == {"was": top} and role() == top
    with acting(system()):
        lowering = issue(low)
    assert accept(lowering).meta == {"was": top} and role() == top


@pytest.mark.story("POST /api/teams/{id}/invites")
def test_whoever_lives_in_another_tenant_is_refused_by_a_team_in_words_that_tell_nothing(client, as_):
    far, near = as_("olga", tenant=None), as_("ann")
    team = client.post("/teams", {"name": "Makers"}).data["id"]
    client.post(f"/teams/{team}/members", {"user_id": near.get("/auth/me").data["id"], "role": "member"})
    said = {}
    for name in ("olga", "ann"):
        refused = client.post(f"/teams/{team}/invites", {"email": f"{name}@example.com", "role": "member"})
        assert refused.status == 409
        said[name] = refused.error["message"].replace(f"{name}@", "X@")
    assert said["olga"] == said["ann"] and far.get("/teams").data == []
    assert client.get(f"/teams/{team}/invites").data == []
    assert client.post(f"/teams/{team}/invites", {"email": "nobody@example.com", "role": "member"}).status == 201


# ── what a second reading found ──


def test_an_automation_that_cannot_be_loaded_leaves_nothing_and_changes_nothing(client, data):
    (data / "jobs").mkdir(exist_ok=True)
    plist = data / "jobs/own.plist"
    plist.write_text("no plist")
    body = {"name": "own", "agent_name": "felix", "type": "launchagent", "path": str(plist)}
    for _ in range(2):
        assert client.post("/automations", body).status == 422 and client.get("/automations").data == []
    made = client.post("/automations", body | {"status": "inactive"}).data
    before = client.get(f"/automations/{made['id']}").data
    assert client.patch(f"/automations/{made['id']}", {"status": "active", "name": "renamed"}).status == 422
    assert client.get(f"/automations/{made['id']}").data == before | {"updated_at": client.get(f"/automations/{made['id']}").data["updated_at"]}


def test_a_task_for_me_is_mine_and_a_person_is_found_by_any_spelling(client, as_, application):
    ann = as_("Ann")
    mine = ann.post("/tasks", {"title": "x", "assignee": "me"}).data
    assert mine["assignee"] == "Ann" and mine["job_id"] is None
    id = ann.get("/auth/me").data["id"]
    for spelled in ("me", "Ann", "ann", str(id)):
        assert [one["id"] for one in ann.get(f"/tasks?assignee={spelled}").data] == [mine["id"]], spelled
    client.post("/agents", {"name": "felix"})
    with acting(system()):
        felix = Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])
    assert felix.post("/tasks", {"title": "y", "assignee": "me"}).data["assignee"] == "felix"


def test_an_unknown_product_of_a_task_is_said(client):
    said = client.post("/tasks", {"title": "x", "product_slug": "nosuch"})
    assert said.status == 201 and said.meta["warnings"] == ["There is no product nosuch; create it, or correct the slug"]
    assert client.post("/tasks", {"title": "x", "product_slug": ""}).wrong == ["product_slug"]


def test_an_agent_that_says_it_is_paused_gets_nothing(client, key_for):
    robot = key_for("agents:read", "agents:write")
    id = robot.post("/v1/public/agents", {"name": "felix", "role": "helper"}).data["id"]
    client.post("/tasks", {"title": "x", "assignee": "felix"})
    claim = lambda: client.post("/task-queue/claim", {"queue_name": "agent:felix", "worker_id": "w"}).data  # noqa: E731
    robot.patch(f"/v1/public/agents/{id}", {"status": "paused"})
    assert claim() is None and client.get("/agents/felix").data["status"] == "paused"
    robot.patch(f"/v1/public/agents/{id}", {"status": "working"})
    assert claim() is not None


def test_blank_words_and_empty_addresses_are_refused(client):
    org = client.post("/organizations", {"name": "Acme"}).data["id"]
    assert client.patch(f"/organizations/{org}", {"avatar_url": ""}).wrong == ["avatar_url"]
    for body in ({"title": " ", "message": "x"}, {"title": "x", "message": "\n"}):
        assert client.post("/notifications", body).status == 400
    assert client.post("/products", {"name": "A\nB"}).data["name"] == "A B"


@pytest.mark.parametrize("method, path, body, field", [
    ("PATCH", "/notifications/read-all", {"type": "error"}, "type"), ("PATCH", "/notifications/read-all", [1], "body"), ("GET", "/auth/me?limit=1", None, "limit"),
    ("GET", "/logs/files?limit=1", None, "limit"), ("DELETE", "/tasks/1", {"force": True}, "force"), ("GET", "/version?a", None, "a")])
def test_what_nobody_reads_is_refused_by_name(client, method, path, body, field):
    client.post("/tasks", {"title": "x"})
    refused = client.request(method, path, body)
    assert refused.status == 400 and refused.wrong == [field]
    assert client.patch("/notifications/read-all", {}).status == client.patch("/notifications/read-all").status == client.get("/tasks/1").status == 200
