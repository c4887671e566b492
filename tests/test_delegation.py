"""Delegation: an agent gives parts of its task to others, waits for them, and goes on; a loop of agents comes to an end."""
import json
import subprocess
import sys

import pytest
from conftest import HOME, eventually

from orkosi import acting, db, emit, now, settings, system
from plugins import queue
from plugins.queue import deciding, executor
from plugins.tasks import delegation


def claim(agent, name):
    return agent.post("/task-queue/claim", {"queue_name": f"agent:{name}", "worker_id": "w"}).data


def complete(agent, job, result="done"):
    return agent.post(f"/task-queue/{job['id']}/complete", {"lease_token": job["lease_token"], "result": {"resolution": result}})


@pytest.mark.story("POST /api/tasks", "GET /api/tasks/{id}")
def test_a_task_waits_for_its_parts_and_goes_on_with_what_came_of_them(client, crew):
    ada, bob = crew("ada", delegates=True), crew("bob")
    top = client.post("/tasks", {"title": "Build a boat", "assignee": "ada"}).data["id"]
    job = claim(ada, "ada")
    part = ada.post("/tasks", {"title": "Cut the wood", "assignee": "bob", "description": "Oak"})
    assert part.status == 201
    part = part.data
    assert (part["parent_id"], part["root_id"], part["depth"], part["created_by"], part["assignee"]) == (top, top, 1, "agent:ada", "bob")
    again = ada.post("/tasks", {"title": "Cut the wood", "assignee": "bob"})
    assert (again.status, again.data["id"], again.meta["duplicate"]) == (200, part["id"], True)
    sail = ada.post("/tasks", {"title": "Sew the sail", "assignee": "bob", "parent_id": top, "blocked_by": [part["id"]]}).data["id"]
    assert client.get(f"/tasks/{top}").data["status"] == "in_progress" and client.get(f"/tasks/{top}").data["blocked_by"] == [part["id"], sail]

    complete(ada, job, "Half a boat")
    waiting = client.get(f"/tasks/{top}").data
    assert (waiting["status"], waiting["finished_at"], waiting["resolution"]) == ("todo", None, "Half a boat")
    assert [(one["code"], one["sentence"]) for one in waiting["why"][:2]] == [("waits_for_task", f"Waits for task {part['id']}"), ("waits_for_task", f"Waits for task {sail}")]
    assert claim(ada, "ada") is None

    job = claim(bob, "bob")
    assert job["payload"]["task_id"] == part["id"]
    assert bob.get(f"/tasks/{top}").status == 404, "the part's agent sees the part alone"
    complete(bob, job, "Forty planks. " + "x" * 3000)
    seen = ada.get(f"/tasks/{part['id']}")
    assert seen.status == 200 and seen.data["resolution"].endswith("x" * 3000), "whoever gave it away sees all of it"
    assert ada.patch(f"/tasks/{part['id']}", {"priority": "P0"}).status == 404, "and changes nothing of it"
    assert claim(ada, "ada") is None
    complete(bob, claim(bob, "bob"), "A sail")
    job = claim(ada, "ada")
    assert job["payload"]["task_id"] == top
    told = ada.get(f"/tasks/{top}").data["subtasks"]
    assert [(one["id"], one["title"], one["assignee"], one["status"], one["last_error"]) for one in told] == [
        (part["id"], "Cut the wood", "bob", "done", None), (sail, "Sew the sail", "bob", "done", None)]
    assert told[0]["resolution"] == ("Forty planks. " + "x" * 3000)[:2000] and told[1]["resolution"] == "A sail"
    complete(ada, job, "A boat")
    over = client.get(f"/tasks/{top}").data
    assert (over["status"], over["resolution"], over["why"]) == ("done", "A boat", [])
    assert "subtasks" not in client.get("/tasks").data[0]


