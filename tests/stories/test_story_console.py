"""Stories of the console: its pages as a browser asks for them, its door, its cookie. What scripts do is seen in test_console.py."""
import gzip
import html
import re
from pathlib import Path
from urllib.parse import urlencode

import pytest
from conftest import Client

from orkosi import HOME, acting, db, now, settings, system
from plugins import agents, logs, queue, users

STATIC = Path(HOME) / "plugins/console/static"
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Host": "127.0.0.1:3001", "Origin": "http://127.0.0.1:3001"}
PASSWORD = "correct horse battery"


class Browser(Client):
    """A client that keeps cookies, as a browser does, and reads pages."""

    def __init__(self, application, **headers):
        super().__init__(application)
        self.cookie, self.headers, self.given = "", {"Host": "127.0.0.1:3001"} | headers, ""

    def request(self, *args, headers=None, **more):
        return super().request(*args, headers={"Host": self.headers["Host"]} | (headers or {}), **more)

    def ask(self, method, path, form=None, **headers):
        sent = self.headers | ({"Cookie": self.cookie} if self.cookie else {}) | headers
        answer = self.request(method, path, headers=(FORM if form is not None else {}) | sent, raw=urlencode(form or {}).encode(), root="/")
        self.given = answer.headers.get("Set-Cookie", "")
        if self.given:
            self.cookie = self.given.partition(";")[0]
        return answer

    def log_in(self, name, password=PASSWORD, **more):
        return self.ask("POST", "/login", {"email": f"{name}@example.com", "password": password, **more})


def text_of(answer):
    """What a page says, without its markup, as lines."""
    return [html.unescape(one).strip() for one in re.sub(r"<[^>]*>", "\n", answer.body.decode()).splitlines() if one.strip()]


def buttons(answer):
    """The buttons of a page: (label, operation)."""
    return [(html.unescape(label), html.unescape(do)) for do, label in re.findall(r'<button[^>]* data-do="([^"]*)"[^>]*>([^<]*)<', answer.body.decode())]


@pytest.fixture
def browser(application):
    return Browser(application)


@pytest.fixture
def ann(browser, people):
    """A browser in which an administrator is logged in."""
    with acting(system()):
        users.add("ann", "ann@example.com", users.passwords.hashed(PASSWORD), "admin", 1)
    assert browser.log_in("ann").status == 303
    return browser


@pytest.mark.story("POST /login", "GET /login")
def test_logging_in_leads_to_where_one_wanted(browser, people):
    with acting(system()):
        users.add("ann", "ann@example.com", users.passwords.hashed(PASSWORD), "member", 1)
    asked = browser.ask("GET", "/tasks/1")
    assert (asked.status, 'name="next" value="/tasks/1"' in asked.body.decode()) == (200, True)
    wrong = browser.log_in("ann", "wrong horse battery", next="/tasks/1")
    assert (wrong.status, "Invalid email or password" in text_of(wrong), browser.cookie) == (401, True, "")
    assert 'name="next" value="/tasks/1"' in wrong.body.decode() and PASSWORD not in wrong.body.decode()
    right = browser.log_in("ann", next="/tasks/1")
    assert (right.status, right.headers["Location"]) == (303, "/tasks/1")
    assert re.fullmatch(r"orkosi-3001=ork_ses_\w{38}\.ork_ref_\w{38}; Path=/; Max-Age=1209600; HttpOnly; SameSite=Strict", browser.given)
    assert db.value("SELECT count(*) FROM sessions") == 1 and "Log out" in text_of(browser.ask("GET", "/"))
    assert browser.ask("GET", "/login").status == 200
    for where in ("https://example.com/", "//example.com", "/\\example.com", "javascript:alert(1)", "/a\r\nX: y", "/ü", ""):
        assert browser.log_in("ann", next=where).headers["Location"] == "/", where


def test_a_form_of_another_site_logs_nobody_in_and_nobody_out(ann):
    kept = ann.cookie
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        assert ann.ask("POST", "/login", {"email": "ann@example.com", "password": PASSWORD}, **headers).status == 403, headers
        assert ann.ask("POST", "/logout", {}, **headers).status == 403 and ann.cookie == kept
    assert "Log out" in text_of(ann.ask("GET", "/"))


