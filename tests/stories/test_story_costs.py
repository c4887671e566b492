"""Stories of costs: what runs cost, what agents may spend, and what happens to those that spend too much."""
import time
from collections import defaultdict
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from conftest import Client, eventually

from orkosi import acting, db, now, seconds, settings, system
from plugins import costs, queue
from plugins.agents import runs
from plugins.queue import executor
from plugins.schedules import slots

NONE = {"tokens_per_day": None, "tokens_per_month": None, "cost_micros_per_day": None, "cost_micros_per_month": None, "cost_micros_per_hour": None,
        "runs_without_progress": 5, "micros_per_million_tokens_in": None, "micros_per_million_tokens_out": None}
ZERO = {"tokens": 0, "cost_micros": 0}
ZONE = ZoneInfo(slots.here())


@pytest.fixture
def felix(client):
    client.post("/agents", {"name": "felix", "model": "m-1"})
    return Felix(client)


class Felix:
    def __init__(self, client, name="felix"):
        self.client, self.name = client, name

    def run(self, status="done", task=None, **told):
        id = self.client.post("/agent-runs", {"agent": self.name, "task_id": task, "job_id": None}).data["id"]
        answer = self.client.patch(f"/agent-runs/{id}", {"status": status, **told})
        assert answer.status == 200, answer
        return answer.data

    def may(self, **limits):
        answer = self.client.put(f"/agents/{self.name}/budget", limits)
        assert answer.status == 200, answer
        return answer.data

    def why(self):
        return [one["code"] for one in self.client.get("/tasks?limit=1").data[0]["why"]]

    def claims(self):
        return self.client.post("/task-queue/claim", {"worker_id": "w", "queue_name": f"agent:{self.name}"}).data


def told(client):
    return [(one["title"], one["type"]) for one in client.get("/notifications").data if one["source"] == "costs"]


def own_work():
    with acting(system()):
        for job in queue.claim(queue.OWN, "w", batch=50):
            executor.run(job)


def test_a_run_that_is_corrected_stays_with_its_product_and_is_priced(client, felix):
    task = client.post("/tasks", {"title": "t", "product_slug": "pa"}).data["id"]
    run = felix.run(task=task, cost_micros=1000)
    client.patch(f"/tasks/{task}", {"product_slug": "pb"})
    client.patch("/agents/felix", {"model": "m-2"})
    client.patch(f"/agent-runs/{run['id']}", {"cost_micros": 200})
    assert [(one["key"], one["cost_micros"], one["runs"]) for one in client.get("/costs?by=product").data] == [("pa", 200, 1)]
    assert [(one["key"], one["cost_micros"]) for one in client.get("/costs?by=model").data] == [("m-1", 200)]
    felix.may(micros_per_million_tokens_in=3_000_000, cost_micros_per_day=2_000_000)
    late = felix.run("lost")
    assert client.patch(f"/agent-runs/{late['id']}", {"status": "done", "tokens_in": 1_000_000}).data["cost_micros"] == 3_000_000
    assert client.get("/agents/felix/budget").data["over"]["reason"] == "$3.00 of $2.00 of this day are spent"
    more = client.patch(f"/agent-runs/{late['id']}", {"tokens_in": 2_000_000}).data
    assert more["cost_micros"] == 6_000_000 and client.get("/costs").json["meta"]["cost_micros"] == 6_000_200
    assert client.patch(f"/agent-runs/{late['id']}", {"cost_micros": 5}).data["cost_micros"] == 5  # told after all
    over = client.patch(f"/agent-runs/{late['id']}", {"status": "running"})
    assert over.status == 409 and client.get(f"/agent-runs/{late['id']}").data["status"] == "done"


@pytest.mark.parametrize("query", ["from=2026-99-99&to=2027-99-99", "to=2026-02-30"])
def test_days_that_there_are_not_are_named(client, query):
    assert client.get(f"/costs?{query}").json["error"]["message"].startswith(f"{query.partition('=')[0]}: Send a day")


def test_who_gets_a_name_next_has_a_budget_of_their_own(client, felix):
    felix.may(tokens_per_day=1, runs_without_progress=2)
    felix.run("failed", tokens_in=5)
    client.delete("/agents/felix"), client.post("/agents", {"name": "felix"})
    found = client.get("/agents/felix/budget").data
    assert {name: found[name] for name in NONE} == NONE and (found["in_a_row"], found["over"]) == (0, None)


