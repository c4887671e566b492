"""Stories of the public API's tasks and agents: the same things in its own words. (Its templates have a file of their own.)"""
import pytest
from conftest import Like, db, listed, put

from plugins import keys

TASKS, AGENTS = "/v1/public/tasks", "/v1/public/agents"
SAID = {"title": "Fix it", "description": "It loops.", "type": "bug", "priority": "critical", "status": "review", "assigned_to": "felix", "product_id": 5,
        "max_duration_seconds": 60}
# public → house
PRIORITIES = {"critical": "P0", "high": "P1", "medium": "P2", "low": "P3"}
STATUSES = {"todo": "todo", "in_progress": "in_progress", "review": "review", "done": "done", "blocked": "blocked", "cancelled": "archived"}


@pytest.fixture
def robot(key_for):
    """A key that may all of it, and the products 5 and 6."""
    for id, slug in ((5, "shop"), (6, "bank")):
        put("products", id=id, tenant_id=1, name=slug, slug=slug, created_at="", updated_at="")
    return key_for(*keys.SCOPES)


def stored(id, home=1, **fields):
    """A task as it is stored in the house's words, and as it is shown in the public's."""
    shown = SAID | {"title": f"Task {id}", "resolution": None, "created_at": f"2026-11-02T10:00:0{id}.000Z", "updated_at": f"2026-11-03T10:00:0{id}.000Z",
                    "finished_at": None} | fields
    put("tasks", id=id, tenant_id=home, title=shown["title"], title_key=shown["title"], description=shown["description"], type=shown["type"],
        status=STATUSES[shown["status"]], priority=PRIORITIES[shown["priority"]], assignee=shown["assigned_to"],
        product_slug={5: "shop", 6: "bank", None: None}[shown["product_id"]], max_duration_seconds=shown["max_duration_seconds"],
        resolution=shown["resolution"], created_by="user:7", created_at=shown["created_at"], updated_at=shown["updated_at"], finished_at=shown["finished_at"])
    return {"id": id} | shown


@pytest.mark.story("GET /api/v1/public/tasks", "GET /api/v1/public/tasks/{id}")
def test_tasks_are_listed_in_the_publics_words(robot):
    one = stored(1, status="cancelled", finished_at="2026-11-04T10:00:00.000Z", resolution="No more")
    two = stored(2, priority="high", assigned_to="ada", product_id=6)
    three = stored(3, priority="medium", status="blocked", type="ops", product_id=None)
    four = stored(4, priority="low", status="todo", assigned_to=None)
    five, six = stored(5, status="done"), stored(6, status="in_progress")
    stored(7, home=2)
    assert listed(robot, TASKS, [six, five, four, three, two, one])
    for query, found in [("status=cancelled", [one]), ("status=blocked,todo", [four, three]), ("priority=high", [two]), ("priority=low,medium", [four, three]),
                         ("assigned_to=ada", [two]), ("product_id=6", [two]), ("product_id=5&priority=critical&status=done&assigned_to=felix", [five]),
                         ("assigned_to=nobody", [])]:
        assert listed(robot, f"{TASKS}?{query}", found)
    for task in (one, two, three, four, five, six):
        assert robot.get(f"{TASKS}/{task['id']}").json == {"data": task}


@pytest.mark.story("POST /api/v1/public/tasks")
def test_a_task_is_what_was_sent_and_the_house_has_it_in_its_words(client, robot, lately):
    made = robot.post(TASKS, SAID | {"status": "todo"})
    told = {"resolution": None, "created_at": lately, "updated_at": lately, "finished_at": None}
    unknown = {"warnings": ["There is no agent felix; create it, or assign the task to another"]}
    assert (made.status, made.json) == (201, {"data": SAID | told | {"id": 1, "status": "todo"}, "meta": unknown})
    inside = client.get("/tasks/1").data
    assert inside.items() >= {"title": "Fix it", "description": "It loops.", "type": "bug", "priority": "P0", "status": "todo", "assignee": "felix",
                              "product_slug": "shop", "max_duration_seconds": 60, "job_id": "job_1"}.items()
    bare = robot.post(TASKS, {"title": "x"}).data
    assert bare == told | {"id": 2, "title": "x", "description": "", "type": "other", "priority": "medium", "status": "todo", "assigned_to": None,
                           "product_id": None, "max_duration_seconds": 3600}
    assert robot.post(TASKS, {"title": "y", "status": "review"}).data["status"] == robot.get(f"{TASKS}/3").data["status"] == "review"
    again = robot.post(TASKS, SAID | {"status": "todo"})
    assert (again.status, again.json) == (200, {"data": made.data, "meta": {"duplicate": True, "message": Like(".*answered.*")} | unknown})
    assert robot.patch(f"{TASKS}/2", {"assigned_to": "ghost"}).meta["warnings"][0].startswith("There is no agent ghost")
    bare |= {"assigned_to": "ghost", "updated_at": lately}
    assert robot.get(TASKS).data[1:] == [bare, made.data]


CHANGED = {"title": "Anew", "description": "d", "type": "ops", "priority": "low", "assigned_to": None, "product_id": 6, "resolution": "So", "max_duration_seconds": 7,
           "status": "blocked"}


@pytest.mark.story("PATCH /api/v1/public/tasks/{id}")
@pytest.mark.parametrize("change", [*({name: value} for name, value in CHANGED.items()), CHANGED, {"product_id": None}, {}])
def test_what_is_sent_of_a_task_is_changed_and_no_more(robot, lately, change):
    before, other = stored(1), stored(2)
    after = robot.patch(f"{TASKS}/1", change)
    assert after.json == {"data": before | change | {"updated_at": lately if change else after.data["updated_at"]}}
    assert robot.get(TASKS).data == [other, after.data]


