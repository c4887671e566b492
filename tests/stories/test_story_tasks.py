"""Stories of tasks: every field that is sent, every filter, and the job behind."""
import pytest
from conftest import Client, db, listed, put

from plugins import keys

FULL = {"title": "Fix login bug", "description": "It loops.", "status": "todo", "priority": "P1", "assignee": "felix", "product_slug": "shop", "type": "bug",
        "category": "web", "tags": "login,urgent", "estimated_minutes": 90, "due_date": "2027-01-31", "max_duration_seconds": 600}
UNTOLD = {"resolution": None, "last_error": None, "reason": None, "note": None, "finished_at": None, "parent_id": None, "root_id": None, "depth": 0}
says = lambda code, sentence: {"code": code, "sentence": sentence}  # noqa: E731
REVIEW = says("review", "It waits for a person to look at it; set its status to done or todo")


def stored(id, home=1, blocked_by=(), **fields):
    """A task as it is stored, and as a list shows it."""
    shown = FULL | UNTOLD | {"title": f"Task {id}", "job_id": None, "created_by": "user:7", "created_at": f"2026-11-02T10:00:{id:02}.000Z",
                             "updated_at": f"2026-11-03T10:00:{id:02}.000Z"} | fields
    put("tasks", **shown | {"id": id, "tenant_id": home, "title_key": shown["title"].casefold(), "job_id": shown["job_id"] and int(shown["job_id"][4:])})
    for other in blocked_by:
        put("task_links", tenant_id=home, task_id=id, blocked_by=other)
    return shown | {"id": id, "product": shown["product_slug"], "blocked_by": sorted(blocked_by), "blocks": [], "why": told_of(shown, blocked_by)}


def told_of(shown, blocked_by):
    """Why it waits, where it has no job."""
    if shown["status"] == "todo":
        waits = [says("waits_for_task", f"Waits for task {id}") for id in sorted(blocked_by)]
        return [says("person", f"{shown['assignee']} is to do it: it is in no agent's queue")] if shown["job_id"] is None and shown["assignee"] and not waits else waits
    return [REVIEW] if shown["status"] == "review" else []


@pytest.mark.story("GET /api/tasks")
def test_tasks_are_listed_newest_first_and_narrowed(client, as_):
    one = stored(1, priority="P0", job_id="job_77", last_error="exit 1")
    two = stored(2, status="review", type="ops", assignee="ada", product_slug=None, description="the quick fox")
    three = stored(3, status="done", priority="P3", assignee="ann", resolution="Done so", finished_at="2026-11-04T10:00:00.000Z", title="Quick fix")
    four = stored(4, estimated_minutes=None, due_date=None, category=None, tags=None)
    stored(5, home=2)
    assert listed(client, "/tasks", [four, three, two, one])
    for query, found in [("status=review", [two]), ("status=review,done", [three, two]), ("priority=P0", [one]), ("priority=P3,P0", [three, one]),
                         ("assignee=ada", [two]), ("product=shop", [four, three, one]), ("type=ops", [two]), ("q=quick", [three, two]), ("q=fox+qui", [two]),
                         ("q=quick&status=done,todo", [three]), ("q=quick&priority=P3&assignee=ann&product=shop&type=bug", [three]), ("q=%22", []),
                         ("product=shop&status=todo&priority=P1&assignee=felix&type=bug", [four]), ("assignee=nobody", [])]:
        assert listed(client, f"/tasks?{query}", found)
    assert listed(as_("ann"), "/tasks?assignee=me", [three])


