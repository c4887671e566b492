"""Stories of the dashboards, of health and of metrics: each figure is worked out once more, from what was seeded."""
import math
import random
import statistics
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from conftest import Like, put

import orkosi
from orkosi import Check, acting, db, now, settings, system
from plugins import costs, queue, tasks
from plugins.costs import sums as of_costs
from plugins.health import machine
from plugins.schedules import slots
from plugins.tasks import sums as of_tasks

OLD = "2026-11-02T10:00:00.000Z"
ZONE = ZoneInfo(slots.here())
STATUSES = ("todo", "in_progress", "review", "done", "blocked", "archived")


def day(ago):
    return (datetime.now(ZONE) - timedelta(days=ago)).strftime("%Y-%m-%d")


def moment(ago, hour=12):
    """Noon of a local day."""
    return queue.iso(datetime.fromisoformat(day(ago)).replace(hour=hour, tzinfo=ZONE).timestamp())


def agent(name, **more):
    put("agents", **{"tenant_id": 1, "name": name, "display_name": name, "created_at": OLD, "updated_at": OLD, "reported": "idle"} | more)


def task(id, status="todo", priority="P2", home=1, **more):
    put("tasks", **{"id": id, "tenant_id": home, "title": f"t{id}", "title_key": f"t{id}", "status": status, "priority": priority, "created_by": "system", "created_at": OLD,
                    "updated_at": OLD} | more)


def spent(name, ago, runs=1, done=1, wasted=0, tokens=(0, 0), cost=0, home=1, product=""):
    put("cost_sums", tenant_id=home, agent=name, day=day(ago), product=product, model="", runs=runs, done=done, wasted=wasted, tokens_in=tokens[0], tokens_out=tokens[1],
        cost_micros=cost, ms=0)


# ── dashboards ──


