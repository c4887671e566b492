"""A day at the console, in a real browser: by keyboard alone, by hand, with others at work on the same, and for those who cannot see it."""
import http.server
import os
import threading
from pathlib import Path

import pytest
from conftest import command, eventually
from test_console import PASSWORD, log_in, set_up

from plugins.console import rooms

pytestmark = pytest.mark.slow
FOCUS = "document.activeElement?.id"


@pytest.fixture
def company(server, browser):
    """A server with something of everything, and a browser that is logged in: `running`, with `token` and `ask`."""
    running = server(env={"ORKOSI_LIMIT_TASK_CREATE": "off"})
    set_up(browser, running)
    running.token = log_in(running)
    running.ask = lambda method, path, body=None: running.call(method, path, body, running.token)[1]["data"]
    running.ask("POST", "/products", {"name": "Shop", "slug": "shop"})
    running.ask("POST", "/agents", {"name": "felix", "role": "Builder", "interval_sec": 3600})
    running.tasks = {}
    for title, status in (("Look at the letters", "review"), ("Mail the harbour", "blocked"), ("Count the gulls", "todo"), ("Paint the boat", "todo"), ("Open the shop", "done")):
        running.tasks[title] = running.ask("POST", "/tasks", {"title": title, "priority": "P1" if title == "Count the gulls" else "P2"})["id"]
        running.ask("PATCH", f"/tasks/{running.tasks[title]}", {"status": status})
    for number in range(4):
        running.ask("POST", "/task-queue/submit", {"task_type": "mail", "queue_name": "mails", "max_attempts": 1})
        job = running.ask("POST", "/task-queue/claim", {"worker_id": "w", "queue_name": "mails"})
        running.ask("POST", f"/task-queue/{job['id']}/fail", {"lease_token": job["lease_token"], "error": f"Timeout after {number} s" if number else "KeyError: to"})
    return running


def status(running, title):
    return running.ask("GET", f"/tasks/{running.tasks[title]}")["status"]


def go(browser, running, path):
    browser.open(running.url + path)
    browser.wait("document.readyState === 'complete' && document.documentElement.classList.contains('scripted') && !!document.querySelector('#main')")


def test_from_the_door_to_undo_by_keyboard_alone(company, browser):
    running, need = company, f"need-t{company.tasks['Look at the letters']}"
    browser.run("document.querySelector('form[action=\"/logout\"] button').click()")
    browser.wait("location.pathname === '/login' && document.activeElement?.name === 'email'")
    browser.type("root@example.com"), browser.key("Tab"), browser.type(PASSWORD), browser.key("Enter")
    browser.wait("location.pathname === '/' && document.documentElement.classList.contains('scripted')")
    browser.key("j")
    assert browser.run(FOCUS) == need
    browser.key("1")
    browser.wait("document.querySelector('.toast')?.innerText.includes('Done: Look at the letters')")
    assert status(running, "Look at the letters") == "done"
    browser.key("u")
    browser.wait("document.querySelector('.toast')?.innerText.includes('Undone')")
    assert status(running, "Look at the letters") == "review"
    browser.wait(f"!!document.querySelector('#{need}')")

    browser.key("g"), browser.key("t")
    browser.wait("location.pathname === '/tasks' && document.documentElement.classList.contains('scripted')")
    browser.key("j"), browser.key("j"), browser.key("k")
    card = f"t{running.tasks['Count the gulls']}"
    assert browser.run(FOCUS) == card, "the most urgent is on top"
    browser.key("]")
    browser.wait(f"document.querySelector('#col-review #{card}') && document.activeElement.id === '{card}'")
    assert status(running, "Count the gulls") == "review"
    browser.key("[")
    browser.wait(f"document.querySelector('#col-todo #{card}') && document.activeElement.id === '{card}'")
    browser.key("ArrowRight")
    assert browser.run("document.activeElement.closest('[data-column]').dataset.column") == "review"

    browser.key("/")
    browser.wait("document.querySelector('[data-palette]').open && document.activeElement.matches('[data-palette] input')")
    browser.type("boat")
    browser.wait("[...document.querySelectorAll('#found [role=option]')].some(one => one.innerText.includes('Paint the boat'))")
    browser.key("Enter")
    browser.wait("location.pathname.startsWith('/tasks/') && document.title.startsWith('Paint the boat') && document.documentElement.classList.contains('scripted')")
    browser.key("?")
    browser.wait("document.querySelector('[data-help]').open")
    browser.key("Escape")
    browser.wait("!document.querySelector('[data-help]').open")
    browser.run("document.querySelector('[data-help]').showModal(); document.querySelector('[data-keys-on]').click(); document.querySelector('[data-help]').close()")
    browser.key("g"), browser.key("n")
    assert browser.run("location.pathname") != "/", "single keys are off"
    browser.run("localStorage.clear()")