@pytest.mark.story("GET /api/tasks")
def test_the_next_task_is_the_most_urgent_that_waits_for_nothing(client):
    one, two = stored(1, priority="P2") | {"blocks": [3]}, stored(2, priority="P1", product_slug=None, description="the quick fox")
    stored(3, priority="P0", blocked_by=[1]), stored(4, priority="P0", status="review"), stored(5, priority="P0", assignee="ada")
    answer = {"meta": {"total": 1, "limit": 50, "offset": 0, "has_more": False, "next_after": None}}
    assert client.get("/tasks?assignee=felix&next=true").json == answer | {"data": [two]}
    for query, found in [("product=shop", [one]), ("priority=P2,P3", [one]), ("type=ops", []), ("type=bug", [two]), ("q=fox", [two]), ("q=wolf", []),
                         ("status=review", []), ("status=todo,review", [two])]:
        assert client.get(f"/tasks?assignee=felix&next=true&{query}").data == found
    put("task_links", tenant_id=1, task_id=2, blocked_by=5)
    assert client.get("/tasks?assignee=felix&next=true").json == answer | {"data": [one]}
    assert client.get("/tasks?assignee=nobody&next=true").json == {"data": [], "meta": answer["meta"] | {"total": 0}}


@pytest.mark.story("GET /api/tasks/{id}")
def test_one_task_says_what_it_waits_for_and_what_waits_for_it(client):
    one, two = stored(1, assignee=None), stored(2, status="review")
    three, four = stored(3, blocked_by=[2, 1]), stored(4, blocked_by=[3], status="blocked", last_error="No access")
    done = stored(5, status="done", finished_at="2026-11-04T10:00:00.000Z", resolution="So", blocked_by=[3])
    for task, blocked_by, blocks, why in [
            (one, [], [3], [says("unassigned", "Nobody is assigned; set an assignee")]),
            (two, [], [3], [REVIEW]),
            (three, [1, 2], [4, 5], [says("waits_for_task", "Waits for task 1"), says("waits_for_task", "Waits for task 2")]),
            (four, [3], [], [says("waits_for_task", "Waits for task 3"), says("blocked", "It is blocked: No access; set its status to todo to try again")]),
            (done, [3], [], [])]:
        assert client.get(f"/tasks/{task['id']}").json == {"data": task | {"blocked_by": blocked_by, "blocks": blocks, "why": why, "subtasks": []}}


@pytest.mark.story("GET /api/tasks/{id}")
def test_one_task_names_its_job_and_why_that_waits(client):
    made = client.post("/tasks", FULL).data
    shown = client.get(f"/tasks/{made['id']}").data
    assert shown == made | {"why": shown["why"], "subtasks": []} and shown["job_id"] == f"job_{db.value('SELECT max(id) FROM jobs WHERE :tenant')}"
    assert [one["code"] for one in shown["why"]] == ["agent_unknown"] and "felix" in shown["why"][0]["sentence"]


@pytest.mark.story("POST /api/tasks")
def test_a_task_is_what_was_sent_and_its_assignee_has_a_job(client, lately):
    me, first = client.get("/auth/me").data["id"], stored(1)
    client.post("/products", {"name": "Shop", "slug": "shop"})
    made = client.post("/tasks", FULL | {"blocked_by": [1]})
    told = UNTOLD | {"created_by": f"user:{me}", "created_at": lately, "updated_at": lately, "blocks": [], "why": None}
    job = db.one(dict, "SELECT id, queue, task_type, payload, priority, state, held_for FROM jobs WHERE :tenant")
    assert made.status == 201
    unknown = {"warnings": ["There is no agent felix; create it, or assign the task to another"]}
    assert made.json == {"data": FULL | told | {"id": 2, "product": "shop", "job_id": f"job_{job['id']}", "blocked_by": [1]}, "meta": unknown}
    assert job == {"id": job["id"], "queue": "agent:felix", "task_type": "task", "payload": '{"task_id":2}', "priority": 1, "state": "delayed",
                   "held_for": "Waits for task 1"}
    assert client.get("/tasks").data == [made.data | {"why": [says("waits_for_task", "Waits for task 1"), says("agent_unknown", unknown["warnings"][0])]},
                                         first | {"blocks": [2]}]
    bare = client.post("/tasks", {"title": "  Just   this "}).data
    assert bare == dict.fromkeys(FULL) | told | {"id": 3, "title": "Just this", "description": "", "status": "todo", "priority": "P2", "type": "other",
                                                 "max_duration_seconds": 3600, "product": None, "job_id": None, "blocked_by": []}
    over = client.post("/tasks", {"title": "Over", "status": "done", "assignee": "felix"}).data
    assert (over["status"], over["finished_at"], over["job_id"]) == ("done", lately, None)