@pytest.mark.story("GET /api/dashboard/needs")
def test_needs_are_what_waits_for_a_person(client, as_, monkeypatch):
    from plugins import vault
    from plugins.dashboard import needs
    needs.look_anew("opened", None)
    assert client.get("/dashboard/needs").data == {"needs": [], "still": []}
    for id, title, error in ((1, "Look", None), (2, "Mail 7", "Traceback\nTimeoutError: after 30 s"), (3, "Mail 8", "TimeoutError: after 12 s"), (4, "Odd", "odd")):
        task(id, "review" if id == 1 else "blocked", title=title, resolution="All is well\nindeed" if id == 1 else None, last_error=error, updated_at=f"2026-11-0{id}T10:00:00.000Z")
    for id, (name, state, more) in enumerate((("mails", "dead", {"finished_at": "2026-11-05T10:00:00.000Z"}), ("mails", "dead", {"finished_at": OLD}), ("agent:ada", "dead", {"finished_at": OLD}),
                                              ("agent:ada", "waiting", {}), ("agent:ada", "waiting", {}), ("agent:nobody", "waiting", {}), ("still", "waiting", {}), ("images", "waiting", {})), 1):
        put("jobs", id=id, tenant_id=1, queue=name, task_type="t", state=state, created_at=OLD, error="x", **more)
    put("queues", tenant_id=1, name="still", paused_at=OLD)
    agent("ada", wanted="paused", note="lunch"), agent("felix", reported="offline", last_heartbeat=OLD)
    agent("half", steps=[{"step": 3, "name": "plist", "ok": False, "detail": "no room"}])
    for name, more in (("ada", {"over": "5 of 5 tokens of this day are used", "over_until": "2999-01-01T00:00:00.000Z"}),
                       ("felix", {"warned": "near tokens_per_day 2999-01-01T00:00:00.000Z"}), ("half", {"warned": "near tokens_per_day 2001-01-01T00:00:00.000Z"})):
        put("agent_budgets", tenant_id=1, agent=name, runs_without_progress=5, updated_at=OLD, **more)
    webhook = {"tenant_id": 1, "description": "", "types": [], "status": "paused", "seen": 0, "created_at": OLD}
    for host, why, more in (("a.example", "failing", {"failing_since": OLD}), ("b.example", "gone", {"last_sent_at": OLD}), ("c.example", "asked", {})):
        put("webhooks", url=f"https://{host}:8443/s3cret", paused_for=why, updated_at="2026-11-06T10:00:00.000Z" if more else OLD, **webhook, **more)
    put("webhooks", url="https://d.example/", updated_at=OLD, **webhook | {"status": "active"})
    client.post("/credentials", {"key": "A_KEY", "value": "a value of some length"})
    monkeypatch.setattr(vault, "confirmed", lambda: False)
    monkeypatch.setitem(orkosi.plugins["mail"].checks, "mail", lambda: Check(False, "3 letters wait"))
    needs.look_anew("opened", None)
    patch = lambda label, status, back: {"label": label, "operation": "PATCH /api/tasks/{id}", "body": {"status": status}, "undo": "PATCH /api/tasks/{id}",  # noqa: E731
                                         "undo_body": {"status": back}}
    do = lambda label, operation, undo=None, body=None: {"label": label, "operation": f"POST /api/{operation}", "body": body or {},  # noqa: E731
                                                         "undo": undo and f"POST /api/{undo}", "undo_body": {}}
    fields = ("kind", "key", "state", "title", "detail", "since", "link", "count", "ids", "steps")
    resume = {"label": "Resume", "operation": "PATCH /api/webhooks/{id}", "body": {"status": "active"}, "undo": "PATCH /api/webhooks/{id}", "undo_body": {"status": "paused"}}
    again = [patch("Try again", "todo", "blocked")]
    rows = [
        ("review", "t1", "review", "Look", "All is well", "2026-11-01T10:00:00.000Z", "/tasks/1", 1, ["1"], [patch("Done", "done", "review"), patch("Back to do", "todo", "review")]),
        ("blocked", "b3", "blocked", "2 tasks are blocked by the same error", "TimeoutError: after 12 s", "2026-11-02T10:00:00.000Z", "/tasks?status=blocked", 2, ["3", "2"], again),
        ("blocked", "b4", "blocked", "Odd", "odd", "2026-11-04T10:00:00.000Z", "/tasks/4", 1, ["4"], again),
        ("dead", "qmails", "dead", "2 jobs have used up all attempts in mails", "", "2026-11-05T10:00:00.000Z", "/task-queue?queue_name=mails&status=dead", 2, [],
         [do("Retry all", "task-queue/retry", None, {"queue_name": "mails"})]),
        ("agent", "afelix", "offline", "felix is offline", "It should be running, and no process is there", OLD, "/agents/felix", 1, ["felix"], [do("Restart", "agents/{name}/restart")]),
        ("agent", "ahalf", "error", "half could not be made", "plist: no room", OLD, "/agents/half", 1, ["half"], []),
        ("queue", "wagent:nobody", "waiting", "1 waiting in agent:nobody", "There is no agent nobody; create it, or assign the task to another", OLD,
         "/task-queue?queue_name=agent:nobody", 1, ["agent:nobody"], []),
        ("queue", "wimages", "waiting", "1 waiting in images", Like("No worker has claimed from images.*"), OLD, "/task-queue?queue_name=images", 1, ["images"], []),
        ("budget", "mada", "paused", "ada has used up its budget", "5 of 5 tokens of this day are used; it goes on at 2999-01-01T00:00:00.000Z", OLD, "/agents/ada", 1, ["ada"], []),
        ("budget", "mfelix", "paused", "felix nears its budget", "Four fifths of tokens per day are used", OLD, "/agents/felix", 1, ["felix"], []),
        ("webhook", "k1", "error", "The webhook to a.example is paused", "Nothing got through for three days; what happens is kept for it, and sent when resumed", OLD,
         "/webhooks/1", 1, ["1"], [resume]),
        ("webhook", "k2", "error", "The webhook to b.example is paused", "It answered 410: it wants no more. Delete it, or resume it", OLD, "/webhooks/2", 1, ["2"], [resume]),
        ("server", "hmail", "error", "Mail does not go out", "3 letters wait", None, "/health", 1, ["mail"], []),
        ("server", "hkey", "review", "The recovery key is not kept yet", Like("Write it down.*vault confirm"), None, "/credentials", 1, ["recovery-key"], [])]
    still = [
        ("held", "aada", "paused", "2 tasks wait for ada", "ada is paused: lunch", OLD, "/agents/ada", 2, ["ada"], [do("Resume", "agents/{name}/resume", "agents/{name}/pause")]),
        ("paused", "wstill", "paused", "1 waiting in still", "The queue still is paused", OLD, "/task-queue?queue_name=still", 1, ["still"],
         [do("Resume", "bull-queue/{queue}/resume", "bull-queue/{queue}/pause")]),
        ("paused", "k3", "paused", "The webhook to c.example is paused", "It was paused; what happens is kept for it, and sent when resumed", OLD, "/webhooks/3", 1, ["3"],
         [resume])]
    assert client.get("/dashboard/needs").data == {"needs": [dict(zip(fields, row, strict=True)) for row in rows], "still": [dict(zip(fields, row, strict=True)) for row in still]}
    assert [one["kind"] for one in as_("vera", role="viewer").get("/dashboard/needs").data["needs"]] == [row[0] for row in rows if row[0] not in ("server", "webhook")]
    assert [one["kind"] for one in as_("edith", role="editor").get("/dashboard/needs").data["needs"]] == [row[0] for row in rows if row[0] != "server"]
    assert as_("nils", tenant=None).get("/dashboard/needs").data == {"needs": [], "still": []}