def test_a_form_that_is_none_of_ours_is_refused(browser):
    assert browser.ask("POST", "/login", {str(n): "x" for n in range(20)}).status == 400
    assert browser.ask("POST", "/login", {"email": "x" * 5000}).status == 413
    assert browser.ask("POST", "/login", {}).status == 401
    assert browser.request("POST", "/login", raw=b"email=%ff%00&password=%00\xff", headers=FORM, root="/").status == 401
    assert browser.request("GET", "/", headers={"Cookie": "orkosi-3001=" + "x" * 9000 + "; orkosi-3001=ork_ses_.ork_ref_"}, root="/").status == 200


@pytest.mark.story("POST /logout")
def test_logging_out_ends_the_session_and_takes_the_cookie(ann):
    left, kept = ann.ask("POST", "/logout", {}), ann.cookie
    assert (left.status, left.headers["Location"], ann.given) == (303, "/login", "orkosi-3001=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict")
    assert kept == "orkosi-3001=" and db.value("SELECT count(*) FROM sessions") == 0
    assert ann.ask("POST", "/logout", {}).status == 303, "again, nothing is wrong"


@pytest.mark.story("GET /login/{token}")
def test_a_printed_link_logs_in_once(application, people):
    user, _ = people("bob", "viewer")
    path = users.cookies.link_for(user.id)
    guesses = Browser(application)
    assert guesses.ask("HEAD", path).status == guesses.ask("GET", path, **{"Sec-Purpose": "prefetch;prerender"}).status == 503
    first = Browser(application)
    answer = first.ask("GET", path)
    assert (answer.status, answer.headers["Location"]) == (303, "/") and "bob" in text_of(first.ask("GET", "/"))
    second = Browser(application)
    again = second.ask("GET", path)
    assert (again.status, second.cookie) == (404, "") and any("That link was used" in line for line in text_of(again))
    late = users.cookies.link_for(user.id)
    users.cookies._links[users.tokens.digest(late.rpartition("/")[2])] = (user.id, 0.0)
    assert second.ask("GET", late).status == 404 and second.ask("GET", "/login/x").status == 404


@pytest.mark.story("GET /setup/{token}", "POST /setup/{token}")
def test_setting_up_ends_logged_in_and_a_used_link_says_so(browser):
    link = f"/setup/{users.ticket('setup', None, 60)}"
    assert any("printed a link" in line for line in text_of(browser.ask("GET", "/")))
    assert "Set up Orkosi" in text_of(browser.ask("GET", link))
    given = {"username": "<Ann>", "email": "ann@example.com", "password": "short"}
    wrong = browser.ask("POST", link, given)
    assert wrong.status == 400 and 'value="&lt;Ann&gt;"' in wrong.body.decode() and db.value("SELECT count(*) FROM users") == 0
    assert browser.ask("POST", link, given, Origin="https://evil.example").status == 403
    done = browser.ask("POST", link, given | {"password": PASSWORD})
    assert (done.status, done.headers["Location"]) == (303, "/")
    assert db.all(tuple, "SELECT username, email, role, tenant_id FROM users") == [("<Ann>", "ann@example.com", "admin", 1)]
    assert "<Ann>" in text_of(browser.ask("GET", "/")) and b"<Ann>" not in browser.ask("GET", "/").body
    other = Browser(browser.application)
    used = other.ask("GET", link)
    assert used.status == 404 and any("That set-up link was used" in line for line in text_of(used))
    assert other.ask("POST", link, given | {"password": PASSWORD}).status == 404 and not other.cookie