@pytest.mark.story("POST /api/tasks")
def test_the_same_open_task_is_answered_instead(client):
    made = client.post("/tasks", FULL).data
    for same in ({}, {"description": ""}, {"title": "fix LOGIN bug"}, {"priority": "P3", "type": "ops"}):
        again = client.post("/tasks", FULL | same)
        assert (again.status, again.data, again.meta["duplicate"]) == (200, made, True)
    assert client.get("/tasks").meta["total"] == 1
    for number, other in enumerate(({"title": "Fix"}, {"description": "Else."}, {"product_slug": None}, {"assignee": None}, {"dedupe": False}), 2):
        assert client.post("/tasks", FULL | other).data["id"] == number
    assert client.patch("/tasks/2", {"title": FULL["title"]}).status == 200, "a change never conflicts"


CHANGED = {"title": "Other", "description": "d", "priority": "P3", "product_slug": None, "type": "ops", "category": "c", "tags": None, "estimated_minutes": 5,
           "due_date": "2028-02-29", "max_duration_seconds": 7, "resolution": "So",
           "note": "Use the other door"}


@pytest.mark.story("PATCH /api/tasks/{id}")
@pytest.mark.parametrize("change", [*({name: value} for name, value in CHANGED.items()), CHANGED, {}])
def test_what_is_sent_of_a_task_is_changed_and_no_more(client, lately, change):
    before, other = stored(1, assignee=None), stored(2)
    for slug in ("shop", change.get("product_slug")):
        client.post("/products", {"name": "Some", "slug": slug})
    after = client.patch("/tasks/1", change)
    now = before | change | {"why": None, "updated_at": lately if change else after.data["updated_at"]}
    assert after.json == {"data": now | {"product": now["product_slug"], "blocked_by": [], "blocks": []}}
    assert client.get("/tasks").data == [other, after.data | {"why": [says("unassigned", "Nobody is assigned; set an assignee")]}]


@pytest.mark.story("PATCH /api/tasks/{id}")
def test_a_status_an_assignee_and_what_it_waits_for_change_the_job(client, lately):
    stored(1, assignee=None), stored(2), stored(3, blocked_by=[1])
    jobs = lambda: db.all(tuple, "SELECT id, queue, state, held_for FROM jobs WHERE :tenant ORDER BY id")  # noqa: E731
    given = client.patch("/tasks/1", {"assignee": "ada"}).data
    assert (given["assignee"], given["blocks"]) == ("ada", [3]) and [given["job_id"]] == [f"job_{id}" for id, *_ in jobs()]
    assert jobs()[0][1:] == ("agent:ada", "waiting", None)
    waits = client.patch("/tasks/1", {"blocked_by": [2]}).data
    assert waits["blocked_by"] == [2] and jobs()[0][2:] == ("delayed", "Waits for task 2")
    done = client.patch("/tasks/1", {"status": "done"}).data
    assert (done["status"], done["finished_at"], done["job_id"]) == ("done", lately, given["job_id"]) and jobs()[0][2] == "cancelled"
    again = client.patch("/tasks/1", {"status": "todo", "blocked_by": None}).data
    assert (again["status"], again["finished_at"], again["blocked_by"]) == ("todo", None, []) and jobs()[-1][1:] == ("agent:ada", "waiting", None)
    failed = stored(9, status="blocked", last_error="exit 1")
    assert client.patch("/tasks/9", {"tags": "x"}).data["last_error"] == failed["last_error"]


@pytest.mark.story("DELETE /api/tasks/{id}")
def test_a_deleted_task_is_gone_with_its_job(client):
    made, other = client.post("/tasks", FULL).data["id"], stored(50)
    assert client.delete(f"/tasks/{made}").json == {"data": {"deleted": True, "id": made}}
    assert client.get("/tasks").data == [other] and db.value("SELECT state FROM jobs WHERE :tenant") == "cancelled"


@pytest.mark.story("GET /api/tasks")
def test_an_agents_key_is_shown_its_own(application):
    felix = Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])
    own, _ = stored(1), stored(2, assignee="ada")
    assert listed(felix, "/tasks", [own])