# ── costs ──


@pytest.mark.story("GET /api/costs")
def test_what_was_spent_is_summed_each_way(client, felix):
    client.post("/agents", {"name": "otto"})
    ids = [client.post("/tasks", {"title": f"t{n}", "product_slug": slug}).data["id"] for n, slug in enumerate(("shop", None))]
    otto, rows = Felix(client, "otto"), []
    for n, (who, status, task) in enumerate(((felix, "done", ids[0]), (felix, "failed", ids[0]), (otto, "retry", None), (felix, "stopped", ids[1]), (otto, "done", ids[0])), 1):
        used = {"tokens_in": 10 * n, "tokens_out": n, "cost_micros": 1000 * n, "duration_ms": 500 * n}
        who.run(status, task, **used)
        rows.append(used | {"agent": who.name, "product": "shop" if task == ids[0] else None, "model": "m-1" if who is felix else None, "wasted": status in ("failed", "retry")})
    today = datetime.now(ZONE).strftime("%Y-%m-%d")
    db.write(lambda: db.run("UPDATE agents SET idle_skips = 7 WHERE name = 'felix'"))

    def expected(by):
        found = defaultdict(list)
        for one in rows:
            found[today if by == "day" else one[by]].append(one)
        sums = [{"key": key, "runs": len(of), "wasted": sum(one["wasted"] for one in of), "tokens_in": sum(one["tokens_in"] for one in of),
                 "tokens_out": sum(one["tokens_out"] for one in of), "cost_micros": sum(one["cost_micros"] for one in of), "seconds": sum(one["duration_ms"] for one in of) / 1000,
                 "idle_skips": {"felix": 7, "otto": 0}[key] if by == "agent" else None,
                 "saved_micros": round({"felix": 7, "otto": 0}[key] * sum(one["cost_micros"] for one in of) / len(of)) if by == "agent" else None} for key, of in found.items()]
        return sorted(sums, key=lambda one: -one["cost_micros"])
    meta = {"from": (datetime.now(ZONE) - timedelta(days=29)).strftime("%Y-%m-%d"), "to": today, "runs": 5, "cost_micros": 15000, "tokens_in": 150, "tokens_out": 15}
    assert client.get("/costs").json == {"data": expected("agent"), "meta": meta}
    for by in ("agent", "day", "product", "model"):
        assert client.get(f"/costs?by={by}").json == {"data": expected(by), "meta": meta}, by
    assert client.get(f"/costs?from={today}&to={today}").data == expected("agent")
    assert client.get("/costs?to=2026-01-01&from=2025-12-01").json["data"] == []
    assert client.get("/costs?from=2026-02-01&to=2026-01-01").json["error"]["details"][0]["field"] == "from"
    assert client.get("/costs?by=moon").status == client.get("/costs?from=yesterday").status == 400


def test_a_run_is_counted_once(client, felix):
    id = felix.run("lost", tokens_in=5, cost_micros=9)["id"]
    client.patch(f"/agent-runs/{id}", {"status": "done", "tokens_in": 5, "cost_micros": 9})
    assert client.get("/costs").data[0]["runs"] == 1 and client.get("/costs").data[0]["cost_micros"] == 9


def test_what_a_tool_does_not_tell_is_reckoned_by_a_price(client, felix):
    felix.may(micros_per_million_tokens_in=3_000_000, micros_per_million_tokens_out=15_000_000)
    run = felix.run(tokens_in=2000, tokens_out=100)
    assert run["cost_micros"] == 2000 * 3 + 100 * 15 and client.get(f"/agent-runs/{run['id']}").data["cost_micros"] == 7500
    assert felix.run(tokens_in=2000, cost_micros=1)["cost_micros"] == 1, "what is told, counts"
    assert client.get("/costs").data[0]["cost_micros"] == 7501


def test_a_report_beyond_belief_breaks_no_sum(client, felix):
    for _ in range(3):
        felix.run(tokens_in=2**53, tokens_out=2**53, cost_micros=2**53, duration_ms=2**53)
    assert client.get("/costs").data[0]["cost_micros"] == 3 * 10**12