@pytest.mark.story("GET /api/dashboard")
def test_the_front_names_nobody(client, anonymous, monkeypatch):
    from plugins import health
    monkeypatch.setattr(health, "STARTED", health.time.monotonic() - 4711.5)
    for id, status in enumerate(("todo", "done", "done", "archived", "blocked", "review"), 1):
        task(id, status, title="secret")
    task(9, "todo", home=2)
    agent("secret"), put("products", tenant_id=1, name="secret", slug="secret", created_at=OLD, updated_at=OLD)
    for id, state in enumerate(("waiting", "waiting", "delayed"), 1):
        put("jobs", id=id, tenant_id=1, queue="secret", task_type="t", state=state, created_at=OLD)
    front = anonymous.get("/dashboard")
    assert front.status == 200 and "secret" not in str(front.json)
    endpoints = front.data.pop("endpoints")
    from orkosi import VERSION
    uptime = front.data.pop("uptime")
    assert front.data == {"name": "Orkosi", "version": VERSION, "counts": {"agents": 1, "tasks_open": 3, "tasks_done": 2, "products": 1, "jobs_waiting": 2}}
    assert 4711 <= uptime < 4800 and {one["path"] for one in endpoints} == {"/api/dashboard/needs", "/api/dashboard/stats", "/api/dashboard/agent-efficiency", "/api/dashboard/agent-queue-health",
                                                                       "/api/dashboard/overview", "/api/arch-health", "/api/system/health"}
    assert next(one["description"] for one in endpoints if one["path"] == "/api/dashboard/stats") == "Count agents by state, tasks by status and priority, and products by status"


@pytest.mark.story("GET /api/dashboard/stats")
def test_what_there_is_is_counted(client):
    chance = random.Random(21)
    rows = [(chance.choice(STATUSES), f"P{chance.randrange(4)}") for _ in range(60)]
    for id, (status, priority) in enumerate(rows, 1):
        task(id, status, priority)
    task(99, home=2)
    agent("a"), agent("b", wanted="stopped"), agent("c", wanted="paused"), agent("d", wanted="stopped")
    for slug, status in (("x", "live"), ("y", "live"), ("z", "idea")):
        put("products", tenant_id=1, name=slug, slug=slug, status=status, created_at=OLD, updated_at=OLD)
    by_status = {status: sum(1 for one, _ in rows if one == status) for status in STATUSES}
    assert client.get("/dashboard/stats").json == {"data": {
        "agents": {"total": 4, "by_state": {"idle": 1, "paused": 1, "stopped": 2}},
        "tasks": {"total": 60, "by_status": by_status, "by_priority": {f"P{n}": sum(1 for _, one in rows if one == f"P{n}") for n in range(4)}},
        "products": {"total": 3, "by_status": {"idea": 1, "building": 0, "active": 0, "live": 2, "launched": 0, "placeholder": 0, "archived": 0}},
        "pending": by_status["todo"] + by_status["review"]}}


