"""Tasks: what may be said of them, what they wait for, and the job behind each."""
import itertools
import threading

import pytest
from conftest import Client, Like

import orkosi
from orkosi import acting, db, system
from plugins import agents, keys, queue, tasks


def made(client, **fields):
    return client.post("/tasks", {"title": "Fix login bug"} | fields).data


def work(client, agent="felix"):
    return client.post("/task-queue/claim", {"worker_id": "w", "queue_name": f"agent:{agent}"}).data


def settle(client, job, verb, **fields):
    return client.post(f"/task-queue/{job['id']}/{verb}", {"lease_token": job["lease_token"]} | fields)


@pytest.mark.parametrize("body, status", [
    ({"title": "Fix login bug"}, 201),
    ({"title": "Ünïcode ✓", "description": "x" * 65536, "due_date": "2027-01-31"}, 201),
    ({"title": ""}, 400),
    ({"title": "   "}, 400),
    ({"title": "x" * 301}, 400),
    ({"title": 7}, 400),
    ({}, 400),
    ({"title": "x", "prioritty": "P1"}, 400),  # typos are errors, not silence
    ({"title": "x", "priority": "urgent"}, 400),
    ({"title": "x", "status": "cancelled"}, 400),
    ({"title": "x", "assignee": "../felix"}, 400),
    ({"title": "x", "assignee": "felix", "blocked_by": [99]}, 404),  # as another tenant's would be
    ({"title": "x", "due_date": "tomorrow"}, 400),
])
def test_creating_a_task(client, body, status):
    assert client.post("/tasks", body).status == status


@pytest.mark.parametrize("raw, said", [
    (b'{"title": "a", "title": "b"}', "stands twice"),
    (b'{"title": NaN}', "NaN"),
    (b'{"title": "a\\u0000b"}', "NUL"),
    (b'{"title": "\\ud800"}', ""),
    (b"[" * 40 + b"]" * 40, "nests deeper"),
    (b'{"title": "x"', "not JSON"),
    (b'\xff{"title": 1}', "UTF-8"),
    (b'[]', "Expected"),
])
def test_malformed_bodies_say_what_is_wrong(client, raw, said):
    answer = client.post("/tasks", raw=raw)
    assert answer.status == 400 and said in answer.error["message"]


