"""The public API: its own words, its scopes, each tenant for itself, and creates that happen once."""
import json
import threading

import pytest
from conftest import CURSOR, Client, Like, command

import orkosi
from orkosi import db, now
from plugins import agents, keys, once, public, tasks

ALL = ("tasks:read", "tasks:write", "agents:read", "agents:write", "templates:read", "templates:write")
SHAPE = {"id", "title", "description", "type", "priority", "status", "assigned_to", "product_id", "max_duration_seconds", "resolution",
         "created_at", "updated_at", "finished_at"}


@pytest.fixture
def robot(key_for):
    return key_for(*ALL)


@pytest.fixture
def product(client):
    client.post("/products", {"name": "Shop", "slug": "shop"})
    return client.get("/products/shop").data["id"]


def test_health_needs_no_key(anonymous):
    assert anonymous.get("/v1/public/health").data["status"] == "ok"


# ── tasks ──


def test_a_task_has_the_publics_shape_and_words(client, robot, product):
    made = robot.post("/v1/public/tasks", {"title": "Fix it", "priority": "critical", "assigned_to": "felix", "product_id": product,
                                           "type": "bug", "max_duration_seconds": 60})
    assert made.status == 201 and set(made.data) == SHAPE
    assert made.data["priority"] == "critical" and made.data["product_id"] == product and made.data["status"] == "todo"
    inside = client.get(f"/tasks/{made.data['id']}").data
    assert (inside["priority"], inside["assignee"], inside["product_slug"], inside["status"]) == ("P0", "felix", "shop", "todo")
    assert inside["job_id"] and inside["created_by"].startswith("key:key_")
    assert robot.get(f"/v1/public/tasks/{made.data['id']}").data == made.data


def test_every_word_goes_in_and_comes_out():
    assert set(public.PRIORITIES.values()) == set(tasks.Priority.__args__)
    assert set(public.TASK_STATUSES.values()) == set(tasks.Status.__args__)
    assert {house for words in public.AGENT_STATUSES.values() for house in words} == set(agents.Status.__args__)
    assert {words[0] for words in public.AGENT_STATUSES.values()} <= set(agents.Reported.__args__)


@pytest.mark.parametrize("body, status, field", [
    ({"title": "x"}, 201, None), ({"title": "x", "status": "cancelled"}, 201, None), ({"title": "x", "product_id": None}, 201, None),
    ({}, 400, "title"), ({"title": ""}, 400, "title"), ({"title": "x", "priority": "P0"}, 400, "priority"),
    ({"title": "x", "status": "archived"}, 400, "status"), ({"title": "x", "assignee": "felix"}, 400, "assignee"),
    ({"title": "x", "product_id": 99}, 404, "product_id"), ({"title": "x", "product_id": "shop"}, 400, "product_id"),
    ({"title": "x", "product_id": 2**63}, 400, "product_id"), ({"title": "x", "assigned_to": "a/b"}, 400, "assigned_to"),
    ({"title": "x", "max_duration_seconds": 0}, 400, "max_duration_seconds"), ({"title": "x", "max_duration_seconds": True}, 400, "max_duration_seconds")])
def test_creating_a_task(robot, body, status, field):
    answer = robot.post("/v1/public/tasks", body)
    assert answer.status == status
    assert field is None or field in answer.wrong


def test_an_open_task_with_the_same_title_is_answered_instead(robot):
    first = robot.post("/v1/public/tasks", {"title": "x"})
    second = robot.post("/v1/public/tasks", {"title": "X"})
    assert second.status == 200 and second.meta == {"duplicate": True, "message": Like(".*answered.*")} and second.data == first.data


