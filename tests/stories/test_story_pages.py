"""Stories of the console's other pages: each in a full company, in an empty one, and as whoever may less."""
import html
import json
import random
import re
from urllib.parse import quote

import pytest
from test_story_console import PASSWORD, Browser, buttons, text_of

import orkosi
from orkosi import acting, db, settings, system
from plugins import agents, logs, tokens, users
from plugins.console import asking, rooms

PAGES = ["/", "/tasks", "/tasks?status=review", "/agents", "/agent-runs", "/task-queue", "/task-queue?queue_name=mails&status=dead", "/costs", "/more", "/health",
         "/settings", "/billing", "/search", "/search?q=gull", *[one.path for one in rooms.ROOMS]]
HOSTILE = "\u202egull </title><script>alert(1)</script> 🦅 " + "W" * 300


@pytest.fixture
def person(application):
    """A browser in which somebody is logged in: `person("vera", "viewer")`."""
    def enter(name, role, tenant=1):
        with acting(system()):
            users.add(name, f"{name}@example.com", users.passwords.hashed(PASSWORD), role, tenant)
        one = Browser(application)
        assert one.log_in(name).status == 303
        return one
    return enter


@pytest.fixture
def ann(person):
    return person("ann", "admin")


@pytest.fixture
def company(client, data):
    """One of everything, under hostile names."""
    client.post("/products", {"name": HOSTILE[:80], "slug": "shop", "tagline": HOSTILE[:100]})
    client.post("/agents", {"name": "felix", "role": "Builder", "display_name": HOSTILE[:100]})
    client.put("/agents/felix/budget", {"cost_micros_per_day": 5_000_000, "tokens_per_day": 10})
    ids = {}
    for status in ("todo", "review", "blocked", "done"):
        ids[status] = client.post("/tasks", {"title": f"{status} {HOSTILE}"[:300], "assignee": "felix", "description": HOSTILE, "product_slug": "shop"}).data["id"]
        client.patch(f"/tasks/{ids[status]}", {"status": status, "resolution": HOSTILE})
    for number in range(4):
        job = client.post("/task-queue/submit", {"task_type": "mail", "queue_name": "mails", "max_attempts": 1, "payload": {"to": HOSTILE}}).data["id"]
        claimed = client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "mails"}).data
        client.post(f"/task-queue/{claimed['id']}/fail", {"lease_token": claimed["lease_token"], "error": f"Traceback\nTimeout after {number} s" if number else HOSTILE})
    with acting(system()):
        run = agents.runs.start("felix", task_id=ids["todo"], job_id=None, mode="task")
        agents.runs.change(run.id, agents.runs.RunPatch(status="failed", cost_micros=2_000_000, tokens_in=20, error="\x1b[31mred\x1b[0m \x07" + HOSTILE))
        logs.record("felix", "\x1b[31m" + "x" * 9000 + HOSTILE, "error", task_id=ids["todo"])
        tokens.credit(1000, "bonus", "x")
    client.post("/schedules", {"name": HOSTILE[:50], "cron": "0 8 * * 1-5", "task": {"title": HOSTILE[:100]}})
    client.post("/hooks", {"name": HOSTILE[:50], "kind": "none", "title": {"text": HOSTILE[:100]}})
    told = client.post("/webhooks", {"url": "https://gull.example/<i>", "types": ["task.*"], "description": HOSTILE[:100]}).data["id"]
    client.post(f"/webhooks/{told}/test"), client.post(f"/webhooks/{told}/test")
    db.write(lambda: db.run("""UPDATE webhook_deliveries SET status = 'dead', attempts = 15, response_status = 500, response_body = :body, error = :body
                               WHERE id = 1""", body=HOSTILE))
    client.post("/credentials", {"key": "SHOP_TOKEN", "value": "a value nobody sees", "description": HOSTILE[:100], "grants": ["felix"]})
    client.post("/discovery-engines", {"name": "Safety net", "layer": "tasks", "description": HOSTILE[:100]})
    client.post("/notifications", {"title": HOSTILE[:100], "message": HOSTILE, "link": "/api/tasks/1"})
    client.post("/rules", {"rule": HOSTILE})
    client.post("/files", {"name": "gull.md", "path": "agents/felix/workspace/gull.md", "content": HOSTILE})
    org = client.post("/organizations", {"name": "Gulls <b>&"}).data["id"]
    client.post(f"/organizations/{org}/api-keys", {"name": "gull <i>", "scopes": ["tasks:read"]})
    return ids | {"told": told, "org": org, "run": run.id, "job": job}