def test_an_attempt_that_came_to_nothing_waits_for_the_parts_it_made(client, crew):
    ada, bob = crew("ada", delegates=True), crew("bob")
    top = client.post("/tasks", {"title": "Build a boat", "assignee": "ada"}).data["id"]
    for end in ("release", "fail", "its lease ran out"):
        job = claim(ada, "ada")
        part = ada.post("/tasks", {"title": f"Cut the wood, {end}", "assignee": "bob"}).data["id"]
        if end in ("release", "fail"):
            ada.post(f"/task-queue/{job['id']}/{end}", {"lease_token": job["lease_token"]} | ({"error": "out of breath"} if end == "fail" else {}))
        else:
            db.write(lambda id=queue.id_of(job["id"]): db.run("UPDATE jobs SET lease_expires_at = :past WHERE id = :id", past=now(-1), id=id))
        db.write(lambda: db.run("UPDATE jobs SET run_at = :past WHERE state = 'delayed'", past=now(-1)))
        executor.rescue()
        executor.promote_due()
        assert client.get(f"/tasks/{top}").data["why"][0]["sentence"] == f"Waits for task {part}", end
        assert claim(ada, "ada") is None, end
        complete(bob, claim(bob, "bob"))
        executor.promote_due()
    assert [one["title"] for one in ada.get(f"/tasks/{claim(ada, 'ada')['payload']['task_id']}").data["subtasks"]] == [
        "Cut the wood, release", "Cut the wood, fail", "Cut the wood, its lease ran out"]


@pytest.mark.parametrize("looks", [None, "/tasks/{part}", "/tasks/{top}", "/tasks/{top}/subtasks?wait_seconds=5"])
def test_a_part_that_is_over_before_its_task_is_not_lost(client, crew, looks):
    """What came of it is told to the attempt that gave it away, where that looks, or to one more."""
    ada, bob = crew("ada", delegates=True), crew("bob")
    top = client.post("/tasks", {"title": "Build a boat", "assignee": "ada"}).data["id"]
    job = claim(ada, "ada")
    for wood in ("Oak", "Pine"):
        part = ada.post("/tasks", {"title": f"Cut the {wood}", "assignee": "bob"}).data["id"]
        if looks:
            assert ada.get(looks.format(part=part, top=top).partition("?")[0]).status == 200, "it was not over, so this is not to count"
        complete(bob, claim(bob, "bob"), f"{wood} planks")
        if looks and (wood == "Pine" or "part" in looks):
            assert f"{wood} planks" in str(ada.get(looks.format(part=part, top=top)).json)
    own = ada.post("/tasks", {"title": "Find the hammer", "assignee": "ada", "parent_id": top}).data["id"]
    assert ada.patch(f"/tasks/{own}", {"status": "done"}).status == 200, "of which it knows, for it did it"
    client.get(f"/tasks/{top}")  # that a person looks tells the agent nothing
    complete(ada, job, "I have given it away")
    after = client.get(f"/tasks/{top}").data
    if not looks:
        assert (after["status"], after["finished_at"], after["resolution"]) == ("todo", None, "I have given it away")
        job = claim(ada, "ada")
        assert job["payload"]["task_id"] == top
        assert [one["resolution"] for one in ada.get(f"/tasks/{top}").data["subtasks"]] == ["Oak planks", "Pine planks", None]
        complete(ada, job, "A boat")
        after = client.get(f"/tasks/{top}").data
    assert after["status"] == "done" and claim(ada, "ada") is None


@pytest.mark.story("PATCH /api/agents/{name}", "POST /api/agents")
def test_who_may_delegate_what_to_whom(client, crew, people):
    ada, bob, carl = crew("ada", delegates=True), crew("bob"), crew("carl")
    people("olga", "member")
    assert ada.post("/tasks", {"title": "Too early", "assignee": "bob"}).status == 422, "there is nothing it could be a part of"
    mine, other = (client.post("/tasks", {"title": name, "assignee": name}).data["id"] for name in ("ada", "bob"))
    claim(ada, "ada")
    claim(bob, "bob")
    refused = bob.post("/tasks", {"title": "Help", "assignee": "carl"})
    assert refused.status == 403 and "PATCH /api/agents/bob" in refused.error["message"]
    for assignee in ("nobody", "olga", None):
        assert (ada.post("/tasks", {"title": "Help", "assignee": assignee}).status, ) == (400, ), assignee
    for parent in (other, 999):
        answer = ada.post("/tasks", {"title": "Help", "assignee": "bob", "parent_id": parent})
        assert (answer.status, answer.wrong) == (400, ["parent_id"])
    circle = ada.post("/tasks", {"title": "Help", "assignee": "bob", "blocked_by": [mine]})
    assert circle.status == 400 and "circle" in circle.error["message"] and carl.get("/tasks").data == []
    assert ada.patch(f"/tasks/{mine}", {"assignee": "bob"}).status == 403, "a part, but not the whole"
    assert ada.post("/tasks", {"title": "For myself", "assignee": "ada"}).data["parent_id"] is None
    # It is taken back as it is given: at once, with the same key.
    assert client.patch("/agents/ada", {"delegates": False}).data["delegates"] is False
    assert ada.post("/tasks", {"title": "Help", "assignee": "bob"}).status == 403 and ada.get("/agents").status == 403
    assert client.patch("/agents/bob", {"delegates": True}).data["delegates"] is True
    assert bob.post("/tasks", {"title": "Help", "assignee": "carl"}).data["parent_id"] == other and bob.get("/agents").status == 200