@pytest.mark.story("GET /")
def test_the_first_page_shows_what_needs_one_who_works_and_what_it_cost(ann, client):
    new = text_of(ann.ask("GET", "/"))
    assert {"Add an agent", "Give it a task", "There is no task yet.", "Nobody works at this moment."} <= set(new)
    hostile = "<script>alert(1)</script> & \"co\""
    client.post("/agents", {"name": "felix", "role": "Builder", "display_name": "Felix"})
    client.post("/agents", {"name": "gitta", "role": "Writer"})
    client.post("/agents/gitta/pause", {"note": "on leave"})
    ids = {name: client.post("/tasks", {"title": title, "assignee": who, "priority": "P1"}).data["id"] for name, title, who in
           [("in_progress", "Paint the boat", "felix"), ("review", hostile, "felix"), ("blocked", "Cross the sea", "felix"), ("done", "Count the gulls", "felix"),
            ("todo", "Sail", "gitta")]}
    for name in ("review", "blocked"):
        client.patch(f"/tasks/{ids[name]}", {"status": name})
    client.patch(f"/tasks/{ids['done']}", {"status": "done", "resolution": "Twelve gulls.\nAnd a crow."})
    db.write(lambda: db.run("UPDATE tasks SET last_error = 'Traceback\nStorm: no wind' WHERE id = :id", id=ids["blocked"]))
    with acting(system()):
        assert [job.payload["task_id"] for job in queue.claim("agent:felix", "w")] == [ids["in_progress"]]
        over = agents.runs.start("felix", task_id=ids["done"], job_id=None, mode="task")
        agents.runs.change(over.id, agents.runs.RunPatch(status="done", cost_micros=2_500_000, tokens_in=5))
        run = agents.runs.start("felix", task_id=ids["in_progress"], job_id=None, mode="task")
    page = ann.ask("GET", "/")
    said, raw = text_of(page), page.body.decode()
    assert page.status == 200 and page.headers["Content-Type"] == "text/html; charset=utf-8" and "<title>(2) Now · Orkosi</title>" in raw
    needs = {key: text for key, text in re.findall(r'<li class="need" id="need-([^"]+)"(.*?)</li>', raw, re.S)}
    assert list(needs) == [f"t{ids['review']}", f"b{ids['blocked']}"]
    assert html.escape(hostile) in needs[f"t{ids['review']}"] and "<script>alert" not in raw and "Storm: no wind" in needs[f"b{ids['blocked']}"]
    assert "1 task waits for Gitta" in said and "Gitta is paused: on leave" in said
    assert f'href="/agent-runs/{run.id}">Paint the boat</a>' in raw and "$2.50" in said and "felix $2.50" in said
    assert said[said.index("Done today") + 1] == "1" and said[said.index("Unfinished jobs, last hour") + 1] == "2"
    assert "working · Paint the boat" in said and "felix · Twelve gulls.…" in said
    for name, count in [("review", "1"), ("blocked", "1"), ("in progress", "1"), ("to do", "1"), ("done", "1")]:
        assert (name, count) in zip(said, said[1:], strict=False), name
    assert set(buttons(page)) == {
        ("Done", "PATCH /api/tasks/{id}"), ("Back to do", "PATCH /api/tasks/{id}"), ("Try again", "PATCH /api/tasks/{id}"), ("Resume", "POST /api/agents/{name}/resume"),
        ("Pause", "POST /api/agents/felix/pause"), ("Stop", "POST /api/agents/felix/stop"), ("Resume", "POST /api/agents/gitta/resume")}
    assert f'data-ids="{ids["review"]}"' in raw and 'data-ids="gitta"' in raw