def sound(page, path):
    """What holds of each page, whatever is in it."""
    raw = page.body.decode()
    assert page.status in (200, 403, 404), (path, page)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8" and page.headers["Cache-Control"] == "private, no-cache", path
    assert "<script>alert" not in raw and not re.search(r"<[^>]+\s(style|on\w+)=", raw) and "\x1b" not in raw, path
    assert raw.count('<main id="main"') == 1 and len(re.findall("<h1", raw)) == 1, path
    ids = re.findall(r'\bid="([^"]+)"', raw)
    assert len(ids) == len(set(ids)), (path, sorted(one for one in ids if ids.count(one) > 1))
    return raw


@pytest.mark.story("GET /tasks", "GET /agents", "GET /agent-runs", "GET /task-queue", "GET /costs", "GET /more", "GET /health", "GET /settings", "GET /billing",
                   "GET /search", "GET /logs", "GET /schedules", "GET /hooks", "GET /webhooks", "GET /backups", "GET /notifications", "GET /credentials", "GET /discovery-engines", "GET /factory-workers", "GET /integrations", "GET /products", "GET /rules", "GET /changelog", "GET /automations", "GET /files", "GET /activity-log", "GET /users", "GET /teams", "GET /organizations")
@pytest.mark.parametrize("full", [False, True])
def test_every_page_is_sound_for_everybody_empty_and_full(request, person, client, full, application):
    """The same page as an administrator, an editor, a viewer, the role demo, and somebody of another tenant; and each says what its operation answers."""
    ids = request.getfixturevalue("company") if full else {}
    paths = PAGES + ([f"/tasks/{ids['review']}", f"/agent-runs/{ids['run']}", "/agents/felix", f"/task-queue/{ids['job']}", f"/organizations/{ids['org']}/api-keys", f"/webhooks/{ids['told']}"] if full else [])
    for name, role, tenant in (("anna", "admin", 1), ("edith", "editor", 1), ("vera", "viewer", 1), ("dora", "demo", 1), ("otto", "member", None)):
        one = person(name, role, tenant)
        for path in paths:
            page = one.ask("GET", path)
            raw = sound(page, path)
            live = one.ask("GET", path, **{"X-Orkosi-Live": "1"})
            assert live.status == page.status and live.body.decode().lstrip().startswith('<main id="main"'), path
            if name == "otto":
                assert "gull" not in raw.replace("q=gull", "").replace('value="gull"', "") and "W" * 100 not in raw, path
            if role in ("viewer", "demo"):
                assert not [one for one in buttons(page) if not one[1].startswith("PATCH /api/notifications/")], (path, buttons(page))


def test_a_board_has_the_urgent_on_top_and_says_where_a_card_may_go(ann, client, person):
    client.post("/products", {"name": "Shop", "slug": "shop"})
    made = {title: client.post("/tasks", {"title": title, "priority": priority, "assignee": who, "product_slug": product}).data["id"]
            for title, priority, who, product in (("late", "P3", None, None), ("now", "P0", "felix", "shop"), ("soon", "P1", "felix", None), ("soon too", "P1", "ada", "shop"))}
    client.post("/tasks", {"title": "waits", "blocked_by": [made["late"], made["now"]], "priority": "P2"})
    client.patch(f"/tasks/{made['soon']}", {"status": "blocked"})
    db.write(lambda: db.run("UPDATE tasks SET last_error = 'a\nStorm' WHERE id = :id", id=made["soon"]))
    raw = ann.ask("GET", "/tasks").body.decode()
    column = {name: re.findall(r'draggable="false">([^<]*)<', part) for name, part in re.findall(r'data-column="(\w+)"(.*?)</section>', raw, re.S)}
    assert column == {"todo": ["now", "soon too", "waits", "late"], "in_progress": [], "review": [], "blocked": ["soon"], "done": []}
    assert "waits for 2" in raw and ">Storm<" in raw and f'id="t{made["now"]}"' in raw
    moves = dict(re.findall(r'data-status="(\w+)" data-moves="([^"]*)"', raw))
    assert moves == {"todo": "review blocked done", "blocked": "todo done"}
    narrow = ann.ask("GET", "/tasks?assignee=felix&product=shop").body.decode()
    assert re.findall(r'draggable="false">([^<]*)<', narrow) == ["now"] and "<option selected>shop</option>" in narrow
    seen = person("vera", "viewer").ask("GET", "/tasks").body.decode()
    assert set(re.findall(r'data-moves="([^"]*)"', seen)) == {""} and 'draggable="true"' not in seen