def test_a_body_that_is_no_json_is_415(client):
    answer = client.post("/tasks", raw=b"title=x", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status == 415 and "application/json" in answer.error["message"]


def test_the_same_open_title_is_the_same_task(client):
    first = client.post("/tasks", {"title": "Fix login bug"})
    again = client.post("/tasks", {"title": "  fix  LOGIN bug "})
    assert (first.status, again.status, again.meta) == (201, 200, {"duplicate": True, "message": Like(".*answered.*")})
    assert again.data["id"] == first.data["id"]
    assert client.post("/tasks", {"title": "Fix login bug", "product_slug": "shop"}).status == 201
    client.patch(f"/tasks/{first.data['id']}", {"status": "done"})
    assert client.post("/tasks", {"title": "Fix login bug"}).status == 201


def test_a_flood_of_tasks_is_answered_429(client, monkeypatch):
    from orkosi import settings
    monkeypatch.setitem(settings.values, "limit_task_create", "2/minute")
    statuses = [client.post("/tasks", {"title": f"t{n}"}) for n in range(3)]
    assert [one.status for one in statuses] == [201, 201, 429] and int(statuses[2].headers["Retry-After"]) > 0


def test_an_agent_claims_works_and_reports(client):
    task = made(client, assignee="felix", priority="P1")
    assert task["status"] == "todo" and task["job_id"].startswith("job_")
    job = work(client)
    assert job["payload"] == {"task_id": task["id"]}
    assert client.get(f"/tasks/{task['id']}").data["status"] == "in_progress"
    settle(client, job, "complete", result={"resolution": "Fixed the redirect"})
    done = client.get(f"/tasks/{task['id']}").data
    assert (done["status"], done["resolution"]) == ("done", "Fixed the redirect") and done["finished_at"]


@pytest.mark.parametrize("result, status", [
    ({"status": "review", "resolution": "look"}, "review"),
    ({"status": "blocked", "note": "no access"}, "blocked"),
    ({"status": "nonsense"}, "done"),
    ("just text", "done"),
    (None, "done"),
])
def test_the_report_decides_what_becomes_of_the_task(client, result, status):
    task = made(client, assignee="felix")
    settle(client, work(client), "complete", result=result)
    assert client.get(f"/tasks/{task['id']}").data["status"] == status


def test_a_failed_attempt_is_to_do_again_and_the_last_one_blocks(client):
    task = made(client, assignee="felix")
    settle(client, work(client), "fail", error="exit 1: no such file", retry_in_seconds=0)
    seen = client.get(f"/tasks/{task['id']}").data
    assert (seen["status"], seen["last_error"]) == ("todo", "exit 1: no such file")
    settle(client, work(client), "fail", error="hopeless", retryable=False)
    seen = client.get(f"/tasks/{task['id']}").data
    assert (seen["status"], seen["last_error"]) == ("blocked", "hopeless")
    assert "hopeless" in client.get("/notifications").data[0]["message"]
    client.patch(f"/tasks/{task['id']}", {"status": "todo"})
    assert work(client)["attempt"] == 1


@pytest.mark.parametrize("change", [{"status": "done"}, {"status": "archived"}, {"status": "review"}, {"assignee": None}])
def test_a_task_that_is_over_or_nobodys_has_no_job(client, change):
    task = made(client, assignee="felix")
    client.patch(f"/tasks/{task['id']}", change)
    assert work(client) is None
    assert client.get(f"/task-queue/{task['job_id']}").data["status"] == "cancelled"


def test_a_new_assignee_gets_the_job(client):
    task = made(client, assignee="felix")
    client.patch(f"/tasks/{task['id']}", {"assignee": "ada"})
    assert work(client) is None and work(client, "ada")["payload"] == {"task_id": task["id"]}


def test_priorities_decide_who_is_next(client):
    low, high = made(client, title="a", assignee="felix", priority="P3"), made(client, title="b", assignee="felix", priority="P0")
    assert client.get("/tasks?assignee=felix&next=true").data[0]["id"] == high["id"]
    client.patch(f"/tasks/{low['id']}", {"priority": "P0"})
    assert work(client)["payload"]["task_id"] == low["id"]


def test_a_task_waits_for_the_ones_that_block_it(client):
    first = made(client, title="first", assignee="felix")
    second = made(client, title="second", assignee="ada", blocked_by=[first["id"]])
    assert work(client, "ada") is None
    why = client.get(f"/tasks/{second['id']}").data["why"]
    assert why[0] == {"code": "waits_for_task", "sentence": f"Waits for task {first['id']}"}
    assert client.get("/tasks?assignee=ada&next=true").data == []
    settle(client, work(client), "complete")
    assert work(client, "ada")["payload"]["task_id"] == second["id"]


@pytest.mark.parametrize("how", ["delete", "archive"])
def test_what_goes_away_blocks_nobody(client, how):
    first = made(client, title="first")
    made(client, title="second", assignee="ada", blocked_by=[first["id"]])
    client.delete(f"/tasks/{first['id']}") if how == "delete" else client.patch(f"/tasks/{first['id']}", {"status": "archived"})
    assert work(client, "ada")


def test_circles_are_refused(client):
    a, b, c = (made(client, title=name)["id"] for name in "abc")
    assert client.patch(f"/tasks/{b}", {"blocked_by": [a]}).status == 200
    assert client.patch(f"/tasks/{c}", {"blocked_by": [b]}).status == 200
    answer = client.patch(f"/tasks/{a}", {"blocked_by": [c]})
    assert answer.status == 400 and "circle" in answer.error["message"]
    assert client.patch(f"/tasks/{a}", {"blocked_by": [a]}).status == 400
    assert client.get(f"/tasks/{a}").data["blocked_by"] == []


def test_finding_tasks(client):
    made(client, title="Alpha engine", description="the quick brown fox", priority="P0", assignee="felix")
    made(client, title="Beta engine", priority="P1")
    titles = lambda query: sorted(task["title"] for task in client.get(f"/tasks?{query}").data)  # noqa: E731
    assert titles("q=engine") == ["Alpha engine", "Beta engine"]
    assert titles("q=brown&priority=P0") == ["Alpha engine"] and titles("q=eng+alp") == ["Alpha engine"]
    assert titles("priority=P0,P1") == ["Alpha engine", "Beta engine"] and titles("assignee=felix") == ["Alpha engine"]
    assert titles("status=todo,done&limit=1") == ["Beta engine"]
    assert client.get("/tasks?status=nope").status == 400


@pytest.mark.parametrize("q", ['"', "-x", "NEAR(", "*", "a AND", "(", "col:x", "^", "'", "%00"])
def test_a_search_never_fails_on_what_is_searched(client, q):
    from urllib.parse import quote
    answer = client.get("/tasks?q=" + (q if q == "%00" else quote(q)))
    assert answer.status == (400 if q == "%00" else 200)


@pytest.mark.parametrize("path, status", [("/tasks/999", 404), ("/tasks/abc", 400), ("/tasks/0x1", 400), ("/tasks?limit=0", 400),
                                          ("/tasks?limit=201", 400), ("/tasks?offset=-1", 400), ("/tasks?limit=x", 400),
                                          ("/tasks?statsu=todo", 400), ("/tasks?next=true", 400), ("/tasks?limit=1&limit=2", 400)])
def test_bad_requests(client, path, status):
    assert client.get(path).status == status


def test_who_may(as_, client, application):
    task = made(client, assignee="felix")["id"]
    assert as_("vi", "viewer").post("/tasks", {"title": "x"}).status == 403
    assert as_("me").delete(f"/tasks/{task}").status == 403
    assert as_("other", tenant=None).get(f"/tasks/{task}").status == 404
    assert as_("other2", tenant=None).patch(f"/tasks/{task}", {"title": "mine"}).status == 404
    felix = Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])
    ada = Client(application, keys.issue(1, "ada", keys.AGENT_SCOPES, agent="ada")[1])
    assert felix.patch(f"/tasks/{task}", {"description": "seen"}).status == 200
    assert ada.patch(f"/tasks/{task}", {"description": "mine"}).status == ada.get(f"/tasks/{task}").status == 404
    assert ada.post("/task-queue/claim", {"worker_id": "ada", "queue_name": "agent:felix"}).status == 403
    assert [one["id"] for one in felix.get("/tasks?assignee=me").data] == [task]
    assert client.delete(f"/tasks/{task}").json == {"data": {"deleted": True, "id": task}}


