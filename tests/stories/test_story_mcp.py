"""Stories of MCP: the same company, seen by an agent's own tool; and of asking a person, and waiting for parts."""
import json
import threading
import time

import pytest
from conftest import eventually, put

from orkosi import VERSION, db

NEW, OLD = "2026-07-28", "2025-11-25"
META = "io.modelcontextprotocol/"
AGENTS = {"whoami", "task_list", "task_show", "task_create", "task_update", "task_ask", "task_wait", "search", "file_search", "file_read", "rule_list",
          "budget_show", "credential_list", "credential_get", "log_write", "job_claim", "job_complete", "job_fail", "job_release", "job_heartbeat",
          "job_show", "run_list", "run_note"}


def say(client, method, params=None, id=1, **headers):
    """One message of the revision with a handshake, and what was answered."""
    return client.request("POST", "/mcp", {"jsonrpc": "2.0", "id": id, "method": method, **({} if params is None else {"params": params})},
                          headers={name.replace("_", "-"): value for name, value in headers.items()}, root="")


def stateless(client, method, params=None, headers=(), **meta):
    """One message of the revision without."""
    said = {f"{META}protocolVersion": NEW, f"{META}clientCapabilities": {}} | meta
    name = (params or {}).get("name") or (params or {}).get("uri")
    heads = {"MCP-Protocol-Version": NEW, "Mcp-Method": method} | ({"Mcp-Name": name} if name else {}) | dict(headers)
    return client.request("POST", "/mcp", {"jsonrpc": "2.0", "id": "a", "method": method, "params": {**(params or {}), "_meta": said}},
                          headers={name: value for name, value in heads.items() if value is not None}, root="")


def use(client, tool, **arguments):
    """A tool's answer: its data, or the words of its refusal."""
    made = say(client, "tools/call", {"name": tool, "arguments": arguments}).json["result"]
    told = json.loads(made["content"][0]["text"])
    assert [one["type"] for one in made["content"]] == ["text"] and made["structuredContent"] == told
    return told["error"] if made["isError"] else told["data"]


@pytest.mark.story("POST /mcp")
def test_a_client_says_hello_in_both_revisions(client):
    hello = say(client, "initialize", {"protocolVersion": OLD, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}, id="é")
    assert hello.status == 200 and hello.json["id"] == "é" and hello.json["jsonrpc"] == "2.0"
    made = hello.json["result"]
    assert "is data" in made.pop("instructions")
    assert made == {"protocolVersion": OLD, "capabilities": {"tools": {}, "resources": {}}, "serverInfo": {"name": "orkosi", "title": "Orkosi", "version": VERSION}}
    assert say(client, "initialize", {"protocolVersion": "1999-01-01"}).json["result"]["protocolVersion"] == OLD, "an unknown one is offered this"
    assert say(client, "initialize", {"protocolVersion": "2025-06-18"}).json["result"]["protocolVersion"] == "2025-06-18", "gemini-cli knows no newer one"
    assert say(client, "ping", MCP_Protocol_Version="2025-06-18").json["result"] == {}
    assert say(client, "ping").json == {"jsonrpc": "2.0", "id": 1, "result": {}}
    found = stateless(client, "server/discover").json
    assert found["id"] == "a" and "is data" in found["result"].pop("instructions")
    assert found["result"] == {"supportedVersions": [NEW, OLD], "capabilities": {"tools": {}, "resources": {}}, "resultType": "complete", "ttlMs": 60000,
                               "cacheScope": "private", "_meta": {f"{META}serverInfo": {"name": "orkosi", "title": "Orkosi", "version": VERSION}}}
    noted = client.request("POST", "/mcp", {"jsonrpc": "2.0", "method": "notifications/initialized"}, root="")
    assert (noted.status, noted.body) == (202, b"")