@pytest.mark.story("GET /api/dashboard/agent-efficiency")
def test_who_does_most_for_a_token_comes_first(client):
    for name in ("ada", "bob", "cy", "new"):
        agent(name)
    spent("ada", 0, runs=4, done=3, tokens=(900, 100), cost=50), spent("ada", 6, runs=2, done=1, tokens=(500, 500), cost=7), spent("ada", 7, runs=9, tokens=(9999, 0), cost=999)
    spent("bob", 3, runs=1, done=0, tokens=(100, 0), cost=3), spent("ada", 1, runs=5, home=2)
    for id, (name, ago, status) in enumerate((("ada", 0, "done"), ("ada", 6, "done"), ("ada", 7, "done"), ("bob", 1, "done"), ("bob", 2, "done"), ("cy", 1, "done"), ("ada", 0, "archived")), 1):
        task(id, status, assignee=name, finished_at=moment(ago))
    for name, ago, many in (("ada", 0, 3), ("ada", 6, 4), ("ada", 7, 90), ("cy", 1, 2)):
        put("idle_days", tenant_id=1, agent=name, day=day(ago), skipped=many)
    last = [(10 * n, n) for n in range(25)]
    for used, cost in last:
        put("agent_runs", tenant_id=1, agent="ada", status="done", tokens_in=used, tokens_out=1, cost_micros=cost, started_at=OLD, finished_at=OLD, counted=1)
    put("agent_runs", tenant_id=1, agent="ada", status="running", tokens_in=10**6, started_at=OLD)
    saved = [round(7 * statistics.median(values)) for values in ([used + 1 for used, _ in last[-20:]], [cost for _, cost in last[-20:]])]
    none = {"skipped_runs": 0, "saved_tokens": 0, "saved_micros": 0}
    assert client.get("/dashboard/agent-efficiency").json == {"data": [
        none | {"agent": "bob", "runs": 1, "success_rate": 0.0, "tokens": 100, "cost_micros": 3, "tasks_done": 2, "tasks_per_1k_tokens": 20.0},
        {"agent": "ada", "runs": 6, "success_rate": round(4 / 6, 4), "tokens": 2000, "cost_micros": 57, "tasks_done": 2, "tasks_per_1k_tokens": 1.0, "skipped_runs": 7,
         "saved_tokens": saved[0], "saved_micros": saved[1]},
        none | {"agent": "cy", "runs": 0, "success_rate": None, "tokens": 0, "cost_micros": 0, "tasks_done": 1, "tasks_per_1k_tokens": None, "skipped_runs": 2},
        none | {"agent": "new", "runs": 0, "success_rate": None, "tokens": 0, "cost_micros": 0, "tasks_done": 0, "tasks_per_1k_tokens": None}]}