@pytest.mark.story("GET /tasks/{id}")
def test_the_page_of_a_task_says_what_came_of_it_and_why_it_waits(ann, client):
    client.post("/agents", {"name": "felix", "role": "Builder"})
    client.post("/agents/felix/stop")
    client.post("/products", {"name": "Boat", "slug": "boat"})
    task = client.post("/tasks", {"title": "Paint <it>", "description": "All of it.\nTwice.", "assignee": "felix", "priority": "P0", "product_slug": "boat"}).data["id"]
    run = agents.runs.start("felix", task_id=task, job_id=None, mode="task")
    agents.runs.change(run.id, agents.runs.RunPatch(status="failed", tokens_in=1200, tokens_out=34, cost_micros=7600, duration_ms=65000, error="no paint"))
    page = ann.ask("GET", f"/tasks/{task}")
    said = text_of(page)
    assert page.status == 200 and "<title>Paint &lt;it&gt; · Orkosi</title>" in page.body.decode()
    assert [line for line in said if line in ("to do", "P0", "felix", "boat", f"task {task}")][:5] == ["to do", "P0", "felix", "boat", f"task {task}"]
    assert client.get(f"/tasks/{task}").data["why"][0]["sentence"] in said and said[said.index("What was asked for") + 1:][:2] == ["All of it.", "Twice."]
    assert said[said.index("failed"):][:3] == ["failed", f"run {run.id}", "felix"]
    assert {"1 min 5 s", "1\u202f234", "$0.0076"} <= set(said)
    assert set(buttons(page)) == {(label, f"PATCH /api/tasks/{task}") for label in ("Done", "Archive")}
    assert f'data-form="PATCH /api/tasks/{task}"' in page.body.decode()
    part = client.post("/tasks", {"title": "Sand it", "parent_id": task}).data["id"]
    said = text_of(ann.ask("GET", f"/tasks/{task}"))
    assert said[said.index("Parts") + 1:][:3] == ["to do:", "Sand it", "nobody"] and client.patch(f"/tasks/{part}", {"status": "archived"}).status == 200
    client.patch(f"/tasks/{task}", {"status": "done", "resolution": "Blue now"})
    page = ann.ask("GET", f"/tasks/{task}")
    said = text_of(page)
    assert said[said.index("What came of it") + 1] == "Blue now" and buttons(page) == [("To do again", f"PATCH /api/tasks/{task}")]
    gone = ann.ask("GET", "/tasks/999")
    assert gone.status == 404 and "There is no task 999" in text_of(gone)
    assert ann.ask("GET", "/tasks/999", **{"X-Orkosi-Live": "1"}).body.startswith(b'<main id="main"')


def test_the_page_of_a_task_shows_its_question_and_what_it_was_made_of(ann, client, anonymous):
    hook = client.post("/hooks", {"name": "shop", "kind": "none", "title": {"pointer": "/what", "text": "A delivery"}}).data
    made = anonymous.request("POST", "/hooks/" + hook["url"].rpartition("/")[2], raw=b'{"what": "Order <5>", "n": "</pre><script>x"}', headers={"Content-Type": "application/json"}, root="").data
    task = made["task_id"]
    client.post(f"/tasks/{task}/ask", {"question": "Wrap <it>?"})
    page = ann.ask("GET", f"/tasks/{task}")
    said = text_of(page)
    assert said[said.index("It asks") + 1] == "Wrap <it>?" and "Answer it" in said and "Your answer" in said and "Last error" not in said
    assert b"&lt;/pre&gt;&lt;script&gt;x" in page.body and b"<script>x" not in page.body
    client.post(f"/tasks/{task}/reject", {"note": "Yes"})
    said = text_of(ann.ask("GET", f"/tasks/{task}"))
    assert "It asks" not in said and said[said.index("A note for the next time") + 1] == "Yes" and said[said.index("Last error") + 1] == "Wrap <it>?"