def test_failed_jobs_run_again_by_cause_and_by_ticks_and_are_taken_back(company, browser):
    running = company
    states = lambda: sorted(one["status"] for one in running.ask("GET", "/task-queue?queue_name=mails"))  # noqa: E731
    go(browser, running, "/task-queue?queue_name=mails&status=dead")
    browser.run("[...document.querySelectorAll('#causes button')].find(one => one.innerText === 'Retry 3').click()")
    browser.wait("document.querySelector('.toast')?.innerText.includes('Running again: 3 jobs')")
    assert states() == ["dead", "waiting", "waiting", "waiting"]
    browser.key("u")
    browser.wait("document.querySelector('.toast')?.innerText.includes('Undone')")
    assert states() == ["dead"] * 4
    browser.wait("document.querySelectorAll('#jobs tbody tr').length === 4")
    browser.run("document.querySelectorAll('[data-choose]')[0].click()")
    browser.run("document.querySelectorAll('[data-choose]')[2].dispatchEvent(new MouseEvent('click', {bubbles: true, shiftKey: true}))")
    browser.wait("document.querySelector('[data-chosen]').innerText === '3' && !document.querySelector('[data-bulk]').hidden")
    browser.run("document.querySelector('[data-bulk] button').click()")
    browser.wait("document.querySelector('.toast')?.innerText.startsWith('Running again: 3')")  # the one before says that it was undone
    assert states() == ["dead", "waiting", "waiting", "waiting"]


def test_a_card_is_dragged_and_comes_back_where_the_server_refuses(company, browser):
    running, id = company, company.tasks["Paint the boat"]
    go(browser, running, "/tasks")
    drag = """(to) => { const card = document.querySelector('#t%d'), column = document.querySelector(`[data-column=${to}]`), data = new DataTransfer();
        for (const [one, name] of [[card, 'dragstart'], [column, 'dragover'], [column, 'drop'], [card, 'dragend']])
          one.dispatchEvent(new DragEvent(name, {bubbles: true, cancelable: true, dataTransfer: data})); }""" % id
    browser.run(f"({drag})('in_progress')")
    assert browser.run(f"document.querySelector('#t{id}').closest('[data-column]').dataset.column") == "todo", "only a claim begins a task"
    browser.run(f"({drag})('done')")
    browser.wait("document.querySelector('.toast')?.innerText.includes('Done: Paint the boat')")
    assert status(running, "Paint the boat") == "done"
    running.ask("PATCH", f"/tasks/{id}", {"status": "todo"})
    browser.wait(f"!!document.querySelector('#col-todo #t{id}')")
    running.call("DELETE", f"/tasks/{id}", None, running.token)
    browser.run(f"document.querySelector('#t{id}') && ({drag})('done')")
    browser.wait(f"!!document.querySelector('.toast.wrong') || !document.querySelector('#t{id}')")
    browser.wait(f"!document.querySelector('#t{id}')")


def test_what_others_do_comes_in_under_the_hand_of_nobody(company, browser):
    running, id = company, company.tasks["Count the gulls"]
    go(browser, running, "/tasks")
    browser.run(f"document.querySelector('#t{id}').focus(); document.querySelector('details.form').open = true; document.querySelector('details.form [name=title]').value = 'half a'")
    running.ask("PATCH", f"/tasks/{running.tasks['Paint the boat']}", {"status": "review"})
    browser.wait(f"!!document.querySelector('#col-review #t{running.tasks['Paint the boat']}')", patience=4)
    assert browser.run(FOCUS) == f"t{id}" and browser.run("document.querySelector('details.form [name=title]').value") == "half a"
    browser.run("getSelection().selectAllChildren(document.querySelector('h1'))")
    running.ask("PATCH", f"/tasks/{id}", {"title": "Count them twice"})
    assert not browser.soon(f"document.querySelector('#t{id}').innerText.includes('twice')", patience=3), "nothing moves under marked text"
    browser.run("getSelection().removeAllRanges()")
    browser.wait(f"document.querySelector('#t{id}').innerText.includes('twice')", patience=8)