@pytest.mark.story("GET /api/dashboard/agent-queue-health")
def test_how_long_work_waits_and_why(client):
    agent("ada"), agent("bob", wanted="paused")
    waits = [1, 5, 2, 30, 4, 3, 8]
    for id, wait in enumerate(waits, 1):
        put("jobs", id=id, tenant_id=1, queue="agent:ada", task_type="t", state="completed", created_at=now(-500 - wait), claimed_at=now(-500), finished_at=now(-400))
    put("jobs", id=20, tenant_id=1, queue="agent:ada", task_type="t", state="completed", created_at=now(-99999), claimed_at=now(-90000), finished_at=now(-90000))
    for id, (name, state) in enumerate((("bob", "waiting"), ("bob", "waiting"), ("bob", "delayed"), ("ada", "active"), ("other", "waiting")), 30):
        put("jobs", id=id, tenant_id=1, queue=f"agent:{name}", task_type="t", state=state, created_at=now(-100 + id), lease_token="x" if state == "active" else None,
            lease_expires_at=now(60) if state == "active" else None, run_at=now(60) if state == "delayed" else None)
    ada, bob = client.get("/dashboard/agent-queue-health").data
    ordered = sorted(waits)
    assert ada == {"agent": "ada", "queued": 0, "active": 1, "oldest_seconds": None, "wait_p50_seconds": pytest.approx(ordered[math.ceil(len(ordered) / 2) - 1], abs=0.1),
                   "wait_p95_seconds": pytest.approx(30, abs=0.1), "why": []}
    assert bob.pop("oldest_seconds") == pytest.approx(70, abs=2)
    assert bob == {"agent": "bob", "queued": 3, "active": 0, "wait_p50_seconds": None, "wait_p95_seconds": None,
                   "why": [{"code": "agent_paused", "sentence": Like("Agent bob is paused.*")}]}


@pytest.mark.story("GET /api/dashboard/overview")
def test_the_company_this_morning(client):
    put("token_accounts", tenant_id=1, balance=1234, granted=1234, purchased=0, consumed=0, updated_at=OLD)
    for id in range(1, 13):
        put("agent_runs", id=id, tenant_id=1, agent="ada", status="done", started_at=OLD, finished_at=OLD, counted=1)
    for id, (category, home) in enumerate((("protocol", 1), ("general", 1), ("protocol", 2), ("protocol", 1)), 1):
        put("rules", id=id, tenant_id=home, rule=f"r{id}", category=category, permanent=int(id == 1), created_by="system", created_at=OLD, updated_at=OLD)
    spent("ada", 0, runs=2, tokens=(10, 5), cost=7), spent("bob", 0, runs=1, tokens=(1, 1), cost=1), spent("ada", 2, runs=4, tokens=(3, 0), cost=2, product="x"), spent("ada", 8, runs=9)
    for name, ago, many in (("ada", 0, 3), ("bob", 0, 1), ("ada", 5, 2)):
        put("idle_days", tenant_id=1, agent=name, day=day(ago), skipped=many)
    for id, (ago, hour) in enumerate(((0, 0), (0, 12), (1, 23), (6, 0), (7, 23)), 1):
        task(id, "done", finished_at=moment(ago, hour))
    found = client.get("/dashboard/overview").data
    assert found["token_balance"] == 1234 and found["recent_runs"] == client.get("/agent-runs?limit=10").data and len(found["recent_runs"]) == 10
    assert found["protocols"] == [one for one in client.get("/rules").data if one["id"] in (1, 4)] and [one["id"] for one in found["protocols"]] == [1, 4]
    zero = {"tasks_done": 0, "runs": 0, "skipped": 0, "tokens": 0, "cost_micros": 0}
    days = {0: {"tasks_done": 2, "runs": 3, "skipped": 4, "tokens": 17, "cost_micros": 8}, 1: {"tasks_done": 1}, 2: {"runs": 4, "tokens": 3, "cost_micros": 2}, 5: {"skipped": 2},
            6: {"tasks_done": 1}}
    assert found["usage_7d"] == [{"date": day(ago)} | zero | days.get(ago, {}) for ago in range(6, -1, -1)] and len(found) == 4