@pytest.mark.story("POST /api/tasks")
def test_people_make_parts_too(client, crew):
    ada = crew("ada")
    top = client.post("/tasks", {"title": "Build a boat", "assignee": "ada"}).data["id"]
    part = client.post("/tasks", {"title": "Cut the wood", "assignee": "olga", "parent_id": top}).data
    assert (part["parent_id"], part["depth"]) == (top, 1) and claim(ada, "ada") is None
    client.patch(f"/tasks/{part['id']}", {"status": "done"})
    assert claim(ada, "ada")["payload"]["task_id"] == top
    client.patch(f"/tasks/{top}", {"status": "done"})
    late = client.post("/tasks", {"title": "Too late", "parent_id": top})
    assert (late.status, late.wrong) == (400, ["parent_id"]) and "is done" in late.error["message"]


def test_with_a_task_its_open_parts_are_archived_whoever_is_at_them(client, crew):
    ada, bob = crew("ada", delegates=True), crew("bob", delegates=True)
    top = client.post("/tasks", {"title": "Build a boat", "assignee": "ada"}).data["id"]
    claim(ada, "ada")
    part = ada.post("/tasks", {"title": "Cut the wood", "assignee": "bob"}).data["id"]
    job = claim(bob, "bob")
    deeper = bob.post("/tasks", {"title": "Sharpen the saw", "assignee": "ada"}).data["id"]
    done = ada.post("/tasks", {"title": "Draw it", "assignee": "bob"}).data["id"]
    client.patch(f"/tasks/{done}", {"status": "done"})
    client.patch(f"/tasks/{top}", {"status": "archived"})
    assert [client.get(f"/tasks/{id}").data["status"] for id in (top, part, deeper, done)] == ["archived", "archived", "archived", "done"]
    heard = bob.post(f"/task-queue/{job['id']}/heartbeat", {"lease_token": job["lease_token"]})
    assert heard.data["cancel"] is True
    client.delete(f"/tasks/{top}")
    assert client.get(f"/tasks/{part}").data["parent_id"] is None and client.get(f"/tasks/{part}").data["root_id"] == top


def test_agents_that_feed_each_other_come_to_an_end(client, crew):
    settings.values["delegation_depth"] = 3
    ada, bob = crew("ada", delegates=True), crew("bob", delegates=True)
    top = client.post("/tasks", {"title": "Who does it?", "assignee": "ada"}).data["id"]
    for depth, (one, name, other) in enumerate([(ada, "ada", "bob"), (bob, "bob", "ada"), (ada, "ada", "bob")], 1):
        claim(one, name)
        made = one.post("/tasks", {"title": "You do it", "assignee": other})
        assert (made.status, made.data["depth"], made.data["root_id"]) == (201, depth, top)
    last = claim(bob, "bob")
    stopped = bob.post("/tasks", {"title": "You do it", "assignee": "ada"})
    assert (stopped.status, stopped.code) == (422, "delegation_bound") and "delegation_depth" in stopped.error["message"]
    own = bob.post("/tasks", {"title": "Then I do", "assignee": "bob"}).data
    assert (own["parent_id"], own["depth"], own["root_id"]) == (None, 3, top), "what it makes for itself stands no higher"
    bob.post(f"/task-queue/{last['id']}/fail", {"lease_token": last["lease_token"], "error": "nobody does it", "retryable": False})
    why = client.get(f"/tasks/{last['payload']['task_id']}").data["why"]
    assert [one["code"] for one in why] == ["blocked", "delegation_bound"] and f"3 below task {top}" in why[1]["sentence"]
    listed = next(one for one in client.get("/tasks?status=blocked").data)
    assert listed["why"] == why