def test_forms_make_what_there_was_not_and_show_a_secret_once(company, browser):
    running = company
    go(browser, running, "/tasks")

    def fill(form, **values):
        browser.run(f"""(() => {{ const form = document.querySelector('[id^={form}]'); form.open = true;
        for (const [name, value] of Object.entries({values!r})) form.querySelector(`[name="${{name}}"]`).value = value;
        form.querySelector('button.act').click(); }})()""")
    fill("form-give-a-task", title="Feed the cat", assignee="felix", priority="P0")
    browser.wait("[...document.querySelectorAll('.card')].some(one => one.innerText.includes('Feed the cat') && one.innerText.includes('P0'))")
    assert [one["assignee"] for one in running.ask("GET", "/tasks?q=cat")] == ["felix"]
    go(browser, running, "/agents/felix")
    fill("form-what-it-may-spend", cost_micros_per_day="5000000")
    browser.wait("document.querySelector('#f-day').innerText.includes('$5.00 at most')")
    assert running.ask("GET", "/agents/felix/budget")["tokens_per_day"] is None
    org = running.ask("POST", "/organizations", {"name": "Acme"})["id"]
    go(browser, running, f"/organizations/{org}/api-keys")
    fill("form-make-a-key", name="Web shop", scopes="tasks:read, tasks:write")
    browser.wait("document.querySelector('[data-ask]').open")
    key = browser.run("document.querySelector('[data-ask-secret]').innerText")
    assert running.call("GET", "/tasks", None, key)[0] == 200
    browser.run("document.querySelector('[data-ask-yes]').click()")
    browser.wait("!document.querySelector('[data-ask]').open && document.querySelectorAll('tbody tr').length === 1")
    assert key not in browser.run("document.documentElement.outerHTML")
    fill("form-make-a-key", name="")
    assert browser.run("document.querySelector('[id^=form-make-a-key]').open") and len(running.ask("GET", f"/organizations/{org}/api-keys")) == 1
    browser.run("[...document.querySelectorAll('tbody button')].find(one => one.innerText === 'Revoke').click()")
    browser.wait("document.querySelector('[data-ask]').open && document.querySelector('[data-ask-words]').innerText.includes('shut out at once')")
    browser.run("document.querySelector('[data-ask-no]').click()")
    assert running.call("GET", "/tasks", None, key)[0] == 200
    browser.run("[...document.querySelectorAll('tbody button')].find(one => one.innerText === 'Revoke').click()")
    browser.wait("document.querySelector('[data-ask]').open")
    browser.run("document.querySelector('[data-ask-yes]').click()")
    browser.wait("document.querySelector('tbody').innerText.includes('revoked')")
    assert running.call("GET", "/tasks", None, key)[0] == 401


def test_a_link_from_elsewhere_leads_in_and_no_other_page_frames_it(company, browser, tmp_path):
    running = company
    where = f"{running.url}/tasks/{running.tasks['Paint the boat']}"
    (tmp_path / "mail.html").write_text(f'<a href="{where}">task</a><iframe src="{running.url}/"></iframe>')

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass
    elsewhere = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Quiet(*args, directory=tmp_path))
    threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
    browser.open(f"http://localhost:{elsewhere.server_port}/mail.html")
    browser.wait("!!document.querySelector('a')")
    assert eventually(lambda: browser.run("true") and any("frame-ancestors" in str(one) for one in browser.complaints))
    browser.run("document.querySelector('a').click()")
    browser.wait("document.title.startsWith('Paint the boat')")
    elsewhere.shutdown()


def test_a_restarted_server_and_a_wrong_clock_do_not_confuse_a_page(company, browser):
    running = company
    browser.send("Page.addScriptToEvaluateOnNewDocument", source="const real = Date.now; Date.now = () => real() + 3600000;")
    go(browser, running, "/tasks")
    assert browser.run("[...document.querySelectorAll('.card time')].every(one => /just now|s ago|min/.test(one.innerText))"), "the browser's clock is an hour ahead"
    browser.wait("document.querySelector('[data-live-sign]').innerText.trim() === 'live'")