@pytest.mark.story("GET /api/products/{slug}/facts")
def test_a_product_in_one_answer(client):
    for slug, home in (("shop", 1), ("other", 1)):
        put("products", tenant_id=home, name=slug, slug=slug, status="live", created_at=OLD, updated_at=OLD)
    for id in range(1, 15):
        task(id, STATUSES[id % 6], product_slug="shop" if id != 3 else "other", assignee="ada" if id % 2 else None)
    task(50, product_slug="shop", home=2)
    spent("ada", 0, runs=2, tokens=(10, 5), cost=7, product="shop"), spent("ada", 90, runs=1, tokens=(1, 1), cost=1, product="shop"), spent("bob", 1, runs=4, tokens=(3, 0), cost=20, product="shop")
    spent("ada", 0, runs=9, tokens=(9, 9), cost=99, product="other"), spent("ada", 0, runs=9, cost=99, product="shop", home=2)
    for id in range(1, 9):
        put("changelog", id=id, tenant_id=1, guid=f"g{id}", title=f"c{id}", summary=f"s{id}", task_id=40 + id, agent="ada", type="feature", product="shop" if id != 8 else "other", priority="P2", completed_at=f"2026-11-0{id}T10:00:00.000Z")
    mine = [id for id in range(1, 15) if id != 3]
    found = client.get("/products/shop/facts").data
    changes = found.pop("last_changes")
    assert found == {
        "slug": "shop", "status": "live", "tasks": {"total": 13, "by_status": {status: sum(1 for id in mine if STATUSES[id % 6] == status) for status in STATUSES}},
        "runs": 7, "tokens": 20, "cost_micros": 28, "agents": [{"agent": "bob", "runs": 4, "tokens": 3, "cost_micros": 20}, {"agent": "ada", "runs": 3, "tokens": 17, "cost_micros": 8}],
        "last_tasks": [{"id": id, "title": f"t{id}", "status": STATUSES[id % 6], "assignee": "ada" if id % 2 else None, "updated_at": OLD} for id in mine[:-11:-1]]}
    assert changes == [{"id": id, "guid": f"g{id}", "task_id": 40 + id, "title": f"c{id}", "summary": f"s{id}", "type": "feature", "product": "shop", "area": Like("(?i)shop"), "agent": "ada",
                        "priority": "P2", "completed_at": f"2026-11-0{id}T10:00:00.000Z"} for id in range(7, 2, -1)]
    assert client.get("/products/nothing/facts").status == 404


# ── the sums ──


def test_sums_follow_whatever_is_changed(client):
    """Tasks and runs, changed at random; the sums are those of the rows, after every step."""
    chance, ids = random.Random(7), []
    client.post("/agents", {"name": "ada"})
    runs = []
    for _ in range(150):
        what = chance.randrange(8)
        if what < 3 or not ids:
            ids.append(client.post("/tasks", {"title": f"t{len(ids)}", "status": chance.choice(STATUSES), "priority": f"P{chance.randrange(4)}", "dedupe": False}).data["id"])
        elif what == 3:
            client.patch(f"/tasks/{chance.choice(ids)}", {"status": chance.choice(STATUSES)})
        elif what == 4:
            client.patch(f"/tasks/{chance.choice(ids)}", {"priority": f"P{chance.randrange(4)}", "title": "x"})
        elif what == 5:
            client.delete(f"/tasks/{ids.pop(chance.randrange(len(ids)))}")
        elif what == 6 or not runs:
            runs.append(client.post("/agent-runs", {"agent": "ada", "task_id": chance.choice(ids)}).data["id"])
            db.write(lambda: db.run("UPDATE agents SET wanted = 'running'"))
        else:
            client.patch(f"/agent-runs/{chance.choice(runs)}", {"status": chance.choice(("done", "failed", "lost", "retry")), "tokens_in": chance.randrange(10**13), "cost_micros": 5})
    assert of_tasks.check() == of_costs.check() == []
    db.write(lambda: db.run("UPDATE task_sums SET n = n + 1 WHERE status = 'done'"))
    db.write(lambda: db.run("UPDATE cost_sums SET runs = runs + 1"))
    assert "the sum says" in of_tasks.check()[0] and "runs by the rows, and the sum says" in of_costs.check()[0]


def test_a_folder_from_before_there_were_sums_has_them(client):
    for id in range(1, 6):
        task(id, "done" if id > 3 else "todo")
    db.write(lambda: db.run("DELETE FROM task_sums"))
    put("agent_runs", id=7, tenant_id=1, agent="gone", status="done", tokens_in=5, cost_micros=9, started_at=OLD, finished_at=OLD)
    tasks.sums.fill()
    with acting(system()):
        costs.catch_up()
    assert of_tasks.check() == of_costs.check() == [] and client.get("/dashboard/stats").data["tasks"]["by_status"]["done"] == 2
    assert db.all(tuple, "SELECT agent, day, runs, done, tokens_in, cost_micros FROM cost_sums") == [("gone", costs.day_of(OLD), 1, 1, 5, 9)]