def test_a_list_of_tasks_is_the_apis_own_page_by_page(ann, client):
    for number in range(53):
        client.post("/tasks", {"title": f"task number {number}"})
    first, second = (ann.ask("GET", path).body.decode() for path in ("/tasks?status=todo", "/tasks?status=todo&offset=50"))
    rows = lambda raw: re.findall(r'data-id="(\d+)"', raw)  # noqa: E731
    assert rows(first) == [str(one["id"]) for one in client.get("/tasks?status=todo&limit=50").data] and len(rows(second)) == 3
    assert '1–50 of 53' in text_of(ann.ask("GET", "/tasks?status=todo")) and 'href="?status=todo&amp;offset=50"' in first and 'rel="prev"' in second
    assert rows(ann.ask("GET", "/tasks?q=number+7").body.decode()) == ["8"]
    wrong = ann.ask("GET", "/tasks?status=nonsense")
    assert wrong.status == 400 and "That did not work" in text_of(wrong)


@pytest.mark.story("GET /task-queue/{id}")
def test_failures_are_together_by_their_cause_and_run_again_together(ann, client, company):
    page = ann.ask("GET", "/task-queue?queue_name=mails&status=dead")
    said, raw = text_of(page), page.body.decode()
    assert said[said.index("By cause") + 1] == "of the newest 4" and "Timeout after 3 s" in said and "3 jobs" in said
    ids = re.findall(r'data-body="([^"]*)"', raw)
    assert [one.count("job_") for one in ids if "ids" in one] == [3, 1] and ("Retry 3", "POST /api/task-queue/retry") in buttons(page)
    job = ann.ask("GET", f"/task-queue/{company['job']}")
    sound(job, "/task-queue/{id}"), sound(page, "/task-queue")
    assert ("Retry", f"POST /api/task-queue/{company['job']}/retry") in buttons(job) and "attempt 1 of 1" in text_of(job) and '"to":' in job.body.decode().replace("&quot;", '"')
    assert ann.ask("GET", "/task-queue/job_999").status == 404
    queues = text_of(ann.ask("GET", "/task-queue"))
    assert queues.index("mails") < queues.index("agent:felix") and "Retry 4 dead" in queues


@pytest.mark.story("GET /files/{id}")
def test_a_file_has_what_it_says(ann, client, company):
    id = client.post("/files", {"name": "a.md", "path": "felix/a.md", "content": HOSTILE + "\x1b[31mred"}).data["id"]
    page = ann.ask("GET", f"/files/{id}")
    said = sound(page, "/files/{id}")
    assert {"a.md", "felix/a.md"} <= set(text_of(page)) and "gull &lt;/title&gt;" in said and "\x1b" not in said
    assert f'href="/files/{id}"' in ann.ask("GET", "/files").body.decode()
    empty = client.post("/files", {"name": "b.png", "path": "b.png"}).data["id"]
    assert "It is no text" in ann.ask("GET", f"/files/{empty}").body.decode() and ann.ask("GET", "/files/999").status == 404