def test_a_retried_job_brings_its_task_back(client):
    task = made(client, assignee="felix")
    settle(client, work(client), "fail", error="x", retryable=False)
    assert client.post(f"/task-queue/{task['job_id']}/retry").status == 200
    assert client.get(f"/tasks/{task['id']}").data["status"] == "todo"
    assert [name for name in queue.names() if name != queue.OWN] == ["agent:felix"]


# ── what an agent's key may do ──


@pytest.fixture
def felix(application):
    return Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])


def test_an_agents_key_sees_its_own_tasks_alone(client, felix):
    own, other, nobodys = made(client, title="own", assignee="felix")["id"], made(client, title="others", assignee="ada")["id"], made(client, title="free")["id"]
    assert [one["id"] for one in felix.get("/tasks").data] == [own] and felix.get("/tasks").meta["total"] == 1
    for query in ("?assignee=ada", "?q=others", "?assignee=ada&next=true", "?status=todo&assignee=ada"):
        assert felix.get(f"/tasks{query}").data == [], query
    assert [one["id"] for one in felix.get("/tasks?assignee=felix&next=true").data] == [own]
    for id in (other, nobodys):
        assert felix.get(f"/tasks/{id}").status == felix.patch(f"/tasks/{id}", {"status": "done"}).status == 404
    client.patch(f"/tasks/{other}", {"status": "done"})
    client.patch(f"/tasks/{own}", {"status": "done"})
    assert [one["task_id"] for one in felix.get("/changelog").data] == [own]
    assert [one["task_id"] for one in felix.get("/changelog?agent=ada").data] in ([own], [])
    assert felix.get("/changelog/summary").data[0]["total"] == 1 and b"others" not in felix.get("/changelog/feed").body