# ── health ──


@pytest.mark.story("GET /api/arch-health")
def test_how_the_server_is(client, anonymous, monkeypatch):
    found = anonymous.get("/arch-health")
    words = found.data["checks"]
    assert found.status == 200 and found.data["details"] is None and set(words) == {"db", "memory", "disk", "git", "tunnel", "rate_limits", "watchers", "scheduler", "backups"}
    assert {name: words[name] for name in ("db", "git", "tunnel", "watchers", "scheduler")} == {"db": "ok", "git": "off", "tunnel": "off", "watchers": "off", "scheduler": "ok"}
    assert found.data["status"] == ("degraded" if {"warn", "fail"} & set(words.values()) else "ok")
    seen = client.get("/arch-health").data
    assert seen["checks"] == words and seen["details"].keys() == words.keys() and "MB are free" in seen["details"]["disk"] and seen["details"]["memory"].endswith(" MB")
    assert anonymous.get("/arch-health", headers={"Authorization": "Bearer nonsense"}).data["checks"] == words
    monkeypatch.setattr(settings, "min_free_mb", 10**9)
    full = anonymous.get("/arch-health")
    assert full.status == 503 and full.data["checks"]["disk"] == "fail" and full.data["status"] == "degraded"


def test_each_word_of_the_server(client, monkeypatch):
    word = lambda name: client.get("/arch-health").data["checks"][name]  # noqa: E731
    monkeypatch.setattr(settings, "backup_remote", "x")
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    monkeypatch.setattr(settings, "tunnel_port", 1)
    monkeypatch.setattr(settings, "limit_login", "off")
    assert (word("git"), word("tunnel"), word("rate_limits")) == ("fail", "fail", "warn")
    monkeypatch.setattr(machine, "resident", lambda: machine.LARGE + 1)
    assert word("memory") == "warn"
    monkeypatch.setattr(machine, "resident", lambda: machine.HUGE + 1)
    assert word("memory") == "fail" and client.get("/arch-health").status == 200
    put("jobs", id=1, tenant_id=1, queue="q", task_type="t", state="delayed", run_at=now(-100), created_at=OLD)
    assert word("scheduler") == "fail"
    monkeypatch.setitem(machine.plugins["backups"].checks, "backups", lambda: Check(False, "none"))
    assert word("backups") == "warn" and client.get("/arch-health").data["details"]["backups"] == "none"


@pytest.mark.story("GET /api/system/health")
def test_how_the_company_is(client):
    well = client.get("/system/health").data
    assert well["score"] == 100.0 and set(well["sections"]) == {"agents", "tasks", "products", "files"}
    assert all(one["score"] == 100.0 and all(check["ok"] and check["message"] and not check["fix"] for check in one["checks"]) for one in well["sections"].values())
    task(1, "blocked", last_error="no paint"), task(2, "todo", "P0", product_slug="none"), task(3, "todo", product_slug="old")
    for slug, status in (("old", "archived"), ("bare", "live")):
        put("products", tenant_id=1, name=slug, slug=slug, status=status, created_at=OLD, updated_at=OLD)
    for _ in range(3):
        put("agent_runs", tenant_id=1, agent="ada", status="failed", error="boom", started_at=OLD, finished_at=OLD, counted=1)
    agent("ada")
    put("files", tenant_id=1, name="x.mine", path="agents/ada/workspace/x.mine", workspace="ada", synced=1, created_at=OLD, updated_at=OLD)
    ill = client.get("/system/health").data
    wrong = {f"{name}.{check['code']}": (check["message"], check["fix"]) for name, one in ill["sections"].items() for check in one["checks"] if not check["ok"]}
    assert wrong == {
        "agents.failing": ("Agent ada fails: its last 3 runs did", "The last error was: boom"),
        "tasks.blocked": ("Unblock task 1: t1", "Task 1 is blocked. no paint"),
        "tasks.stale": ("See to task 2, which stands still: t2, and 1 more", Like("Task 2 is todo, and has not changed since .*")),
        "tasks.unowned": ("Task 2 is urgent and nobody's: t2", "Assign it, or give it another priority"),
        "products.unknown": ("Task 2 is of none, which is no product", "Create the product, or correct the task's product_slug"),
        "products.archived": ("Task 3 is open, and its product old is archived", "Archive the task, or bring the product back"),
        "products.described": ("bare is live, and has no tagline", "PATCH /api/products/bare with a tagline"),
        "files.copies": ("agents/ada/workspace/x.mine is an agent's own copy of a guideline", "Take over what is good in it, and delete the copy")}
    for name, one in ill["sections"].items():
        assert one["score"] == round(100 * sum(check["ok"] for check in one["checks"]) / len(one["checks"]), 1), name
    assert ill["score"] == round(statistics.mean(one["score"] for one in ill["sections"].values()), 1)