@pytest.mark.story("GET /console/{hash}/{file}")
def test_each_file_of_the_console_comes_as_it_is_and_may_be_kept(ann):
    page = ann.ask("GET", "/").body.decode()
    asked = set(re.findall(r'(?:src|href)="(/console/[^"]+)"', page))
    assert {path.rpartition("/")[2] for path in asked} == {path.name for path in STATIC.iterdir()}
    for path in asked:
        name = path.rpartition("/")[2]
        for headers in ({}, {"Accept-Encoding": "gzip"}):
            file = ann.ask("GET", path, **headers)
            body = gzip.decompress(file.body) if file.headers.get("Content-Encoding") == "gzip" else file.body
            assert (file.status, body, file.headers["Cache-Control"]) == (200, (STATIC / name).read_bytes(), "public, max-age=31536000, immutable")
            assert file.headers["Content-Type"].startswith({".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}[Path(name).suffix])
    assert ann.ask("GET", "/console/x/../api.py").status == 404 and ann.ask("GET", "/console/x/api.py").status == 404


def test_the_cookie_alone_changes_nothing(ann, client):
    task = client.post("/tasks", {"title": "Paint"}).data["id"]
    body = b'{"title": "Owned"}'
    send = lambda **headers: ann.request("PATCH", f"/tasks/{task}", raw=body, headers={"Cookie": ann.cookie, "Content-Type": "application/json", **headers})  # noqa: E731
    refused = send()
    assert refused.status == 401 and "X-Orkosi: 1" in refused.error["message"]
    assert send(**{"X-Orkosi": "0"}).status == 401 and client.get(f"/tasks/{task}").data["title"] == "Paint"
    assert send(**{"X-Orkosi": "1"}).data["title"] == "Owned"
    assert ann.request("GET", "/auth/me", headers={"Cookie": ann.cookie}).data["username"] == "ann"
    assert ann.request("GET", "/auth/me", headers={"Cookie": ann.cookie, "Authorization": f"Bearer {client.token}"}).data["username"] == "root"
    assert ann.request("GET", "/auth/me", headers={"Cookie": ann.cookie, "Authorization": "Bearer ork_ses_x"}).status == 401, "a wrong token is not mended by a cookie"


def test_a_page_goes_on_where_the_first_half_of_the_cookie_has_run_out(ann):
    first = ann.cookie
    db.write(lambda: db.run("UPDATE sessions SET access_expires_at = :past", past=now(-1)))
    assert ann.request("GET", "/auth/me", headers={"Cookie": first}).status == 401, "the API renews nothing"
    live = ann.ask("GET", "/", **{"X-Orkosi-Live": "1"})
    assert live.status == 200 and live.body.startswith(b'<main id="main"') and ann.cookie != first
    assert ann.request("GET", "/auth/me", headers={"Cookie": ann.cookie}).data["username"] == "ann"
    second, ann.cookie = ann.cookie, first
    assert ann.ask("GET", "/").status == 200 and ann.cookie == second, "another tab, a moment later, gets the same pair"
    db.write(lambda: db.run("UPDATE sessions SET ends_at = :past", past=now(-1)))
    assert ann.ask("GET", "/", **{"X-Orkosi-Live": "1"}).status == 401 and "Log in" in text_of(ann.ask("GET", "/"))


def test_over_https_the_cookie_is_bound_to_the_host(application, people):
    settings.values["public_url"] = "https://orkosi.example"
    with acting(system()):
        users.add("ann", "ann@example.com", users.passwords.hashed(PASSWORD), "admin", 1)
    far, near = Browser(application, Host="orkosi.example", Origin="https://orkosi.example"), Browser(application)
    application.hosts.__dict__.pop("names", None)
    assert far.log_in("ann").status == near.log_in("ann").status == 303
    assert far.given.startswith("__Host-orkosi=ork_ses_") and far.given.endswith("; Path=/; Max-Age=1209600; HttpOnly; SameSite=Strict; Secure")
    assert near.given.startswith("orkosi-3001=ork_ses_") and "Secure" not in near.given
    assert "Log out" in text_of(far.ask("GET", "/")) and "Log out" in text_of(near.ask("GET", "/"))
    assert "Log in" in text_of(far.ask("GET", "/", Cookie=near.cookie)), "what a plain page of the same name could have planted counts for nothing"


def test_who_may_less_sees_less(application, client, people):
    client.post("/agents", {"name": "quentin", "role": "Builder"})
    client.post("/tasks", {"title": "Secret of the host", "status": "blocked"})
    logs.record("quentin", "a line of the host")

    def seen_by(name, role, tenant=1):
        with acting(system()):
            users.add(name, f"{name}@example.com", users.passwords.hashed(PASSWORD), role, tenant)
        one = Browser(application)
        assert one.log_in(name).status == 303
        return one.ask("GET", "/"), one.ask("GET", "/logs")
    (admin, log), (viewer, no_log), (demo, _), (stranger, _) = (seen_by(*one) for one in [("anna", "admin"), ("vera", "viewer"), ("dora", "demo"), ("otto", "member", None)])
    assert b"a line of the host" in log.body and len(buttons(admin)) == 3 and no_log.status == 403 and b"a line of the host" not in no_log.body
    assert b"Secret of the host" in viewer.body and b"quentin" in viewer.body and b"a line of the host" not in viewer.body and buttons(viewer) == []
    assert b"quentin" not in demo.body and b"a line of the host" not in demo.body and buttons(demo) == []
    assert stranger.status == 200 and not any(word in stranger.body for word in (b"Secret", b"quentin", b"a line"))
    key = client.request("GET", "/", headers={}, root="/")
    assert "Log out" in text_of(key), "a session's own token shows the page, too"


def test_an_unchanged_page_costs_nothing(ann, client):
    first = ann.ask("GET", "/", **{"X-Orkosi-Live": "1"})
    tag = first.headers["ETag"]
    for _ in range(3):  # a beat may end between the two
        same = ann.ask("GET", "/", **{"X-Orkosi-Live": "1", "If-None-Match": tag})
        if same.status == 304:
            break
        tag = same.headers["ETag"]
    assert (same.status, same.body) == (304, b"")
    assert ann.ask("GET", "/", **{"If-None-Match": tag}).status == 200, "the whole page is another one"
    client.patch(f"/tasks/{client.post('/tasks', {'title': 'Something new'}).data['id']}", {"status": "review"})
    fresh = ann.ask("GET", "/", **{"X-Orkosi-Live": "1", "If-None-Match": tag})
    assert fresh.status == 200 and b"Something new" in fresh.body


def test_a_link_from_elsewhere_is_asked_for_once_more(ann):
    without = Browser(ann.application)
    asked = without.ask("GET", "/tasks/1", **{"Sec-Fetch-Site": "cross-site"})
    assert asked.status == 200 and b'http-equiv="refresh" content="0"' in asked.body and b"<form" not in asked.body


def test_pages_hold_to_their_policy(ann):
    for path in ("/", "/login", "/tasks/1"):
        page = ann.ask("GET", path)
        policy = page.headers["Content-Security-Policy"]
        assert "unsafe" not in policy and "require-trusted-types-for 'script'" in policy and page.headers["Referrer-Policy"] == "same-origin"
        assert not re.search(r"<[^>]+\s(style|on\w+)=", page.body.decode()), path
    views = Path(HOME) / "plugins/console/views"
    for view in views.iterdir():
        for raw in re.findall(r"\{\{!(.*?)\}\}", view.read_text()):
            assert re.match(r"look\.|act[.(]|base$|note$|room\.(head|acts)\(|column\[1\]\(one\)$|(['\"]) [a-z-]+(=\"[a-z]+\")?\2 if .* else \"\"$", raw), f"{view.name}: {raw} is shown unescaped"


@pytest.mark.parametrize("path, status", [("/nope", 404), ("/tasks/", 404), ("/Tasks", 404), ("/tasks/abc", 400), ("/agent-runs/abc", 400), ("/nope/%3Cscript%3E", 404)])
def test_an_address_of_no_page_is_told_in_words_to_whoever_is_logged_in(ann, path, status):
    page = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    answer = ann.ask("GET", path, **page)
    assert answer.status == status and answer.headers["Content-Type"].startswith("text/html") and "Not here" in text_of(answer)[0]
    assert b"<script>" not in answer.body.replace(b"<script src", b"") and "Tasks" in text_of(answer), "with the way to all others"
    assert ann.ask("GET", path).json["error"]["code"] in ("not_found", "invalid"), "a program is told as programs are"
    ann.cookie = ""
    assert ann.ask("GET", "/nope", **page).json["error"]["code"] == "not_found", "a stranger learns nothing of the house"


def test_logging_out_after_the_half_hour_ends_the_session_all_the_same(ann):
    db.write(lambda: db.run("UPDATE sessions SET access_expires_at = '2000-01-01T00:00:00.000Z'"))
    assert ann.ask("POST", "/logout", {}).status == 303 and db.value("SELECT count(*) FROM sessions") == 0


@pytest.mark.parametrize("link, page", [("/api/tasks/1", "/tasks/1"), ("/api//evil.example/login", "/api//evil.example/login"), ("/api-keys/1", "/api-keys/1"),
                                        ("//evil.example", ""), ("/\\evil", ""), ("https://evil.example", ""), ("/tasks?q=a", "/tasks?q=a"), (None, "")])
def test_where_a_link_leads(link, page):
    from plugins.console import look
    assert look.inner(link) == page