def test_whatever_is_found_or_told_of_leads_to_a_page(ann, client, company):
    client.post("/files", {"name": "zebra.md", "path": "zebra.md", "content": "x"}), client.post("/products", {"name": "Zebra", "slug": "zebra"})
    client.post("/agents", {"name": "zebra"}), client.post("/tasks", {"title": "zebra"}), client.post("/logs", {"agent": "felix", "message": "zebra"})
    found = client.get("/search?q=zebra").data
    assert all(found.values()), "one of each kind"
    links = re.findall(r'<div class="what"><a href="([^"]*)"', ann.ask("GET", "/search?q=zebra").body.decode())
    assert len(links) == sum(map(len, found.values())) >= 5
    for link in links:
        answer = ann.ask("GET", html.unescape(link))
        assert answer.status == 200 and "zebra" in answer.body.decode().lower(), link
    told = {"/api/backups/stats": "/backups", "/api/factory-workers/health-summary": "/factory-workers", "/api/agents/felix/budget": "/agents/felix",
            "/api/tasks/1": "/tasks/1", "/api/billing/auto-topup": "/billing", "/api/arch-health": None, "/tasks?status=done": "/tasks?status=done"}
    for link in told:
        client.post("/notifications", {"title": f"about {link}", "message": "m", "link": link})
    raw = ann.ask("GET", "/notifications").body.decode()
    for link, where in told.items():
        assert where is None or f'<a href="{where}">about {link}</a>' in raw and ann.ask("GET", where).status == 200, link
    assert "about /api/arch-health" in raw and "arch-health</a>" not in raw


@pytest.mark.story("GET /agent-runs/{id}")
def test_a_run_has_its_log_and_what_it_cost(ann, client, company, person):
    page = ann.ask("GET", f"/agent-runs/{company['run']}")
    sound(page, "/agent-runs/{id}")
    said = text_of(page)
    assert {"$2.00", "20 tokens in, 0 out", "felix", f"run {company['run']}", "Why it failed", "Replay", "Try again"} <= set(said), said
    assert "What it was told" not in said
    folder = settings.data / "agents/felix/runs" / str(company["run"])
    folder.mkdir(parents=True)
    (folder / "input.json").write_text(json.dumps({"told": {"title": "Paint <it>", "step": 2}, "environment": {"SECRET": "not shown"}}))
    (folder / "stdout").write_text("\x1b]0;a title\x07\x1b[32mpainted\x1b[0m, see \x1b]8;;http://x/\x1b\\there\x1b]8;;\x1b\\")
    full = sound(ann.ask("GET", f"/agent-runs/{company['run']}"), "a run that is kept")
    assert "Paint &lt;it&gt;" in full and "not shown" not in full and ">painted, see there<" in full
    assert "red \ufffd" in page.body.decode() and len(page.body) < 120_000
    assert "Log lines belong to the machine" in person("vera", "viewer").ask("GET", f"/agent-runs/{company['run']}").body.decode()


@pytest.mark.story("GET /agents/{name}")
def test_an_agent_has_its_budget_its_runs_and_its_forms(ann, client, company):
    page = ann.ask("GET", "/agents/felix")
    sound(page, "/agents/{name}")
    said, raw = text_of(page), page.body.decode()
    assert {"25 %", "1 of 4", "$2.00", "20 tokens of 10, $5.00 at most", "nothing", f"run {company['run']}"} <= set(said), said
    assert re.findall(r'data-form="([^"]*)"', raw) == ["PUT /api/agents/felix/budget", "POST /api/tasks", "PATCH /api/agents/felix"]
    assert 'name="cost_micros_per_day" data-kind="number" value="5000000"' in raw and ann.ask("GET", "/agents/nobody").status == 404


@pytest.mark.story("GET /organizations/{orgId}/api-keys")
def test_keys_are_made_rotated_and_revoked_and_their_secrets_never_stand_in_a_page(ann, client, company, person):
    owner = Browser(ann.application)
    assert owner.log_in("root", "correct horse").status == 303
    page = owner.ask("GET", f"/organizations/{company['org']}/api-keys")
    sound(page, "keys")
    key = client.get(f"/organizations/{company['org']}/api-keys").data[0]
    assert buttons(page) == [(label, f"POST /api/organizations/{company['org']}/api-keys/{key['id']}/{label.lower()}") for label in ("Rotate", "Revoke")]
    raw = page.body.decode()
    assert key["masked"] in text_of(page) and 'data-show="key"' in raw and "ork_live_" not in raw.replace(key["masked"], "")
    assert ann.ask("GET", f"/organizations/{company['org']}/api-keys").status in (403, 404)