def test_tasks_are_filtered_in_the_publics_words_newest_first(robot, product):
    for title, more in [("a", {"priority": "low"}), ("b", {"status": "cancelled"}), ("c", {"product_id": product, "assigned_to": "felix"}),
                        ("d", {"priority": "critical", "status": "review"})]:
        assert robot.post("/v1/public/tasks", {"title": title, **more}).status == 201
    titles = lambda query: "".join(one["title"] for one in robot.get("/v1/public/tasks?" + query).data)  # noqa: E731
    assert titles("") == "dcba" and titles("status=cancelled") == "b" and titles("status=todo,review") == "dca"
    assert titles("priority=low,critical") == "da" and titles("assigned_to=felix") == "c" and titles(f"product_id={product}") == "c"
    assert titles("status=todo&priority=low") == "a" and titles("limit=2&offset=1") == "cb"
    assert robot.get("/v1/public/tasks?limit=1").meta == {"total": 4, "limit": 1, "offset": 0, "has_more": True, "next_after": Like(CURSOR)}


@pytest.mark.parametrize("query, field", [("status=archived", "status"), ("priority=P1", "priority"), ("product_id=99", "product_id"),
                                          ("product_id=x", "product_id"), ("limit=0", "limit"), ("assignee=x", "assignee")])
def test_a_filter_that_means_nothing_is_named(robot, query, field):
    assert robot.get("/v1/public/tasks?" + query).wrong == [field]


def test_a_task_is_changed_and_archived(client, robot, product):
    id = robot.post("/v1/public/tasks", {"title": "x", "assigned_to": "felix", "product_id": product}).data["id"]
    path = f"/v1/public/tasks/{id}"
    changed = robot.patch(path, {"title": "y", "priority": "low", "assigned_to": None, "product_id": None, "resolution": "half done"}).data
    assert (changed["title"], changed["priority"], changed["assigned_to"], changed["product_id"], changed["resolution"]) == ("y", "low", None, None, "half done")
    assert robot.patch(path, {"status": "done"}).data["finished_at"]
    assert robot.delete(path).data == {"deleted": True, "id": id} and robot.delete(path).status == 200
    assert robot.get(path).data["status"] == "cancelled" and client.get(f"/tasks/{id}").data["status"] == "archived"
    assert robot.patch(path, {"product_id": 99}).wrong == ["product_id"]
    for method in ("GET", "DELETE"):
        assert robot.request(method, "/v1/public/tasks/99").status == 404
    assert robot.patch("/v1/public/tasks/99", {"title": "z"}).status == 404


def test_an_agents_key_changes_its_own_tasks_alone(application, robot):
    felix = Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])
    mine = robot.post("/v1/public/tasks", {"title": "mine", "assigned_to": "felix"}).data["id"]
    other = robot.post("/v1/public/tasks", {"title": "other", "assigned_to": "ada"}).data["id"]
    assert felix.patch(f"/v1/public/tasks/{mine}", {"status": "review"}).status == 200
    assert felix.patch(f"/v1/public/tasks/{other}", {"status": "review"}).status == felix.delete(f"/v1/public/tasks/{other}").status == 404
    assert felix.get(f"/v1/public/tasks/{other}").status == 404 and [one["id"] for one in felix.get("/v1/public/tasks").data] == [mine]
    assert felix.get("/v1/public/tasks?assigned_to=ada").data == []
    assert felix.post("/v1/public/tasks", {"title": "for ada", "assigned_to": "ada"}).status == 403


# ── agents ──


@pytest.mark.parametrize("body, status, field", [
    ({"name": "felix", "role": "Builder"}, 201, None), ({"name": "felix", "role": "Builder", "status": "blocked", "emoji": "🔧"}, 201, None),
    ({"name": "felix", "role": "b", "workspace_path": "work/felix"}, 201, None),
    ({"name": "felix"}, 400, "role"), ({"role": "b"}, 400, "name"), ({"name": "F", "role": "b"}, 400, "name"), ({"name": "felix\n", "role": "b"}, 400, "name"),
    ({"name": "../x", "role": "b"}, 400, "name"), ({"name": "x" * 32, "role": "b"}, 400, "name"),
    ({"name": "felix", "role": "b", "status": "stopped"}, 400, "status"), ({"name": "felix", "role": "b", "command": ["sh"]}, 400, "command"),
    ({"name": "felix", "role": "b", "workspace_path": "/etc"}, 400, "workspace_path"),
    ({"name": "felix", "role": "b", "workspace_path": "a/../../b"}, 400, "workspace_path")])