def test_a_price_times_a_report_beyond_belief_ends_the_run(client, felix):
    felix.may(micros_per_million_tokens_in=2_000_000_000)
    run = felix.run(tokens_in=2**53)
    assert (run["status"], run["cost_micros"]) == ("done", 10**12)
    assert client.get("/costs").data[0]["cost_micros"] == 10**12


# ── budgets ──


@pytest.mark.story("GET /api/agents/{name}/budget", "PUT /api/agents/{name}/budget")
def test_a_budget_is_set_and_shown(client, felix):
    assert client.get("/agents/felix/budget").json == {"data": NONE | {"agent": "felix", "today": ZERO, "this_month": ZERO, "in_a_row": 0, "over": None}}
    limits = {name: 1000 * n for n, name in enumerate(NONE, 1)} | {"runs_without_progress": 3}
    used = {"today": ZERO, "this_month": ZERO, "in_a_row": 0, "over": None, "agent": "felix"}
    assert client.put("/agents/felix/budget", limits).json == {"data": limits | used} == client.get("/agents/felix/budget").json
    felix.run("failed", tokens_in=20, tokens_out=1, cost_micros=30)
    yesterday = (datetime.now(ZONE) - timedelta(days=1)).strftime("%Y-%m-%d")
    db.write(lambda: db.run("INSERT INTO cost_sums SELECT tenant_id, agent, :day, product, model, runs, done, wasted, 100, 50, 500, ms FROM cost_sums", day=yesterday))
    client.patch(f"/agent-runs/{client.post('/agent-runs', {'agent': 'felix'}).data['id']}", {"tokens_in": 4, "cost_micros": 5})  # under way
    same_month = yesterday[:7] == datetime.now(ZONE).strftime("%Y-%m")
    month = {"tokens": 25 + 150 * same_month, "cost_micros": 35 + 500 * same_month}
    assert client.get("/agents/felix/budget").data == limits | used | {"today": {"tokens": 25, "cost_micros": 35}, "this_month": month, "in_a_row": 1}
    assert client.put("/agents/felix/budget", {"tokens_per_day": 25}).data == NONE | used | {
        "tokens_per_day": 25, "today": {"tokens": 25, "cost_micros": 35}, "this_month": month, "in_a_row": 1,
        "over": {"reason": "25 of 25 tokens of this day are used", "until": midnight()}}
    assert client.put("/agents/felix/budget", {}).data["over"] is None
    for body, field in (({"tokens_per_day": -1}, "tokens_per_day"), ({"runs_without_progress": 0}, "runs_without_progress"), ({"more": 1}, "more"), ({"cost_micros_per_day": 1.5}, "cost_micros_per_day")):
        assert field in client.put("/agents/felix/budget", body).json["error"]["message"]
    assert client.put("/agents/nobody/budget", {}).status == client.get("/agents/nobody/budget").status == 404


def midnight(days=1):
    day = datetime.now(ZONE).date() + timedelta(days=days)
    return queue.iso(datetime(day.year, day.month, day.day, tzinfo=ZONE).timestamp())


@pytest.mark.parametrize("limits, used, said", [
    ({"tokens_per_day": 100}, {"tokens_in": 60, "tokens_out": 40}, "100 of 100 tokens of this day are used"),
    ({"tokens_per_month": 1000}, {"tokens_in": 1500}, "1,500 of 1,000 tokens of this month are used"),
    ({"cost_micros_per_day": 2_500_000}, {"cost_micros": 3_000_000}, "$3.00 of $2.50 of this day are spent"),
    ({"cost_micros_per_month": 900}, {"cost_micros": 900}, "$0.0009 of $0.0009 of this month are spent")])
def test_who_is_past_the_budget_starts_nothing_and_says_why(client, felix, limits, used, said):
    felix.may(**limits)
    client.post("/tasks", {"title": "t", "assignee": "felix"})
    idle = lambda: client.get("/agent-runs/idle-check?agent_name=felix").json  # noqa: E731
    assert not str(idle()).count("True")
    felix.run(**used)
    assert "over_budget" in felix.why() and felix.claims() is None and "True" in str(idle())
    sentence = next(one["sentence"] for one in client.get("/tasks?limit=1").data[0]["why"] if one["code"] == "over_budget")
    until = client.get("/agents/felix/budget").data["over"]["until"]
    assert sentence == f"{said}; it goes on at {until}, or with a larger budget at PUT /api/agents/felix/budget"
    refused = client.post("/agent-runs", {"agent": "felix"})
    assert refused.status == 409 and said in refused.json["error"]["message"]
    assert told(client) == [("felix has used up its budget", "warning")]
    felix.may()
    assert "over_budget" not in felix.why() and felix.claims()["task_type"] == "task"