# ── for everybody ──


def everywhere(running):
    job = running.ask("GET", "/task-queue?queue_name=mails")[0]["id"]
    org = (running.ask("GET", "/organizations") or [running.ask("POST", "/organizations", {"name": "Acme"})])[0]["id"]
    running.ask("POST", f"/organizations/{org}/api-keys", {"name": "Web shop", "scopes": ["tasks:read"]})
    running.ask("POST", "/schedules", {"name": "news", "cron": "0 8 * * 1-5", "task": {"title": "Read the news", "assignee": "felix"}})
    running.ask("POST", "/credentials", {"key": "SHOP_TOKEN", "value": "a secret of some length"})
    running.ask("POST", "/notifications", {"title": "Hello", "message": "there", "link": "/api/tasks/1"})
    run = running.ask("POST", "/agent-runs", {"agent": "felix", "task_id": running.tasks["Count the gulls"]})["id"]
    running.ask("POST", "/logs", {"agent": "felix", "message": "counting\x1b[31m red", "level": "error"})
    return ["/", "/tasks", "/tasks?status=todo", f"/tasks/{running.tasks['Mail the harbour']}", "/agents", "/agents/felix", "/agent-runs", f"/agent-runs/{run}",
            "/task-queue", "/task-queue?queue_name=mails&status=dead", f"/task-queue/{job}", "/costs", "/more", "/health", "/settings", "/billing", "/search?q=gulls",
            f"/organizations/{org}/api-keys", "/tasks/999", *[one.path for one in rooms.ROOMS]]


def axe():
    """The rules of accessibility, as a script."""
    place = Path(os.environ.get("ORKOSI_TEST_TOOLS", "/tmp/orkosi-tools")) / "node_modules/axe-core/axe.min.js"
    if not place.exists() and os.environ.get("ORKOSI_TESTS_SKIP") == "never":
        pytest.fail("axe-core is not installed, and no test may be skipped here")
    if not place.exists():
        pytest.skip("axe-core is not installed: npm install --prefix /tmp/orkosi-tools axe-core")
    return place.read_text()


@pytest.mark.parametrize("width, theme", [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark"), (320, "light")])
def test_every_page_is_for_everybody(company, browser, width, theme):
    """No rule of accessibility is broken, nothing hangs over the edge, and the browser has nothing to complain of."""
    script, wrong = axe(), []
    paths = everywhere(company)
    browser.size(width, theme)
    browser.seen.clear()
    for path in paths:
        go(browser, company, path)
        if (over := browser.run("document.documentElement.scrollWidth")) > width:
            wrong.append(f"{path} is {over} wide")
        if width == 320:
            continue
        browser.run(script)
        wrong += browser.run("axe.run({resultTypes: ['violations']}).then(found => found.violations.map(one => location.pathname + ' ' + one.id + ': ' + one.nodes.map(node => node.target.join(' ')).slice(0, 3)))")
    complaints = [one["entry"]["text"] for one in browser.complaints if "404" not in one.get("entry", {}).get("text", "404")]
    assert wrong == [] and complaints == []


def test_who_may_only_look_has_nothing_to_press(company, browser):
    for role in ("viewer", "demo"):
        command("user", "add", f"{role}@example.com", "--username", role, "--role", role, "--password-stdin", folder=company.folder, stdin=PASSWORD + "\n")
        browser.send("Network.clearBrowserCookies")
        browser.open(company.url + "/login")
        browser.wait("!!document.querySelector('[name=password]')")
        browser.run(f"document.querySelector('[name=email]').value = '{role}@example.com'; document.querySelector('[name=password]').value = '{PASSWORD}'; document.querySelector('main form button').click()")
        browser.wait("location.pathname === '/' && !!document.querySelector('#flow')")
        for path in ("/", "/tasks", f"/tasks/{company.tasks['Look at the letters']}", "/tasks?status=todo"):
            go(browser, company, path)
            assert browser.run("document.querySelectorAll('button[data-do], form[data-form]').length") == 0, (role, path)