@pytest.mark.story("GET /webhooks/{id}")
def test_a_webhook_has_its_deliveries_and_a_dead_one_is_sent_again(ann, client, company, person):
    where = f"/webhooks/{company['told']}"
    page = ann.ask("GET", where)
    said, raw = text_of(page), sound(page, "a webhook")
    found = client.get(f"{where}/deliveries").data
    assert re.findall(r'<tr id="row-([^"]+)"', raw) == [str(one["id"]) for one in found] == ["2", "1"]
    assert {"webhook.test", "15", "500", "dead", "waiting", "Webhook 1"} <= set(said) and "https://gull.example/<i>" in page.body.decode().replace("&lt;", "<").replace("&gt;", ">")
    change = f"PATCH /api{where}"
    mine = [("Pause", change), ("Test", f"POST /api{where}/test"), ("New secret", change), ("Delete", f"DELETE /api{where}")]
    assert buttons(page) == [*mine, ("Replay", f"POST /api{where}/deliveries/1/replay")]
    assert buttons(ann.ask("GET", "/webhooks")) == mine and 'data-show="secret"' in raw and "whsec_" not in raw
    assert re.findall(r'<tr id="row-([^"]+)"', ann.ask("GET", f"{where}?status=dead").body.decode()) == ["1"]
    client.patch(where, {"status": "paused"})
    assert [label for label, _ in buttons(ann.ask("GET", where))] == ["Resume", "New secret", "Delete", "Replay"]
    assert "The webhook to gull.example is paused" in text_of(ann.ask("GET", "/"))
    assert buttons(person("edith", "editor").ask("GET", where)) == [] and person("vera", "viewer").ask("GET", where).status == 403
    assert ann.ask("GET", "/webhooks/99").status == 404 and ann.ask("GET", f"{where}?status=nonsense").status == 400


def test_what_a_room_shows_is_what_its_operation_answers(application, client, company):
    """Row by row, by the ids of its rows; and a value of the vault is on none of them."""
    root = Browser(application)
    assert root.log_in("root", "correct horse").status == 303
    for room in rooms.ROOMS:
        raw = root.ask("GET", room.path).body.decode()
        found = client.get(room.operation.removeprefix("GET /api")).data
        keys = re.findall(r'<tr id="row-([^"]+)"', raw)
        name = {"/backups": "filename", "/credentials": "key", "/discovery-engines": "slug"}.get(room.path, "id")
        assert keys == [str(one[name]) for one in found][:50], room.path
        assert "a value nobody sees" not in raw
    assert len([room for room in rooms.ROOMS if client.get(room.operation.removeprefix("GET /api")).data]) >= 12


def test_search_finds_and_the_palette_gets_hits_and_pages(ann, client, company, person):
    said = text_of(ann.ask("GET", "/search?q=review"))
    assert "Tasks" in said and any(line.startswith("review") for line in said)
    hits = ann.ask("GET", "/search?q=lo", **{"X-Orkosi-Live": "found"}).body.decode()
    assert '<a role="option" href="/logs">' in hits and "<html" not in hits
    everything = ann.ask("GET", "/search?q=", **{"X-Orkosi-Live": "found"}).body.decode()
    assert everything.count('role="option"') == len(rooms.ROOMS) + 4
    viewer = person("vera", "viewer").ask("GET", "/search?q=", **{"X-Orkosi-Live": "found"}).body.decode()
    assert "/logs" not in viewer and "/settings" not in viewer and "/rules" in viewer


def test_five_thousand_failures_of_as_many_causes_are_a_page(ann, data):
    def fill():
        for number in range(5000):
            db.run("""INSERT INTO jobs (tenant_id, queue, task_type, state, error, created_at, finished_at)
                      VALUES (1, 'many', 't', 'dead', :error, '2026-11-02T10:00:00.000Z', '2026-11-02T10:00:00.000Z')""",
                   error="cause " + "".join(chr(97 + int(digit)) for digit in str(number)))
    db.write(fill)
    page = ann.ask("GET", "/task-queue?queue_name=many&status=dead")
    assert page.status == 200 and "and 992 more causes" in text_of(page) and len(page.body) < 60_000
    assert "5,000 jobs have used up all attempts in many" in text_of(ann.ask("GET", "/"))