def test_the_next_day_it_goes_on(client, felix, monkeypatch):
    client.post("/tasks", {"title": "t", "assignee": "felix"})
    felix.may(tokens_per_day=10, tokens_per_month=1000)
    felix.run(tokens_in=10)
    assert felix.claims() is None
    end = seconds(client.get("/agents/felix/budget").data["over"]["until"])
    assert queue.iso(end) == midnight()
    real = time.time
    with acting(system()):
        monkeypatch.setattr(time, "time", lambda: end - 2)
        assert queue.claim("agent:felix", "w") == []
        monkeypatch.setattr(time, "time", lambda: end + 2)
        assert [job.task_type for job in queue.claim("agent:felix", "w")] == ["task"] and real() < end
        assert costs.spent("felix", costs.day_of(now())) == costs.Spent(0, 0)
        runs.change(runs.start("felix", task_id=None, job_id=None, mode="task").id, runs.RunPatch(status="done", tokens_in=10))
        monkeypatch.setattr(time, "time", real)
    assert told(client) == [("felix has used up its budget", "warning")] * 2, "each day anew"


@pytest.mark.parametrize("limit, said", [("tokens_per_day", "0 of 0 tokens of this day"), ("cost_micros_per_month", "$0.0000 of $0.0000 of this month")])
def test_a_budget_of_nothing_lets_nothing_through_on_any_day(client, felix, monkeypatch, limit, said):
    felix.may(**{limit: 0})
    client.post("/tasks", {"title": "t", "assignee": "felix"})
    real = time.time
    for days in (0, 1, 40):
        monkeypatch.setattr(time, "time", lambda days=days: real() + days * 86400)
        with acting(system()):
            assert queue.claim("agent:felix", "w") == []
            reason, until = costs.used_up("felix")
            assert reason.startswith(said) and now() < until