@pytest.mark.parametrize("way", ["completing the job", "changing the task"])
def test_an_agent_that_is_done_lets_another_go_on(client, felix, way):
    first = made(client, title="first", assignee="felix")
    second = made(client, title="second", assignee="ada", blocked_by=[first["id"]])
    assert client.get(f"/tasks/{second['id']}").data["why"][0]["code"] == "waits_for_task"
    job = work(felix)
    if way == "completing the job":
        assert settle(felix, job, "complete", result="done").status == 200
    else:
        assert felix.patch(f"/tasks/{first['id']}", {"status": "done"}).status == 200
    assert client.get(f"/tasks/{first['id']}").data["status"] == "done"
    assert work(client, "ada")["payload"] == {"task_id": second["id"]}
    assert tasks.search("second", 10)[0].id == second["id"]
    with orkosi.acting(orkosi.Actor(kind="agent", id="felix", name="felix", tenant=1)):
        assert tasks.search("second", 10) == [] and tasks.search("first", 10)[0].id == first["id"]


def test_an_agent_makes_tasks_for_itself_alone(client, felix):
    for body in ({"title": "x", "assignee": "ada"}, {"title": "x"}, {"title": "x", "assignee": None}):
        refused = felix.post("/tasks", body)
        assert refused.status == 403 and '"assignee": "felix"' in refused.error["message"]
    own = felix.post("/tasks", {"title": "x", "assignee": "felix"})
    assert own.status == 201
    for assignee in ("ada", None):
        assert felix.patch(f"/tasks/{own.data['id']}", {"assignee": assignee}).status == 403
    other = made(client, title="secret", assignee="ada")["id"]
    same = felix.post("/tasks", {"title": "secret", "assignee": "felix"})
    assert (same.status, same.meta.get("duplicate")) == (201, None), "and learns nothing of the other"
    assert felix.patch(f"/tasks/{own.data['id']}", {"blocked_by": [other]}).status == 404
    assert felix.get("/rules?agent=ada").status == 200


def test_an_agent_sees_the_rules_that_bind_it(client, felix):
    for scope in ("all", "felix", "ada"):
        client.post("/rules", {"rule": f"for {scope}", "scope": scope})
    assert sorted(one["scope"] for one in felix.get("/rules?agent=ada").data) == ["all", "felix"]
    assert felix.get("/rules?scope=ada").data == []


# ── a hundred at once ──


def test_a_hundred_tasks_to_wait_for_are_one_look(client, monkeypatch):
    ids = [made(client, title=f"step {n}")["id"] for n in range(100)]
    for before, after in itertools.pairwise(ids):
        client.patch(f"/tasks/{after}", {"blocked_by": [before]})
    asked = []
    plain = orkosi.Database._rows
    monkeypatch.setattr(orkosi.Database, "_rows", lambda self, con, kind, sql, params: asked.append(sql) or plain(self, con, kind, sql, params))
    made_last = client.post("/tasks", {"title": "last", "blocked_by": ids[::-1]})
    assert made_last.status == 201 and made_last.data["blocked_by"] == ids
    links = [sql for sql in asked if "task_links" in sql or "json_each" in sql]
    assert len(links) <= 5 and not [sql for sql in asked if "RECURSIVE" in sql], "what is new is in no circle"
    circle = client.patch(f"/tasks/{ids[0]}", {"blocked_by": [ids[50], made_last.data["id"]]})
    assert circle.status == 400 and circle.wrong == ["blocked_by"] and client.get(f"/tasks/{ids[0]}").data["blocked_by"] == []
    assert client.patch(f"/tasks/{ids[0]}", {"blocked_by": [ids[0]]}).status == 400
    assert client.post("/tasks", {"title": "x", "blocked_by": [ids[3], 999999]}).status == 404