@pytest.mark.story("PATCH /api/v1/public/tasks/{id}")
def test_a_task_that_is_done_was_finished_then(robot, lately):
    before = stored(1)
    assert robot.patch(f"{TASKS}/1", {"status": "done"}).data == before | {"status": "done", "finished_at": lately, "updated_at": lately}


@pytest.mark.story("DELETE /api/v1/public/tasks/{id}")
def test_an_archived_task_is_cancelled_and_its_job_ends(robot, lately):
    made, other = robot.post(TASKS, SAID | {"status": "todo"}).data, stored(9)
    assert robot.delete(f"{TASKS}/{made['id']}").json == {"data": {"deleted": True, "id": made["id"]}}
    assert robot.get(TASKS).data == [other, made | {"status": "cancelled", "finished_at": lately, "updated_at": lately}]
    assert db.value("SELECT state FROM jobs WHERE :tenant") == "cancelled"


# ── agents ──


def agent(id, name, home=1, *, status="idle", reported=None, wanted="running", **fields):
    """An agent as it is stored, driven from outside, and as the public is shown it."""
    shown = {"name": name, "display_name": name.title(), "emoji": "🔧", "role": "builder", "current_task": None, "workspace_path": f"work/{name}",
             "last_heartbeat": None, "created_at": "2026-11-02T10:00:00.000Z", "updated_at": "2026-11-03T10:00:00.000Z"} | fields
    put("agents", id=id, tenant_id=home, wanted=wanted, reported=reported or status, **shown)
    return {"id": id, "status": status} | shown


@pytest.mark.story("GET /api/v1/public/agents", "GET /api/v1/public/agents/{id}")
def test_agents_are_listed_by_name_in_the_publics_words(robot, lately):
    zoe, bob = agent(1, "zoe", status="blocked", reported="error"), agent(2, "bob", role="writer", emoji=None, workspace_path=None)
    silent = agent(3, "silent", status="offline", reported="working", last_heartbeat="2026-01-01T00:00:00.000Z", current_task="Sorting")
    ada, eve = agent(4, "ada", status="offline", reported="idle", wanted="stopped"), agent(5, "eve", status="working")
    tim = agent(6, "tim", status="paused", reported="idle", wanted="paused", role="writer")
    agent(7, "far", home=2)
    assert listed(robot, AGENTS, [ada, bob, eve, silent, tim, zoe])
    for query, found in [("status=offline", [ada, silent]), ("status=working,blocked", [eve, zoe]), ("role=writer", [bob, tim]), ("status=paused&role=writer", [tim]),
                         ("status=idle", [bob]), ("role=nobody", [])]:
        assert listed(robot, f"{AGENTS}?{query}", found)
    for one in (zoe, bob, silent, ada, eve, tim):
        assert robot.get(f"{AGENTS}/{one['id']}").json == {"data": one}


@pytest.mark.story("POST /api/v1/public/agents")
def test_an_agent_is_what_was_sent(robot, data, lately):
    full = {"name": "felix", "role": "Builder", "emoji": "🐈", "status": "blocked", "workspace_path": "work/felix"}
    made = robot.post(AGENTS, full)
    told = {"current_task": None, "last_heartbeat": None, "created_at": lately, "updated_at": lately}
    assert (made.status, made.json) == (201, {"data": full | told | {"id": 1, "display_name": "Felix"}})
    bare = robot.post(AGENTS, {"name": "ada", "role": "b"}).data
    assert bare == told | {"id": 2, "name": "ada", "display_name": "Ada", "role": "b", "emoji": None, "status": "idle", "workspace_path": None}
    assert robot.get(AGENTS).data == [bare, made.data] and not (data / "agents").exists()


@pytest.mark.story("PATCH /api/v1/public/agents/{id}")
@pytest.mark.parametrize("change", [{"emoji": None}, {"role": "writer"}, {"status": "working"}, {"current_task": "Sorting"}, {"workspace_path": "w"},
                                    {"emoji": "🐈", "role": "r", "status": "paused", "current_task": "c", "workspace_path": None}, {}])
def test_what_is_sent_of_an_agent_is_changed_and_a_status_or_a_task_is_a_sign_of_life(robot, lately, change):
    before, other = agent(1, "felix"), agent(2, "otto")
    after = robot.patch(f"{AGENTS}/1", change)
    assert after.json == {"data": before | change | {"last_heartbeat": lately if {"status", "current_task"} & set(change) else None,
                                                     "updated_at": lately if change else after.data["updated_at"]}}
    assert robot.get(AGENTS).data == [after.data, other]


@pytest.mark.story("PATCH /api/v1/public/agents/{id}")
def test_a_silent_agent_stays_so_whatever_others_call_it(robot):
    silent = agent(1, "felix", status="offline", reported="working", last_heartbeat="2026-01-01T00:00:00.000Z")
    after = robot.patch(f"{AGENTS}/1", {"emoji": "🐈"}).data
    assert after == silent | {"emoji": "🐈", "updated_at": after["updated_at"]}


@pytest.mark.story("DELETE /api/v1/public/agents/{id}")
def test_a_deactivated_agent_is_offline(robot, lately):
    before, other = agent(1, "felix", status="working", current_task="Sorting"), agent(2, "otto")
    assert robot.delete(f"{AGENTS}/1").json == {"data": {"deleted": True, "id": 1}}
    assert robot.get(AGENTS).data == [before | {"status": "offline", "current_task": None, "last_heartbeat": lately, "updated_at": lately}, other]