def test_a_month_ends_on_its_first(client, felix):
    felix.may(tokens_per_day=10, tokens_per_month=10)
    felix.run(tokens_in=10)
    today = datetime.now(ZONE)
    first = datetime(today.year + today.month // 12, today.month % 12 + 1, 1, tzinfo=ZONE).timestamp()
    assert client.get("/agents/felix/budget").data["over"] == {"reason": "10 of 10 tokens of this month are used", "until": queue.iso(first)}


@pytest.mark.parametrize("moment, day, month", [
    ("2026-03-29T00:30:00.000Z", "2026-03-29T22:00:00.000Z", "2026-03-31T22:00:00.000Z"),  # the day of 23 hours
    ("2026-10-25T12:00:00.000Z", "2026-10-25T23:00:00.000Z", "2026-10-31T23:00:00.000Z"),
    ("2026-12-31T23:30:00.000Z", "2027-01-01T23:00:00.000Z", "2027-01-31T23:00:00.000Z")])
def test_days_are_local(monkeypatch, moment, day, month):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    assert costs.ends(moment) == (day, month)


def test_at_four_fifths_somebody_is_told_once(client, felix):
    felix.may(cost_micros_per_day=1000)
    felix.run(cost_micros=799)
    assert told(client) == []
    felix.run(cost_micros=1), felix.run(cost_micros=1)
    assert told(client) == [("felix nears its budget", "warning")] and felix.client.get("/agents/felix/budget").data["over"] is None
    felix.run(cost_micros=500)
    assert told(client) == [("felix has used up its budget", "warning"), ("felix nears its budget", "warning")]


# ── the breaker ──


def test_five_runs_in_a_row_without_progress_pause_it(client, felix):
    client.post("/tasks", {"title": "t", "assignee": "felix"})
    for status in ("failed", "timeout", "lost", "retry", "stopped", "done", "failed", "retry", "failed", "stopped", "timeout"):
        felix.run(status, error=f"e {status}")
    assert client.get("/agents/felix").data["status"] != "paused" and client.get("/agents/felix/budget").data["in_a_row"] == 4
    felix.run("failed", error="no such host")
    agent = client.get("/agents/felix").data
    note = "The breaker stopped it: 5 runs in a row failed or made no progress; the last: no such host"
    assert (agent["status"], agent["note"]) == ("paused", note)
    assert {"agent_paused", "queue_paused"} & set(felix.why()) and note in str(client.get("/tasks?limit=1").data[0]["why"]) and felix.claims() is None
    assert told(client)[0] == ("felix is paused by the breaker", "error")
    assert [one["action"] for one in client.get("/activity-log").data][:2].count("budget.tripped") + [one["action"] for one in client.get("/activity-log").data].count("budget.tripped") >= 1
    client.post("/agents/felix/resume")
    assert client.get("/agents/felix/budget").data["in_a_row"] == 0 and felix.claims()["task_type"] == "task"


def test_what_counts_as_a_row_can_be_set(client, felix):
    felix.may(runs_without_progress=2)
    felix.run("failed"), felix.run("failed")
    assert client.get("/agents/felix").data["status"] == "paused"


def test_beyond_a_rate_it_is_stopped_while_it_runs(client, felix):
    """The run itself tells what it has used; it need not end for that."""
    felix.may(cost_micros_per_hour=1_000_000)
    felix.run(cost_micros=600_000)
    run = client.post("/agent-runs", {"agent": "felix"}).data["id"]
    client.patch(f"/agent-runs/{run}", {"cost_micros": 300_000})
    assert client.get("/agents/felix").data["status"] != "paused"
    client.patch(f"/agent-runs/{run}", {"cost_micros": 400_001})
    assert client.get("/agents/felix").data["note"] == "The breaker stopped it: it spent $1.00 within an hour, and may $1.00"
    assert db.value("SELECT count(*) FROM jobs WHERE task_type = 'costs.end'") == 1


def test_a_run_of_many_hours_is_stopped_by_what_it_spends_in_one(client, felix):
    felix.may(cost_micros_per_hour=1_000_000)
    run = client.post("/agent-runs", {"agent": "felix"}).data["id"]
    db.write(lambda: db.run("UPDATE agent_runs SET started_at = :then WHERE id = :id", then=now(-4 * 3600), id=run))
    for _ in range(25):  # which are newer, and long over
        short = felix.run()["id"]
        db.write(lambda short=short: db.run("UPDATE agent_runs SET started_at = :then, finished_at = :then WHERE id = :id", then=now(-2 * 3600), id=short))
    client.patch(f"/agent-runs/{run}", {"cost_micros": 3_900_000})
    assert client.get("/agents/felix").data["status"] != "paused"
    client.patch(f"/agent-runs/{run}", {"cost_micros": 10_000_000})
    assert "spent $2.50 within an hour" in client.get("/agents/felix").data["note"]


def test_a_run_that_is_heard_of_on_another_day_counts_on_that_one_alone(client, felix, monkeypatch):
    run, other = felix.run("lost", tokens_in=4)["id"], felix.run("done", tokens_in=1)["id"]
    first, real = now(), time.time
    rows = "SELECT day, runs, done, wasted, tokens_in, ms FROM cost_sums ORDER BY day"
    with acting(system()):
        monkeypatch.setattr(time, "time", lambda: real() + 86400)
        second = now()
        runs.change(run, runs.RunPatch(status="done", tokens_in=10, duration_ms=70))
        monkeypatch.setattr(time, "time", lambda: real() + 3 * 86400)
        runs.change(run, runs.RunPatch(tokens_in=12))  # it has ended, and did so then
        ms = db.value("SELECT duration_ms FROM agent_runs WHERE id = :id", id=other)
        assert db.all(tuple, rows) == [(costs.day_of(first), 1, 1, 0, 1, ms), (costs.day_of(second), 1, 1, 0, 12, 70)]
        assert costs.sums.check() == []
        monkeypatch.setattr(time, "time", real)


@pytest.mark.parametrize("hours, share", [(4, 0.25), (1.5, 2 / 3)])
def test_a_run_of_many_hours_that_tells_its_cost_at_its_end_is_judged_by_the_last_of_them(client, felix, hours, share):
    felix.may(cost_micros_per_hour=1_000_000)
    for cost, status in ((0.9, "active"), (1.1, "paused")):
        run = client.post("/agent-runs", {"agent": "felix"}).data["id"]
        db.write(lambda run=run: db.run("UPDATE agent_runs SET started_at = :then WHERE id = :id", then=now(-hours * 3600), id=run))
        client.patch(f"/agent-runs/{run}", {"status": "done", "cost_micros": round(cost * 1_000_000 / share)})
        assert (client.get("/agents/felix").data["status"] == "paused") is (status == "paused")
        db.write(lambda run=run: db.run("UPDATE agent_runs SET finished_at = :then, started_at = :before WHERE id = :id", then=now(-3601),
                                        before=now(-hours * 3600 - 3600), id=run))  # an hour later, it counts for nothing


@pytest.mark.parametrize("began, heard, ended", [(40, 0, 33), (3, 2, 2), (3, 5, 3), (3, 0, None), (0.9, 5, None)])
def test_a_run_without_a_job_that_nobody_ends_is_over_once(client, felix, began, heard, ended):
    """`began` so many days ago, by an agent that was `heard` of so long ago: it ended then, or a week after it began."""
    felix.may(tokens_per_day=10_000)
    run = client.post("/agent-runs", {"agent": "felix"}).data["id"]
    client.patch(f"/agent-runs/{run}", {"tokens_in": 2000})
    db.write(lambda: db.run("UPDATE agent_runs SET started_at = :then WHERE id = :id", then=now(-began * 86400), id=run))
    db.write(lambda: db.run("UPDATE agents SET last_heartbeat = :then", then=now(-heard * 86400)))
    runs.close_lost()
    costs.catch_up()
    found = client.get(f"/agent-runs/{run}").data
    assert client.get("/agents/felix/budget").data["today"]["tokens"] == (0 if ended else 2000)
    assert found["status"] == ("lost" if ended else "running")
    if ended:
        assert abs(seconds(found["finished_at"]) - seconds(now(-ended * 86400))) < 60 and "nobody said how it ended" in found["error"]
        assert db.all(tuple, "SELECT day, tokens_in FROM cost_sums") == [(costs.day_of(found["finished_at"]), 2000)]


@pytest.mark.slow
def test_the_breaker_ends_a_brain_that_burns_money(server):
    """On a real server: the brain says what it has used while it works, and is ended for it, with its job given back."""
    running = server()
    token = server.admin(running)
    call = lambda method, path, body=None: running.call(method, path, body, token)[1]["data"]  # noqa: E731
    call("POST", "/agents", {"name": "felix", "interval_sec": 1})
    brain = running.folder / "agents/felix/workspace/brain"
    brain.write_text("""#!/bin/sh
echo $$ > pid
curl -s -X PATCH "$ORKOSI_URL/api/agent-runs/$ORKOSI_RUN_ID" -H "Authorization: Bearer $(cat "$ORKOSI_KEY_FILE")" -H 'Content-Type: application/json' -d '{"cost_micros": 5000000}'
exec sleep 300
""")
    brain.chmod(0o755)
    call("PUT", "/agents/felix/budget", {"cost_micros_per_hour": 1_000_000})
    task = call("POST", "/tasks", {"title": "burn", "assignee": "felix"})["id"]
    pid = running.folder / "agents/felix/workspace/pid"
    eventually(lambda: pid.exists() and pid.read_text().strip(), 15)
    import os
    eventually(lambda: not os.path.exists(f"/proc/{int(pid.read_text())}"), 20)
    eventually(lambda: call("GET", "/agents/felix")["status"] == "paused", 10)  # its job is given back a moment after its process has ended
    agent = call("GET", "/agents/felix")
    assert "it spent $5.00 within an hour" in agent["note"]
    eventually(lambda: call("GET", f"/tasks/{task}")["status"] == "todo", 10)
    assert "The breaker stopped it" in str(call("GET", f"/tasks/{task}")["why"])


def test_an_agents_own_key_sets_no_budget(application, client, felix):
    own = Client(application, (settings.data / "keys" / "felix").read_text().strip())
    client.post("/agents", {"name": "otto"})
    assert own.put("/agents/felix/budget", {}).status == own.get("/agents/otto/budget").status == own.get("/costs").status == 403
    assert own.get("/agents/felix/budget").data == client.get("/agents/felix/budget").data, "its own it sees"
    assert now()