def test_putting_an_agent_on_record(robot, data, body, status, field):
    answer = robot.post("/v1/public/agents", body)
    assert answer.status == status and (field is None or answer.wrong == [field])
    assert not (data / "agents").exists()  # a row, and no more
    if status == 201:
        assert answer.data["status"] == body.get("status", "idle") and robot.post("/v1/public/agents", body).status == 409


def test_an_agent_says_how_it_is_and_is_deactivated(client, robot):
    id = robot.post("/v1/public/agents", {"name": "felix", "role": "Builder"}).data["id"]
    path = f"/v1/public/agents/{id}"
    answer = robot.patch(path, {"status": "working", "current_task": "Sorting", "emoji": "🐈"})
    assert (answer.data["status"], answer.data["current_task"], answer.data["emoji"]) == ("working", "Sorting", "🐈")
    assert answer.data["last_heartbeat"] <= now() and client.get("/agents/felix").data["status"] == "working"
    agents.report(id, reported="error")
    assert robot.get(path).data["status"] == "blocked"
    assert robot.delete(path).data == {"deleted": True, "id": id}
    assert robot.get(path).data["status"] == "offline" and robot.get(path).data["current_task"] is None
    for method, body in (("GET", None), ("PATCH", {"role": "x"}), ("DELETE", None)):
        assert robot.request(method, "/v1/public/agents/99", body).status == 404


def test_one_that_is_stopped_gets_nothing_until_it_is_started(client, robot):
    id = robot.post("/v1/public/agents", {"name": "ext", "role": "x"}).data["id"]
    client.post("/tasks", {"title": "t", "assignee": "ext"})
    claim = lambda: client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "agent:ext"}).data  # noqa: E731
    client.post("/agents/ext/stop", {})
    assert claim() is None
    robot.patch(f"/v1/public/agents/{id}", {"status": "offline"}), robot.patch(f"/v1/public/agents/{id}", {"status": "idle"})
    assert claim() is None, "being back is no order to start"
    client.post("/agents/ext/start", {})
    assert claim()["task_type"] == "task"


def test_agents_are_filtered_by_what_the_public_sees(robot):
    for name, role, status in [("ada", "builder", "idle"), ("bruno", "writer", "blocked"), ("clara", "writer", "offline")]:
        robot.post("/v1/public/agents", {"name": name, "role": role, "status": status})
    agents.want("ada", "stopped", None, "agent.stopped")
    names = lambda query: [one["name"] for one in robot.get("/v1/public/agents?" + query).data]  # noqa: E731
    assert names("") == ["ada", "bruno", "clara"] and names("status=offline") == ["ada", "clara"]
    assert names("status=blocked,offline&role=writer") == ["bruno", "clara"] and names("status=offline&limit=1&offset=1") == ["clara"]
    assert robot.get("/v1/public/agents?status=stopped").wrong == ["status"]


def test_an_agent_of_this_machine_shows_its_status_and_takes_none(client, robot, key_for):
    client.post("/agents", {"name": "felix", "interval_sec": 600})
    path = f"/v1/public/agents/{client.get('/agents/felix').data['id']}"
    try:
        refused = robot.patch(path, {"status": "idle"})
        assert refused.status == 409 and "/api/agents/felix" in refused.error["message"]
        assert robot.patch(path, {"emoji": "🐈"}).data["emoji"] == "🐈"
        assert robot.delete(path).status == 403
        assert key_for("agents:write", "agents:control").delete(path).status == 200
        assert robot.get(path).data["status"] == "offline" and client.get("/agents/felix").data["status"] == "stopped"
    finally:
        client.delete("/agents/felix")


# ── who may ──