# ── metrics ──


@pytest.mark.story("GET /api/metrics")
def test_metrics_are_what_a_prometheus_reads(client):
    from prometheus_client import parser
    agent('a"b\\c\nd'), agent("ada")
    task(1, "todo", "P0"), task(2, "todo", "P0"), task(3, "done")
    spent("ada", 0, runs=5, wasted=2, tokens=(10, 20), cost=1_500_000), spent("ada", 9, runs=1, cost=500_000)
    for id, state in enumerate(("waiting", "waiting", "active"), 1):
        put("jobs", id=id, tenant_id=1, queue="q", task_type="t", state=state, created_at=now(-50), lease_token="x" if state == "active" else None,
            lease_expires_at=now(60) if state == "active" else None)
    queue_paused = client.post("/bull-queue/r/pause")
    assert queue_paused.status == 200
    put("webhooks", id=7, tenant_id=1, url="https://a.example", description="", types="[]", status="active", seen=0, created_at=OLD, updated_at=OLD)
    for id, status in enumerate(("waiting", "dead", "waiting", "delivered", "waiting"), 1):
        put("webhook_deliveries", id=id, tenant_id=1, webhook_id=7, event_id=id, message_id=f"m{id}", type="t", entity="", body="{}", status=status, due_at=OLD, created_at=OLD)
    db.flusher.took = 0.25
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {}
    for family in parser.text_string_to_metric_families(answer.body.decode()):
        assert family.documentation and family.type in ("gauge", "counter")
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    value = lambda name, **labels: found[f"orkosi_{name}", tuple(sorted(labels.items()))]  # noqa: E731
    assert value("jobs", queue="q", state="waiting") == 2 and value("jobs", queue="q", state="active") == 1 and value("jobs", queue="q", state="dead") == 0
    assert 49 <= value("queue_oldest_waiting_seconds", queue="q") < 60 and value("queue_paused", queue="r") == 1 and value("queue_paused", queue="q") == 0
    assert value("tasks", status="todo", priority="P0") == 2 and value("tasks", status="done", priority="P2") == 1
    assert value("runs_total", agent="ada") == 6 and value("runs_wasted_total", agent="ada") == 2 and value("cost_dollars_total", agent="ada") == 2.0
    assert value("tokens_total", agent="ada", direction="in") == 10 and value("tokens_total", agent="ada", direction="out") == 20
    assert value("agents", state="idle") == 2 and value("uptime_seconds") >= 0 and value("resident_memory_bytes") > 10**7 and value("commits_total") > 1
    assert value("database_bytes", file="orkosi.db") + value("database_bytes", file="orkosi.db-wal") > 4096 and value("streams") == value("connections") == value("parked_requests") == 0
    assert value("webhook_deliveries", webhook="7", status="waiting") == 3 and value("webhook_deliveries", webhook="7", status="dead") == 1
    assert value("flush_seconds") == 0.25
    assert value("requests_total", status="2xx") >= 1 and value("loop_lag_seconds") >= 0 and ("orkosi_info", (("version", Like(r"\d+\..*")),)) in list(found)