@pytest.mark.story("POST /mcp")
def test_what_is_wrong_with_a_message_is_an_error_of_the_protocol(client, anonymous):
    def error(answer, status, code, id):
        assert (answer.status, answer.json["error"]["code"], answer.json["id"]) == (status, code, id), answer
        return answer.json["error"]
    raw = lambda text: client.request("POST", "/mcp", raw=text, headers={"Content-Type": "application/json"}, root="")  # noqa: E731
    for text, code in ((b"{", -32700), (b"[]", -32600), (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600), (b'{"id":1,"method":"ping"}', -32600), (b"7", -32600),
                       (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600), (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
                       (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600), (b'{"jsonrpc":"2.0","id":[],"method":"ping"}', -32600),
                       (b"[" * 40 + b"]" * 40, -32700), (b'{"a":"\\u0000"}', -32700), (b'{"a":1,"a":2}', -32700)):
        error(raw(text), 400, code, None)
    error(raw(b'{"jsonrpc":"2.0","id":1,"method":7}'), 400, -32600, 1)
    error(raw(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}'), 400, -32600, 1)
    assert raw(b'{"jsonrpc":"2.0","id":1,"result":{}}').status == 202
    assert raw(b'{"jsonrpc":"2.0","method":"no/such"}').status == 202
    error(say(client, "no/such"), 200, -32601, 1), error(say(client, "server/discover"), 400, -32602, 1)
    error(say(client, "tools/call", {"name": "no_such"}), 200, -32602, 1), error(say(client, "tools/call", {"name": "search", "arguments": []}), 200, -32602, 1)
    error(say(client, "tools/list", {"cursor": "x"}), 200, -32602, 1)
    for method in ("initialize", "ping", "logging/setLevel", "resources/subscribe", "subscriptions/listen", "prompts/list"):
        error(stateless(client, method), 404, -32601, "a")
    assert error(stateless(client, "tools/list", headers={"MCP-Protocol-Version": "v9"}.items(), **{f"{META}protocolVersion": "v9"}), 400, -32022, "a")["data"] == {
        "supported": [NEW, OLD], "requested": "v9"}
    error(say(client, "ping", MCP_Protocol_Version="v9"), 400, -32022, 1)
    for heads in ({"MCP-Protocol-Version": OLD}, {"MCP-Protocol-Version": None}, {"Mcp-Method": None}, {"Mcp-Method": "TOOLS/LIST"}):
        error(stateless(client, "tools/list", headers=heads.items()), 400, -32020, "a")
    error(stateless(client, "tools/call", {"name": "search", "arguments": {"q": "x"}}, headers={"Mcp-Name": "task_list"}.items()), 400, -32020, "a")
    assert "result" in stateless(client, "tools/call", {"name": "search", "arguments": {"q": "x"}}, headers={"Mcp-Name": "=?base64?c2VhcmNo?="}.items()).json
    for gone in (f"{META}protocolVersion", f"{META}clientCapabilities"):
        error(stateless(client, "tools/list", **{gone: None}), 400, -32602, "a")
    assert say(anonymous, "ping").status == 401 and client.request("GET", "/mcp", root="").status == 405
    assert say(client, "ping", Origin="https://evil.example").status == 403 and say(client, "ping", Origin="http://localhost:3000").status == 200


@pytest.mark.story("POST /mcp")
def test_a_key_sees_the_tools_that_it_may_call_and_no_others(client, crew, key_for, as_):
    listed = lambda who: {one["name"]: one for one in say(who, "tools/list").json["result"]["tools"]}  # noqa: E731
    ada, all_ = crew("ada"), listed(client)
    assert set(listed(ada)) == AGENTS and set(listed(crew("dora", delegates=True))) == AGENTS | {"agent_list"}
    assert len(all_) == 29 and set(listed(key_for("tasks:read"))) == {"whoami", "task_list", "task_show", "task_wait", "search", "rule_list", "run_list", "needs"}
    assert set(listed(key_for("files:read"))) == {"whoami", "search", "file_search", "file_read"}
    tool = all_["task_ask"]
    assert tool["inputSchema"] == {"type": "object", "additionalProperties": False, "required": ["id", "question"], "properties": {
        "id": {"type": "integer"}, "question": {"type": "string", "minLength": 1, "maxLength": 4000, "description": "All that a person must know to answer it"}}}
    assert listed(ada)["task_ask"]["inputSchema"]["required"] == ["question"], "it holds one task"
    assert tool["annotations"] == {"title": tool["title"], "readOnlyHint": False, "destructiveHint": False, "idempotentHint": False, "openWorldHint": False}
    assert all_["task_show"]["annotations"]["readOnlyHint"] and all(len(one["description"]) > 40 for one in all_.values())
    assert set(all_["run_note"]["inputSchema"]["properties"]) == {"id", "note"}
    refused = use(ada, "agent_list")
    assert refused["code"] == "forbidden" and "agents:read" in refused["message"]
    for who, role in (("vera", "viewer"), ("dan", "demo")):  # the door is open to them, and nothing that writes behind it
        one = as_(who, role)
        assert all(tool["annotations"]["readOnlyHint"] for tool in listed(one).values())
        for name, tool in all_.items():
            if not tool["annotations"]["readOnlyHint"]:
                assert use(one, name, id=1, title="x", name="x")["code"] == "forbidden", (role, name)
    assert db.value("SELECT count(*) FROM tasks") == db.value("SELECT count(*) FROM jobs") == 0


@pytest.mark.story("POST /mcp")
def test_tools_do_what_the_api_does(client, crew, lately):
    ada, bob = crew("ada", delegates=True), crew("bob")
    put("rules", id=1, tenant_id=1, rule="Be kind", scope="bob", category="general", permanent=0, created_by="user:1", created_at="2026-01-01T00:00:00.000Z", updated_at="2026-01-01T00:00:00.000Z")
    top = use(client, "task_create", title="Build", assignee="ada", description="a boat", tags=None)
    assert client.get(f"/tasks/{top['id']}").data["description"] == "a boat"
    assert use(ada, "task_show")["message"] == "id: You hold no task now; send its number"
    job = use(ada, "job_claim")
    assert (job["queue_name"], job["payload"]) == ("agent:ada", {"task_id": top["id"]})
    assert db.value("SELECT worker_id FROM jobs WHERE id = :id", id=int(job["id"][4:])) == "ada"
    assert use(ada, "task_show")["id"] == top["id"] and use(bob, "task_show", id=top["id"])["code"] == "not_found"
    part = use(ada, "task_create", title="Saw", assignee="bob", description="wood")
    assert (part["parent_id"], part["created_by"]) == (top["id"], "agent:ada")
    assert use(bob, "task_create", title="Not mine", assignee="ada")["code"] == "forbidden"
    assert use(bob, "task_update", id=part["id"], note="half of it")["note"] == "half of it"
    assert [one["rule"] for one in use(bob, "rule_list")] == ["Be kind"] and use(ada, "rule_list") == []
    assert use(ada, "budget_show")["agent"] == "ada" and use(ada, "budget_show", name="bob")["code"] == "forbidden"
    assert use(ada, "log_write", message="sawing")["agent"] == "ada" and client.get("/logs?q=sawing").data[0]["message"] == "sawing"
    for name, workspace in (("mine.md", "ada"), ("other.md", "bob")):
        put("files", tenant_id=1, name=name, path=f"agents/{workspace}/workspace/{name}", workspace=workspace, file_type="text/markdown", ext="md", category="docs", content="oak planks", size=10, synced=1, created_at="2026-01-01T00:00:00.000Z", updated_at="2026-01-01T00:00:00.000Z")
    mine, other = (db.value("SELECT id FROM files WHERE name = :name", name=name) for name in ("mine.md", "other.md"))
    assert [one["id"] for one in use(ada, "file_search", q="oak")] == [mine] and use(ada, "file_search", q="oak", workspace="bob") == []
    assert use(ada, "file_read", id=mine)["content"] == "oak planks" and use(ada, "file_read", id=other)["code"] == "not_found"
    client.post("/credentials", {"key": "SAW_KEY", "value": "s3cr3t-of-the-saw", "grants": ["ada"]})
    assert use(ada, "credential_get", key="SAW_KEY")["value"] == "s3cr3t-of-the-saw" and use(bob, "credential_get", key="SAW_KEY")["code"] == "not_found"
    assert db.value("SELECT actor FROM credential_reads") == "agent:ada"
    wrong = use(client, "task_create", title=7, priority="P9", extra=1)
    assert (wrong["code"], wrong["details"][0]["field"]) == ("invalid", "extra")
    wrong = use(client, "task_create", title=7, priority="P9")
    assert [one["field"] for one in wrong["details"]] == ["title", "priority"]
    assert use(client, "task_show")["message"] == "id: Required" and use(client, "task_show", id="x")["code"] == "invalid"
    assert [one["id"] for one in use(client, "task_list", status=["todo", "in_progress"], limit=1)] == [part["id"]]
    assert use(ada, "job_complete", id=job["id"], lease_token=job["lease_token"], result={"resolution": "so far"})["job"]["status"] == "completed"


@pytest.mark.story("POST /mcp")
def test_resources_are_read_by_their_uri(client, crew, key_for):
    ada = crew("ada")
    client.post("/rules", {"rule": "Be kind"})
    id = client.post("/tasks", {"title": "Build", "assignee": "ada"}).data["id"]
    put("files", id=5, tenant_id=1, name="a.md", path="agents/ada/workspace/a.md", workspace="ada", file_type="text/markdown", ext="md", category="docs", content="oak", size=3, synced=1, created_at="2026-01-01T00:00:00.000Z", updated_at="2026-01-01T00:00:00.000Z")
    put("files", id=6, tenant_id=1, name="a.png", path="agents/ada/workspace/a.png", workspace="ada", ext="png", category="media", content=None, size=3, synced=1, created_at="2026-01-01T00:00:00.000Z", updated_at="2026-01-01T00:00:00.000Z")
    assert say(key_for("files:read"), "resources/list").json["result"] == {"resources": []}
    uris = lambda who: [one["uri"] for one in say(who, "resources/list").json["result"]["resources"]]  # noqa: E731
    assert uris(client) == ["orkosi://rules", f"orkosi://tasks/{id}"] and uris(ada) == ["orkosi://rules", "orkosi://files/6", "orkosi://files/5"]
    use(ada, "job_claim")
    assert uris(ada) == ["orkosi://rules", f"orkosi://tasks/{id}", "orkosi://files/6", "orkosi://files/5"]
    assert [one["uriTemplate"] for one in say(ada, "resources/templates/list").json["result"]["resourceTemplates"]] == ["orkosi://tasks/{id}", "orkosi://files/{id}"]
    read = lambda uri, who=ada: say(who, "resources/read", {"uri": uri}).json  # noqa: E731
    assert [one["rule"] for one in json.loads(read("orkosi://rules")["result"]["contents"][0]["text"])] == ["Be kind"]
    assert json.loads(read(f"orkosi://tasks/{id}")["result"]["contents"][0]["text"])["title"] == "Build"
    assert read("orkosi://files/5")["result"] == {"contents": [{"uri": "orkosi://files/5", "mimeType": "text/markdown", "text": "oak"}]}
    for uri in ("orkosi://files/6", "orkosi://tasks/99", "orkosi://tasks/x", "file:///etc/passwd", 7, None):
        assert read(uri)["error"]["code"] == -32002 and read(uri)["error"]["data"] == {"uri": uri}
    assert stateless(ada, "resources/read", {"uri": "x:y"}).json["error"]["code"] == -32602
    made = stateless(ada, "resources/read", {"uri": "orkosi://rules"}).json["result"]
    assert (made["resultType"], made["ttlMs"], made["cacheScope"]) == ("complete", 0, "private")


# ── asking, and waiting ──


@pytest.mark.story("POST /api/tasks/{id}/ask")
def test_a_question_waits_for_a_person_and_the_answer_reaches_the_next_attempt(client, crew):
    ada, bob = crew("ada"), crew("bob")
    id = client.post("/tasks", {"title": "Paint", "assignee": "ada"}).data["id"]
    job = use(ada, "job_claim")
    before = client.get(f"/tasks/{id}").data
    assert bob.post(f"/tasks/{id}/ask", {"question": "Mine?"}).status == 404 and client.post("/tasks/99/ask", {"question": "x"}).status == 404
    assert ada.post(f"/tasks/{id}/ask", {"question": ""}).status == 400
    asked = ada.post(f"/tasks/{id}/ask", {"question": "Red or blue?"}).data
    shown = client.get(f"/tasks/{id}").data
    assert asked == {name: value for name, value in shown.items() if name not in ("subtasks", "data")} | {"why": None}, "as of every change"
    changed = {"status": "review", "reason": "question", "last_error": "Red or blue?", "note": None}
    assert {name: value for name, value in asked.items() if name != "updated_at"} == {
        name: value for name, value in (before | changed | {"why": None}).items() if name not in ("updated_at", "subtasks", "data")}
    assert [(one["code"], one["sentence"]) for one in shown["why"]] == [
        ("question", "It asks: Red or blue?"), ("review", f"Send it back with the answer: POST /api/tasks/{id}/reject")]
    told = client.get("/notifications").data[0]
    assert (told["title"], told["message"], told["type"]) == (f"Task {id} asks", "Paint: Red or blue?", "warning")
    need = next(one for one in client.get("/dashboard/needs").data["needs"] if one["kind"] == "review")
    assert "Red or blue?" in json.dumps(need)
    assert {one["action"] for one in client.get("/activity-log").data} >= {"task.asked", "task.review"}
    assert client.get(f"/task-queue/{job['id']}").data["status"] == "active", "who asked may end in peace"
    use(ada, "job_complete", id=job["id"], lease_token=job["lease_token"], result={"resolution": "I asked"})
    after = client.get(f"/tasks/{id}").data
    assert (after["status"], after["reason"], after["resolution"], after["last_error"]) == ("review", "question", "I asked", "Red or blue?")
    client.post(f"/tasks/{id}/reject", {"note": "Blue"})
    again = use(ada, "job_claim")
    told = use(ada, "task_show")
    assert again["id"] != job["id"] and (told["note"], told["last_error"], told["reason"]) == ("Blue", "Red or blue?", None)
    use(ada, "job_complete", id=again["id"], lease_token=again["lease_token"], result={"resolution": "Blue it is"})
    assert client.get(f"/tasks/{id}").data["status"] == "done"
    assert client.post(f"/tasks/{id}/ask", {"question": "More?"}).status == 409


def test_a_job_of_another_tenant_is_worked_on_with_its_tenant_id(client, as_):
    there = as_("olga", tenant=None).get("/auth/me").data["tenant"]
    for end, more in (("complete", {}), ("fail", {"error": "no"}), ("release", {})):
        use(client, "job_submit", task_type="t", tenant_id=there)
        job = use(client, "job_claim", worker_id="w", tenant_id=there)
        mine = {"id": job["id"], "lease_token": job["lease_token"], "tenant_id": there}
        assert use(client, "job_heartbeat", **mine, extend_seconds=500)["lease_expires_at"] > job["lease_expires_at"]
        use(client, f"job_{end}", **mine, **more)


def test_what_happens_to_the_attempt_that_asked_changes_nothing(client, crew):
    ada = crew("ada")
    for how in ("fail", "release", "answered first"):
        id = client.post("/tasks", {"title": how, "assignee": "ada"}).data["id"]
        job = use(ada, "job_claim")
        use(ada, "task_ask", question="Which?")
        if how == "answered first":  # while it still runs: it is told to end, and the next one knows
            client.post(f"/tasks/{id}/reject", {"note": "That"})
            assert use(ada, "job_heartbeat", id=job["id"], lease_token=job["lease_token"])["cancel"]
            assert use(ada, "job_claim")["payload"] == {"task_id": id}
            continue
        use(ada, f"job_{how}", id=job["id"], lease_token=job["lease_token"], **({"error": "broke"} if how == "fail" else {}))
        task = client.get(f"/tasks/{id}").data
        assert (task["status"], task["reason"], task["last_error"]) == ("review", "question", "Which?")
        assert use(ada, "job_claim") is None, "until it is answered, nobody tries again"


@pytest.mark.story("GET /api/tasks/{id}/subtasks")
def test_the_parts_of_a_task_are_listed_and_waited_for(client, crew):
    ada, bob = crew("ada", delegates=True), crew("bob")
    top = client.post("/tasks", {"title": "Build", "assignee": "ada"}).data["id"]
    assert client.get(f"/tasks/{top}/subtasks").json == {"data": [], "meta": {"open": 0}}
    use(ada, "job_claim")
    parts = [use(ada, "task_create", title=title, assignee="bob")["id"] for title in ("Saw", "Sew")]
    job = use(bob, "job_claim")
    use(bob, "job_complete", id=job["id"], lease_token=job["lease_token"], result={"resolution": "Sawn"})
    wanted = [{"id": parts[0], "title": "Saw", "assignee": "bob", "status": "done", "resolution": "Sawn", "last_error": None},
              {"id": parts[1], "title": "Sew", "assignee": "bob", "status": "todo", "resolution": None, "last_error": None}]
    assert ada.get(f"/tasks/{top}/subtasks").json == {"data": wanted, "meta": {"open": 1}}
    began = time.monotonic()
    assert ada.get(f"/tasks/{top}/subtasks?wait_seconds=0.4").json == {"data": wanted, "meta": {"open": 1}} and 0.3 < time.monotonic() - began < 3
    assert bob.get(f"/tasks/{top}/subtasks").status == 404 and client.get("/tasks/99/subtasks").status == 404
    for query in ("wait_seconds=-1", "wait_seconds=301", "wait_seconds=x", "more=1"):
        assert client.get(f"/tasks/{top}/subtasks?{query}").status == 400

    def finish():
        job = use(bob, "job_claim")
        use(bob, "job_complete", id=job["id"], lease_token=job["lease_token"], result={"resolution": "Sewn"})
    threading.Timer(0.3, finish).start()
    began = time.monotonic()
    done = say(ada, "tools/call", {"name": "task_wait", "arguments": {"wait_seconds": 20}}).json["result"]
    assert done["structuredContent"] == {"data": [wanted[0], wanted[1] | {"status": "done", "resolution": "Sewn"}], "meta": {"open": 0}}
    assert 0.2 < time.monotonic() - began < 8
    eventually(lambda: client.get(f"/tasks/{top}/subtasks").json["meta"] == {"open": 0})