OPERATIONS = [("GET", "/tasks", "tasks:read"), ("POST", "/tasks", "tasks:write"), ("GET", "/tasks/1", "tasks:read"), ("PATCH", "/tasks/1", "tasks:write"),
              ("DELETE", "/tasks/1", "tasks:write"), ("GET", "/agents", "agents:read"), ("POST", "/agents", "agents:write"), ("GET", "/agents/1", "agents:read"),
              ("PATCH", "/agents/1", "agents:write"), ("DELETE", "/agents/1", "agents:write"), ("GET", "/templates", "templates:read"),
              ("POST", "/templates", "templates:write"), ("GET", "/templates/1", "templates:read"), ("PATCH", "/templates/1", "templates:write"),
              ("DELETE", "/templates/1", "templates:write")]


@pytest.mark.parametrize("method, path, scope", OPERATIONS)
def test_each_operation_needs_a_key_with_its_scope(anonymous, key_for, method, path, scope):
    body = {} if method in ("POST", "PATCH") else None
    refused = anonymous.request(method, "/v1/public" + path, body)
    assert refused.status == 401 and refused.code == "unauthorized" and refused.headers["WWW-Authenticate"] == "Bearer"
    denied = key_for(*[one for one in ALL if one != scope]).request(method, "/v1/public" + path, body)
    assert denied.status == 403 and denied.code == "forbidden" and f"this needs {scope}" in denied.error["message"]
    assert key_for(scope).request(method, "/v1/public" + path, body).status in (200, 400, 404)


def test_this_list_of_operations_is_whole():
    paths = {(one.method, one.path.replace("{id}", "1").removeprefix("/api/v1/public")) for one in orkosi.endpoints() if one.path.startswith("/api/v1/public")}
    assert paths == {(method, path) for method, path, _ in OPERATIONS} | {("GET", "/health")}


def test_two_tenants_never_see_each_other(client, robot, key_for, product):
    task = robot.post("/v1/public/tasks", {"title": "secret task", "product_id": product, "assigned_to": "felix"}).data["id"]
    agent = robot.post("/v1/public/agents", {"name": "felix", "role": "secret role"}).data["id"]
    template = robot.post("/v1/public/templates", {"name": "secret", "slug": "secret"}).data["id"]
    other = key_for(*ALL, tenant=None, role="member")
    other_tenant = other.get("/auth/me").data["tenant"]
    assert other_tenant != 1
    db.write(lambda: db.run("UPDATE tenants SET founder_id = (SELECT max(id) FROM users) WHERE id = :id AND :tenant", id=other_tenant))
    for kind, id in (("tasks", task), ("agents", agent), ("templates", template)):
        assert other.get(f"/v1/public/{kind}").data == []
        for method, body in (("GET", None), ("PATCH", {}), ("DELETE", None)):
            answer = other.request(method, f"/v1/public/{kind}/{id}", body)
            assert answer.status == 404 and b"secret" not in answer.body, (kind, method)
    assert other.post("/v1/public/tasks", {"title": "x", "product_id": product}).wrong == ["product_id"]
    assert other.get(f"/v1/public/tasks?product_id={product}").wrong == ["product_id"]
    mine = other.post("/v1/public/tasks", {"title": "secret task"}).data["id"]  # no duplicate of another's
    assert other.patch(f"/v1/public/tasks/{mine}", {"product_id": product}).wrong == ["product_id"]
    assert other.post("/v1/public/agents", {"name": "felix", "role": "own"}).status == 201
    assert other.post("/v1/public/templates", {"name": "own", "slug": "secret"}).status == 201
    assert robot.get(f"/v1/public/tasks/{task}").data["status"] == "todo" and robot.get(f"/v1/public/agents/{agent}").data["status"] == "idle"


# ── once ──


def once_more(client, key, body, path="/tasks", **more):
    return client.post("/v1/public" + path, body, headers={"Idempotency-Key": key}, **more)


@pytest.mark.parametrize("path, body", [("/tasks", {"title": "x"}), ("/agents", {"name": "felix", "role": "b"}), ("/templates", {"name": "x", "slug": "x"})])
def test_a_create_with_a_key_happens_once(robot, path, body):
    first = once_more(robot, "k1", body, path)
    again = once_more(robot, "k1", dict(reversed(body.items())), path)
    assert first.status == again.status == 201 and first.body == again.body
    assert "Idempotency-Replayed" not in first.headers and again.headers["Idempotency-Replayed"] == "true"
    assert len(robot.get("/v1/public" + path).data) == 1