BAD = ["", "x" * 3000, "\x00", "../..", "1e999", "-1", "9" * 30, "\xed\xa0\x80", "ü", "'\"<>", "a,b,,c", "%00", "null", "[1]", "🦅"]
NAMES = ["status", "q", "offset", "limit", "after", "assignee", "product", "priority", "type", "agent", "level", "queue_name", "next", "request", "path", "operation", "self",
         "source", "follow", "from", "stream", "slug", "x"]


def test_no_address_of_a_page_is_an_error_of_ours(ann, company):
    dice, wrong = random.Random(5), []
    for endpoint in (one for one in orkosi.endpoints() if hasattr(one.fn, "shows")):
        for _ in range(40):
            path = endpoint.path
            for name in endpoint.path_names.values():
                path = path.replace("{" + name + "}", quote(dice.choice([*BAD, "1", "felix", "job_1", company["org"]]), safe=""))
            query = "&".join(f"{dice.choice(NAMES)}={quote(dice.choice([*BAD, '1', 'done', 'todo', 'mails', 'felix']))}" for _ in range(dice.choice([0, 1, 1, 2, 3, 60])))
            answer = ann.ask("GET", path + (f"?{query}" if query else ""), **({"X-Orkosi-Live": dice.choice(["1", "follow", "found"])} if dice.random() < 0.3 else {}))
            if answer.status >= 500 or b"<script>alert" in answer.body:
                wrong.append((path, query, answer.status))
    assert wrong == []


def test_every_button_of_a_page_is_an_operation_that_there_is(ann, company):
    known = {re.sub(r"\{\w+\}", "*", name) for name in asking.operations()}
    for path in [*PAGES, f"/tasks/{company['review']}", f"/agent-runs/{company['run']}", "/agents/felix", f"/task-queue/{company['job']}", f"/webhooks/{company['told']}"]:
        raw = ann.ask("GET", path).body.decode()
        for operation in re.findall(r'data-(?:do|undo|form)="([^"]+)"', raw):
            method, _, where = operation.partition(" ")
            fits = [one for one in known if one.startswith(method + " ") and re.fullmatch(re.escape(one.partition(" ")[2]).replace(r"\*", "[^/]+"), where)]
            assert fits, (path, operation)


def test_settings_and_health_say_what_there_is_and_no_secret(ann, client, monkeypatch):
    monkeypatch.setitem(settings.values, "stripe_secret_key", "sk_test_nobody")
    raw = ann.ask("GET", "/settings").body.decode()
    assert "sk_test_nobody" not in raw and all(f"<code>{name}</code>" in raw for name in settings.known)
    said = text_of(ann.ask("GET", "/health"))
    assert {"db", "disk", "backups", "mail", "Agents", "Tasks"} <= set(said), said


def test_billing_shows_the_plan_and_what_is_used_of_it(person, client):
    from plugins import billing
    olga = person("olga", "admin", None)
    home = db.value("SELECT tenant_id FROM users WHERE username = 'olga'")
    with acting(system()):
        billing.grant(home, "solo")
    said = text_of(olga.ask("GET", "/billing"))
    assert "Solo, given by an administrator" in said and "of 10, 0 %" in said
    assert "Change to it" in said and said.count("The figures") == 2
    assert "nothing is limited" in " ".join(text_of(person("ann", "admin").ask("GET", "/billing")))


def test_the_depth_of_an_hour_ago_is_what_it_was_however_much_comes_now(ann, client, monkeypatch):
    from plugins.console import today
    today.forget()
    with acting(system()):
        for _ in range(2):
            client.post("/task-queue/submit", {"task_type": "t"})
            db.write(lambda: db.run("UPDATE jobs SET created_at = :old", old=orkosi.now(-300)))
            assert today.depth()[-1] == 1
            client.post("/task-queue/submit", {"task_type": "t"}), client.post("/task-queue/submit", {"task_type": "t"})
            found = today.depth()
            assert found[-1] == 3 and found[-2] == 1 and found[0] == 0, found
            db.write(lambda: db.run("DELETE FROM jobs")), today.forget()