# ── who is to do it ──


def test_a_task_may_be_a_persons_by_name_or_number(client, as_):
    ann = as_("ann")
    me = client.get("/auth/me").data
    renamed = client.patch(f"/users/{ann.get('/auth/me').data['id']}", {"username": "Ann O. Lee ✨"}).data
    for number, assignee in enumerate(("Ann O. Lee ✨", "ann o. lee ✨", str(renamed["id"]))):
        task = client.post("/tasks", {"title": f"Call {number}", "assignee": assignee})
        assert (task.status, task.data["assignee"], task.data["job_id"], task.json.get("meta")) == (201, "Ann O. Lee ✨", None, None), "nobody claims it"
    assert len(ann.get("/tasks?assignee=me").data) == 3 == len(client.get("/tasks?assignee=Ann%20O.%20Lee%20%E2%9C%A8").data)
    assert client.get("/tasks?assignee=me").data == [] and ann.get("/tasks?assignee=me&next=true").data[0]["title"] == "Call 0"
    why, = client.get(f"/tasks/{task.data['id']}").data["why"]
    assert why == {"code": "person", "sentence": "Ann O. Lee ✨ is to do it: it is in no agent's queue"}
    refused = client.post("/tasks", {"title": "x", "assignee": "Nobody at all"})
    assert refused.wrong == ["assignee"] and "nobody of that name" in refused.error["message"]
    mine = client.patch(f"/tasks/{task.data['id']}", {"assignee": str(me["id"])}).data
    assert mine["assignee"] == me["username"]


@pytest.mark.story("POST /api/tasks", "PATCH /api/tasks/{id}")
def test_whoever_assigns_a_task_hears_what_is_wrong_with_the_agent(client, data):
    assert client.post("/tasks", {"title": "a", "assignee": "ghost"}).meta["warnings"] == ["There is no agent ghost; create it, or assign the task to another"]
    client.post("/agents", {"name": "felix"})

    def look():
        """One turn of the service: it alone asks the disk, never the thread that answers."""
        stop = threading.Event()
        with acting(system()):
            threading.Timer(0.05, stop.set).start()
            agents.state.look_for_programs(stop)
    task = client.post("/tasks", {"title": "b", "assignee": "felix"})
    assert task.meta["warnings"] == ["Agent felix has no program: put an executable `brain` into its workspace, or give it a command"]
    assert task.data["id"] and client.get(f"/tasks/{task.data['id']}").data["why"][0]["code"] == "agent_brainless"
    client.patch("/agents/felix", {"command": ["no-such-program", "--now"]})
    assert client.post("/tasks", {"title": "c", "assignee": "felix"}).meta["warnings"] == [
        "Agent felix: its command no-such-program is not on its PATH; install it, or change the command"]
    client.patch("/agents/felix", {"command": ["sh", "-c", "true"]})
    assert client.post("/tasks", {"title": "d", "assignee": "felix"}).json.get("meta") is None
    assert client.patch(f"/tasks/{task.data['id']}", {"assignee": "ghost"}).meta["warnings"]
    client.patch("/agents/felix", {"command": None})
    brain = data / "agents/felix/workspace/brain"
    brain.write_text("#!/bin/sh\n")
    look()
    assert client.post("/tasks", {"title": "e", "assignee": "felix"}).meta["warnings"], "it must be executable"
    brain.chmod(0o755)
    look()
    assert client.post("/tasks", {"title": "f", "assignee": "felix"}).json.get("meta") is None