def test_no_task_has_more_parts_than_the_bound(client, crew):
    settings.values["delegation_tasks"] = 3
    ada = crew("ada", delegates=True)
    crew("bob")
    top = client.post("/tasks", {"title": "Build a fleet", "assignee": "ada"}).data["id"]
    job = claim(ada, "ada")
    made = [ada.post("/tasks", {"title": f"Boat {n}", "assignee": "bob"}) for n in range(4)]
    assert [one.status for one in made] == [201, 201, 201, 422] and made[-1].code == "delegation_bound" and "3 tasks below" in made[-1].error["message"]
    ada.post(f"/task-queue/{job['id']}/fail", {"lease_token": job["lease_token"], "error": "too few", "retryable": False})
    assert [one["code"] for one in client.get(f"/tasks/{top}").data["why"]] == ["waits_for_task"] * 3 + ["blocked"]
    part = made[0].data["id"]
    client.patch(f"/tasks/{part}", {"status": "blocked"})
    assert "delegation_tasks" in client.get(f"/tasks/{part}").data["why"][-1]["sentence"]


BRAIN = r'''#!{python}
import json, os, sys, urllib.request
told = json.load(sys.stdin)
task, others = told["task"], [one["name"] for one in told["agents"]]
if task["subtasks"]:
    print("It came to: " + "; ".join(one["resolution"] or one["status"] for one in task["subtasks"]))
    sys.exit()
body = json.dumps({{"title": "You do it", "assignee": others[0]}}).encode()
asked = urllib.request.Request(os.environ["ORKOSI_URL"] + "/api/tasks", body, {{
    "Content-Type": "application/json", "Authorization": "Bearer " + open(os.environ["ORKOSI_KEY_FILE"]).read().strip()}})
try:
    urllib.request.urlopen(asked).read()
except urllib.error.HTTPError as refused:
    print("Then I do: " + json.load(refused)["error"]["code"])
'''


@pytest.mark.slow
def test_a_loop_of_real_agents_ends_by_itself_and_the_results_come_back(server):
    running = server(env={"ORKOSI_DELEGATION_DEPTH": "3"})
    admin = server.admin(running)
    for name in ("ada", "bob"):
        running.call("POST", "/agents", {"name": name, "interval_sec": 1, "delegates": True}, admin)
        brain = running.folder / "agents" / name / "workspace" / "brain"
        brain.write_text(BRAIN.format(python=sys.executable))
        brain.chmod(0o700)
    top = running.call("POST", "/tasks", {"title": "Who does it?", "assignee": "ada"}, admin)[1]["data"]["id"]
    show = lambda: running.call("GET", f"/tasks/{top}", token=admin)[1]["data"]  # noqa: E731
    eventually(lambda: show()["status"] == "done", patience=60, every=0.2)
    assert show()["resolution"] == "It came to: It came to: It came to: Then I do: delegation_bound"
    assert len(running.call("GET", "/tasks", token=admin)[1]["data"]) == 4
    listed = subprocess.run([sys.executable, f"{HOME}/orkosi.py", "task", "show", str(top), "--json", "--data", str(running.folder)],
                            capture_output=True, text=True, check=True).stdout
    assert json.loads(listed)["subtasks"][0]["assignee"] == "bob"


def test_another_data_folder_has_its_own_memory(client, crew, data):
    """What an agent was told, and what jobs were before their retry, is of the folder that is open, whose numbers begin anew."""
    ada, bob = crew("ada", delegates=True), crew("bob")
    client.post("/tasks", {"title": "Build a boat", "assignee": "ada"})
    claim(ada, "ada")
    part = ada.post("/tasks", {"title": "Cut the wood", "assignee": "bob"}).data["id"]
    job = claim(bob, "bob")
    complete(bob, job)
    ada.get(f"/tasks/{part}")
    failed = client.post("/task-queue/submit", {"task_type": "t"}).data["id"]
    lease = client.post("/task-queue/claim", {"worker_id": "w"}).data
    client.post(f"/task-queue/{failed}/fail", {"lease_token": lease["lease_token"], "error": "no", "retryable": False})
    client.post("/task-queue/retry", {"ids": [failed]})
    assert delegation._told and deciding._were
    with acting(system()):
        db.write(lambda: emit("opened", data))
    assert not delegation._told and not deciding._were
    client.post("/task-queue/bury", {"ids": [failed]})
    assert client.get(f"/task-queue/{failed}").data["status"] == "dead"