def test_what_came_and_went_is_counted_once_however_often_somebody_looks(ann, client, monkeypatch):
    from plugins.console import today
    today.forget()
    with acting(system()):
        monkeypatch.setattr(today, "SETTLE", 0)  # all of it is kept from one look to the next
        for number in range(1, 8):
            id = client.post("/task-queue/submit", {"task_type": "t"}).data["id"]
            if number % 2:
                client.post(f"/task-queue/{id}/cancel")
            came, went = today._moves()
            assert (sum(came.values()), sum(went.values())) == (number, (number + 1) // 2) and today.depth()[-1] == number // 2
            assert today.depth()[0] == 0, "an hour ago there was nothing"
        kept = today._settled[1]
        assert sum(kept[1][0].values()) == 7
        db.write(lambda: db.run("DELETE FROM jobs"))
        again = sum(today._moves()[0].values())
        assert again == 7 or orkosi.now()[:16] != kept[0][:16], "within its minute it is kept, and not asked again"
        for jump in (-7200, 60):  # the clock was set back; a minute later
            monkeypatch.setattr(today, "now", lambda ahead=0.0, jump=jump: orkosi.now(ahead + jump))
            assert sum(today._moves()[0].values()) == 0, "it is counted anew"


def test_each_layer_that_the_form_of_engines_offers_makes_one(ann, client):
    raw = ann.ask("GET", "/discovery-engines").body.decode()
    offered = re.findall(r"<option[^>]*>([^<]+)<", raw)
    assert len(offered) >= 5
    for layer in offered:
        assert client.post("/discovery-engines", {"name": f"of {layer}", "layer": layer}).status == 201


def test_a_board_of_one_agent_counts_its_tasks_and_leads_to_them(ann, client):
    for name in ("felix", "ada"):
        client.post("/agents", {"name": name})
    for number in range(30):
        client.post("/tasks", {"title": f"t {number}", "assignee": "felix"})
    client.post("/tasks", {"title": "hers", "assignee": "ada", "product_slug": "a b&c"})
    counted = lambda raw: dict(re.findall(r'id="n-(\w+)">(\d+)<', raw))  # noqa: E731
    raw = ann.ask("GET", "/tasks?assignee=ada").body.decode()
    assert counted(raw) == {"todo": "1", "in_progress": "0", "review": "0", "blocked": "0", "done": "0"} and "t 1" not in raw
    raw = ann.ask("GET", "/tasks?assignee=felix").body.decode()
    assert counted(raw)["todo"] == "30" and '<a href="/tasks?status=todo&amp;assignee=felix">all 30</a>' in raw
    assert counted(ann.ask("GET", "/tasks?product=a+b%26c").body.decode())["todo"] == "1"
    assert "hers" in ann.ask("GET", "/tasks?status=todo&product=a+b%26c").body.decode()


def test_whoever_must_log_in_first_comes_to_where_they_wanted(application, ann):
    stranger = Browser(application)
    shown = stranger.ask("GET", "/tasks?status=blocked&q=foo").body.decode()
    assert 'value="/tasks?status=blocked&amp;q=foo"' in shown
    assert 'value="/"' in stranger.ask("GET", "/login?next=/evil").body.decode()


def test_a_run_has_its_own_lines_and_not_those_of_the_next(ann, client, company):
    with acting(system()):
        row = {"agent": "felix", "task": company["todo"]}
        for id, began, ended in ((900, "2026-11-02T10:00:10.000Z", "2026-11-02T10:00:20.000Z"), (901, "2026-11-02T10:00:21.000Z", "2026-11-02T10:00:40.000Z")):
            db.write(lambda id=id, began=began, ended=ended: db.run("""
                INSERT INTO agent_runs (id, tenant_id, agent, task_id, status, started_at, finished_at) VALUES (:id, :tenant, :agent, :task, 'failed', :began, :ended)""",
                id=id, began=began, ended=ended, **row))
        for at, words in (("15", "in the first"), ("20.900", "the last of the first"), ("25", "in the second")):
            db.write(lambda at=at, words=words: db.run("""
                INSERT INTO log_lines (source, agent, level, message, task_id, created_at) VALUES ('db', :agent, 'info', :words, :task, :at)""",
                at=f"2026-11-02T10:00:{at}{'' if '.' in at else '.000'}Z", words=words, **row))
    first, second = (ann.ask("GET", f"/agent-runs/{id}").body.decode() for id in (900, 901))
    assert "in the first" in first and "the last of the first" in first and "in the second" not in first
    assert "in the second" in second and "in the first" not in second