def test_nobody_takes_an_agents_work_by_a_name_like_its_own(client, as_, felix):
    with acting(system()):
        agents.register("felix")
    thief = as_("Felix")
    task = client.post("/tasks", {"title": "x", "assignee": "felix"}).data
    assert task["assignee"] == "felix" and task["job_id"] and thief.get("/tasks?assignee=me").data == []
    own = felix.post("/tasks", {"title": "y", "assignee": "felix"})
    assert own.status == 201 and own.data["job_id"], "nor can anybody keep the agent from its own"


def test_with_a_person_goes_their_name_from_tasks(client, as_):
    ann, bob = as_("ann"), as_("bob")
    client.patch(f"/users/{ann.get('/auth/me').data['id']}", {"username": "Ann Lee"})
    hers, his = (client.post("/tasks", {"title": name, "assignee": name}).data["id"] for name in ("Ann Lee", "bob"))
    client.post("/agents", {"name": "bob"})
    assert client.delete(f"/users/{ann.get('/auth/me').data['id']}").status == client.delete(f"/users/{bob.get('/auth/me').data['id']}").status == 200
    assert client.get(f"/tasks/{hers}").data["assignee"] is None and client.get("/tasks?assignee=Ann%20Lee").data == []
    assert client.get(f"/tasks/{his}").data["assignee"] == "bob", "by now, that is an agent's"


def test_every_word_of_a_search_counts(client):
    client.post("/tasks", {"title": "one two three four five six seven eight"})
    assert len(client.get("/tasks?q=one+two+three+four+five+six+seven+eight").data) == 1
    assert client.get("/tasks?q=one+two+three+four+five+six+seven+nine").data == []
    for q in ("one+two+three+four+five+six+seven+eight+nine", "x" * 201):
        refused = client.get(f"/tasks?q={q}")
        assert refused.status == 400 and refused.wrong == ["q"] and "8 different words" in refused.error["message"]


@pytest.mark.parametrize("day", ["2026-99-99", "2026-02-30", "2026-02-28T99:99"])
def test_a_task_is_due_on_a_day_that_there_is(client, day):
    refused = client.post("/tasks", {"title": "t", "due_date": day})
    assert refused.status == 400 and refused.json["error"]["details"][0]["field"] == "due_date"
    client.post("/tasks", {"title": "t", "due_date": "2028-02-29T10:00Z"})
    assert client.patch("/tasks/1", {"due_date": day, "title": "u"}).status == 400
    assert client.get("/tasks/1").data["title"] == "t" and client.get("/tasks/1").data["due_date"] == "2028-02-29T10:00Z"


# ── what became of jobs that are over ──


def taken(client, agent="felix"):
    return client.post("/task-queue/claim", {"worker_id": "w", "queue_name": f"agent:{agent}"}).data


def told(client, job, verb, **body):
    return client.post(f"/task-queue/{job['id']}/{verb}", {"lease_token": job["lease_token"], **body})


@pytest.fixture
def years(monkeypatch):
    """Every job that is over ended long ago, and is forgotten."""
    from plugins.queue import executor

    def pass_():
        db.write(lambda: db.run("UPDATE jobs SET finished_at = '2020-01-01T00:00:00.000Z' WHERE finished_at IS NOT NULL"))
        with acting(system()):
            executor.prune()
    return pass_


def test_a_task_outlives_its_job(client, years):
    done = client.post("/tasks", {"title": "Done", "assignee": "felix"}).data["id"]
    assert told(client, taken(client), "complete", result="ok").status == 200
    failed = client.post("/tasks", {"title": "Failed", "assignee": "felix", "product_slug": "shop"}).data["id"]
    assert told(client, taken(client), "fail", error="x", retryable=False).status == 200
    client.post("/products", {"name": "Shop", "slug": "shop"})
    years()
    assert db.value("SELECT count(*) FROM jobs WHERE task_type = 'task'") == 0
    assert client.post("/tasks", {"title": "Failed", "assignee": "felix"}).status in (200, 201)
    for change in ({"tags": "x"}, {"status": "todo"}, {"status": "archived"}):
        assert client.patch(f"/tasks/{done}", change).status == 200, change
    assert client.delete(f"/tasks/{done}").status == 200
    assert client.patch("/products/shop", {"status": "archived"}).status == 200 and client.get(f"/tasks/{failed}").data["status"] == "archived"