def test_a_key_is_for_one_request_of_one_principal(robot, key_for):
    assert once_more(robot, "k", {"title": "x"}).status == 201
    assert once_more(robot, "k", {"title": "y"}).status == 422
    assert once_more(robot, "k", {"name": "x", "slug": "x"}, "/templates").status == 422
    assert once_more(key_for(*ALL), "k", {"title": "y"}).status == 201
    assert len(robot.get("/v1/public/tasks").data) == 2


def test_what_failed_may_be_tried_again(robot):
    assert once_more(robot, "k", {"title": "x", "product_id": 99}).status == 404
    assert once_more(robot, "k", {"title": "x"}).status == 201


@pytest.mark.parametrize("key, status", [("a" * 255, 201), ("with space ~", 201), ("", 201), ("a" * 256, 400), ("tab\there", 400), ("ÿ", 400)])
def test_what_a_key_may_look_like(robot, key, status):
    assert once_more(robot, key, {"title": "x"}).status == status


def test_an_answer_is_forgotten_after_a_day(robot, monkeypatch):
    once_more(robot, "k", {"title": "x"})
    monkeypatch.setattr(once, "now", lambda ahead=0.0: now(86401 + ahead))
    assert once_more(robot, "k", {"title": "y"}).status == 201
    monkeypatch.setattr(once, "now", lambda ahead=0.0: now(2 * 86402 + ahead))
    once.forget()
    assert db.value("SELECT count(*) FROM public_answers WHERE :tenant") == 0


def test_while_the_first_is_under_way_the_second_is_told_so(robot, monkeypatch):
    inside, go, answers, create = threading.Event(), threading.Event(), [], tasks.create

    def slowly(*given):
        inside.set()
        go.wait(10)
        return create(*given)
    monkeypatch.setattr(tasks, "create", slowly)
    thread = threading.Thread(target=lambda: answers.append(once_more(robot, "k", {"title": "x"})))
    thread.start()
    inside.wait(10)
    early = once_more(robot, "k", {"title": "x"})
    go.set()
    thread.join(10)
    assert early.status == 409 and early.headers["Retry-After"] == "1"
    assert answers[0].status == 201 and once_more(robot, "k", {"title": "x"}).body == answers[0].body


def test_of_many_at_once_one_creates(robot):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(once_more(robot, "k", {"name": "x", "slug": "x"}, "/templates"))) for _ in range(12)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert {answer.status for answer in answers} <= {201, 409} and len({answer.body for answer in answers if answer.status == 201}) == 1
    assert len(robot.get("/v1/public/templates").data) == 1


def test_an_answer_that_cannot_be_kept_creates_nothing(robot, monkeypatch):
    def broken(self, made):
        raise orkosi.NoSpace("The disk is full")
    monkeypatch.setattr(orkosi.Endpoint, "answer", broken)
    assert once_more(robot, "k", {"title": "x"}).status == 507
    monkeypatch.undo()
    assert db.value("SELECT count(*) FROM tasks WHERE :tenant") == 0


@pytest.mark.slow
def test_a_key_holds_across_a_killed_server(server, tmp_path):
    import urllib.request
    folder = tmp_path / "data"
    command("user", "add", "root@example.com", "--role", "admin", "--password-stdin", folder=folder, stdin="correct horse battery\n")
    raw = command("key", "create", "Shop", "--scope", "tasks:read", "--scope", "tasks:write", folder=folder).stdout.splitlines()[0]

    def ask(running):
        request = urllib.request.Request(running.url + "/api/v1/public/tasks", data=json.dumps({"title": "Order 7"}).encode(), headers={
            "Content-Type": "application/json", "X-API-Key": raw, "Idempotency-Key": "order-7"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    running = server(folder=folder)
    first = ask(running)
    running.kill()
    running = server(folder=folder)
    assert ask(running) == first and first[0] == 201
    assert running.call("GET", "/v1/public/tasks", token=raw)[1]["meta"]["total"] == 1