def test_an_old_blocked_task_stops_nobody_whom_it_waits_for(client, years):
    first = client.post("/tasks", {"title": "First", "assignee": "felix"}).data["id"]
    second = client.post("/tasks", {"title": "Second", "assignee": "ada", "blocked_by": [first]}).data["id"]
    client.patch(f"/tasks/{second}", {"status": "blocked"})
    years()
    assert told(client, taken(client), "complete", result="ok").status == 200 and client.get(f"/tasks/{first}").data["status"] == "done"


def test_work_under_way_goes_to_a_new_assignee(client):
    task = client.post("/tasks", {"title": "Move", "assignee": "felix"}).data["id"]
    old = taken(client)
    assert client.patch(f"/tasks/{task}", {"assignee": "ada"}).data["status"] == "todo"
    assert told(client, old, "complete").status == 409 and told(client, taken(client, "ada"), "complete").status == 200


def blocked(client):
    """A task whose job is dead."""
    task = made(client, assignee="felix")
    for _ in range(tasks.ATTEMPTS):
        settle(client, work(client), "fail", error="x", retry_in_seconds=0)
    assert client.get(f"/tasks/{task['id']}").data["status"] == "blocked"
    return task


def test_a_retry_of_all_that_is_dead_reopens_no_task_that_is_over(client):
    task = blocked(client)
    client.patch(f"/tasks/{task['id']}", {"status": "archived"})
    before = client.get(f"/tasks/{task['id']}").data
    client.post("/task-queue/retry", {"queue_name": "agent:felix"})
    assert client.get(f"/tasks/{task['id']}").data == before
    assert client.get(f"/task-queue/{task['job_id']}").data["status"] == "cancelled" and work(client) is None
    again = client.post(f"/task-queue/{task['job_id']}/retry")
    assert again.data["status"] == "cancelled", "by its number, too, and the answer says so"


def test_a_retry_of_all_that_is_dead_doubles_no_task_that_has_another_job(client):
    task = blocked(client)
    client.patch(f"/tasks/{task['id']}", {"status": "todo"})
    client.post("/task-queue/retry", {"queue_name": "agent:felix"})
    job = work(client)
    assert job["id"] != task["job_id"] and job["payload"] == {"task_id": task["id"]} and work(client) is None
    assert client.get(f"/tasks/{task['id']}").data["status"] == "in_progress"


def test_a_retry_of_all_that_is_dead_has_blocked_tasks_done_again(client):
    task = blocked(client)
    client.post("/task-queue/retry", {"queue_name": "agent:felix"})
    assert client.get(f"/tasks/{task['id']}").data["status"] == "todo" and work(client)["id"] == task["job_id"]


@pytest.mark.parametrize("blocked", [False, True])
def test_a_task_that_is_made_in_progress_has_a_job_unless_its_agent_is_at_it(client, crew, blocked):
    felix, first = crew("felix"), client.post("/tasks", {"title": "first"}).data["id"]
    made = client.post("/tasks", {"title": "a", "assignee": "felix", "status": "in_progress", "blocked_by": [first] * blocked}).data
    assert made["status"] == "in_progress" and made["job_id"]
    if blocked:
        assert work(client) is None
        client.patch(f"/tasks/{first}", {"status": "done"})
    job = work(client)
    assert job["id"] == made["job_id"] and job["payload"]["task_id"] == made["id"]
    settle(client, job, "complete", result="Done")
    assert client.get(f"/tasks/{made['id']}").data["status"] == "done"
    own = felix.post("/tasks", {"title": "I am at this", "assignee": "felix", "status": "in_progress"}).data
    assert (own["status"], own["job_id"]) == ("in_progress", None) and work(client) is None
    assert client.post("/tasks", {"title": "b", "status": "in_progress"}).data["job_id"] is None
