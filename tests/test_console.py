"""The console in a real browser: from the set-up link to a button and its undo, kept fresh, on a phone, and without a script."""
import http.cookiejar
import os
import re
import time
import urllib.parse
import urllib.request

import pytest
from conftest import HOME, eventually

pytestmark = pytest.mark.slow
PASSWORD = "correct horse battery"


def setup_link(running):
    return next(line for line in iter(running.process.stdout.readline, "") if "/setup/" in line).split()[-1]


def fill_in(browser, **fields):
    for name, value in fields.items():
        browser.run(f"document.querySelector('[name={name}]').value = {value!r}")
    browser.run("document.querySelector('main form button').click()")


def set_up(browser, running):
    """Follow the set-up link to the end: an administrator, logged in. The cookie, as the browser has it."""
    link = setup_link(running)
    browser.open(link)
    browser.wait("!!document.querySelector('[name=username]')")
    fill_in(browser, username="root", email="root@example.com", password=PASSWORD)
    browser.wait("location.pathname === '/' && document.title.endsWith('Now · Orkosi')")
    return link


def log_in(running):
    return running.call("POST", "/auth/login", {"email": "root@example.com", "password": PASSWORD})[1]["token"]


def test_setting_up_ends_on_the_first_page_logged_in(server, browser):
    running = server()
    link = set_up(browser, running)
    cookie, = browser.send("Network.getCookies")["cookies"]
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"], cookie["path"], cookie["secure"]) == (
        f"orkosi-{running.url.rpartition(':')[2]}", True, "Strict", "/", False)
    assert browser.run("document.cookie") == "" and "There is no task yet" in browser.run("document.body.innerText")
    assert browser.run("[...document.querySelectorAll('#first a')].map(one => one.innerText)") == ["Add an agent", "Give it a task", "Keep the recovery key"]
    browser.run("document.querySelector('form[action=\"/logout\"] button').click()")
    browser.wait("location.pathname === '/login'")
    assert browser.send("Network.getCookies")["cookies"] == []
    browser.open(link)
    browser.wait("document.body.innerText.includes('That set-up link was used')")
    fill_in(browser, email="root@example.com", password=PASSWORD)
    browser.wait("location.pathname === '/' && document.title.endsWith('Now · Orkosi')")
    assert [one["entry"]["text"] for one in browser.complaints if "404" not in one["entry"]["text"]] == []


def test_two_servers_of_one_host_do_not_log_each_other_out(server, tmp_path):
    jar = http.cookiejar.CookieJar()  # as a browser's: one for all ports of a host
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    pages = []
    for number in "ab":
        running = server(folder=tmp_path / number)
        form = {"username": "root", "email": "root@example.com", "password": PASSWORD}
        pages.append(running.url)
        assert "Log out" in browser.open(setup_link(running), urllib.parse.urlencode(form).encode()).read().decode()
    assert ["Log out" in browser.open(one).read().decode() for one in pages] == [True, True] and len(jar) == 2
    browser.open(pages[0] + "/logout", b"")
    assert ["Log out" in browser.open(one).read().decode() for one in pages] == [False, True]


def test_buttons_act_are_taken_back_and_the_page_follows_what_others_do(server, browser):
    running = server()
    set_up(browser, running)
    token = log_in(running)
    assert running.call("POST", "/agents", {"name": "felix", "role": "Builder", "display_name": "<img src=x onerror=alert(1)>"}, token)[0] == 200
    browser.wait("document.querySelector('#agent-felix')?.innerText.includes('<img src=x onerror=alert(1)>')")
    press = "document.querySelector('#agent-felix button').click()"
    browser.wait("document.querySelector('#agent-felix button').innerText === 'Pause'")
    browser.run(press)
    browser.wait("document.querySelector('#agent-felix button').innerText === 'Resume' && document.querySelector('.toast').innerText.includes('Paused')")
    assert running.call("GET", "/agents/felix", token=token)[1]["data"]["wanted"] == "paused"
    browser.run("document.querySelector('.toast button').click()")
    browser.wait("document.querySelector('#agent-felix button').innerText === 'Pause'")
    assert running.call("GET", "/agents/felix", token=token)[1]["data"]["wanted"] == "running"

    task = running.call("POST", "/tasks", {"title": "Count the gulls"}, token)[1]["data"]["id"]
    browser.wait("document.querySelector('#flow')?.innerText.replace(/\\s+/g, ' ').includes('to do 1')")
    running.call("PATCH", f"/tasks/{task}", {"status": "review"}, token)
    browser.wait(f"document.querySelector('#need-t{task}')?.innerText.includes('Count the gulls')")
    browser.run(f"document.querySelector('#need-t{task} button').focus(); document.querySelector('#need-t{task} button').click()")
    browser.wait(f"!!document.querySelector('#done-{task}')")
    assert running.call("GET", f"/tasks/{task}", token=token)[1]["data"]["status"] == "done"
    # What the API refuses is said, and the page stays as it is.
    running.call("DELETE", f"/tasks/{task}", token=token)
    browser.run("document.querySelector('.toast button').click()")
    browser.wait("document.querySelector('.toast.wrong')?.innerText.includes('There is no task')")
    others = [one["entry"]["text"] for one in browser.complaints if "404" not in one.get("entry", {}).get("text", "")]
    assert others == [] and all(url.startswith((running.url, "data:")) for url in browser.asked), browser.asked
    assert {re.sub("^.*:[0-9]+", "", url) for url in browser.asked if "cdn" in url} == set()


def test_a_page_that_hears_nothing_says_so_and_comes_back(server, browser):
    running = server()
    set_up(browser, running)
    browser.wait("document.querySelector('[data-live-sign]').innerText.trim() === 'live'")
    browser.send("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    browser.wait("document.querySelector('[data-stale]').innerText.startsWith('Not live')", patience=20)
    assert browser.run("getComputedStyle(document.querySelector('#page')).opacity < 1 || document.documentElement.classList.contains('is-stale')")
    browser.send("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    browser.wait("document.querySelector('[data-live-sign]').innerText.trim() === 'live' && document.querySelector('[data-stale]').hidden", patience=40)


def test_a_session_goes_on_past_its_half_hour_and_ends_at_the_door(server, browser):
    running = server()
    set_up(browser, running)
    token = log_in(running)
    before, = browser.send("Network.getCookies")["cookies"]
    access, refresh = before["value"].split(".")
    fresh = running.call("POST", "/auth/refresh", {"refresh_token": refresh})[1]  # what the browser holds is spent, a moment ago
    browser.wait("document.querySelector('[data-live-sign]').innerText.trim() === 'live'")
    after = eventually(lambda: [one for one in browser.send("Network.getCookies")["cookies"] if one["value"] != before["value"]])
    assert after[0]["value"] == f"{fresh['token']}.{fresh['refresh_token']}"
    running.call("POST", "/auth/logout", {"all_devices": True}, token)
    browser.wait("!!document.querySelector('[name=password]')")


@pytest.mark.parametrize("width", [390, 320, 1280])
def test_nothing_hangs_over_the_edge(server, browser, width):
    running = server()
    set_up(browser, running)
    token = log_in(running)
    running.call("POST", "/agents", {"name": "felix", "role": "Builder"}, token)
    long = "Donaudampfschifffahrtsgesellschaftskapitän" * 4
    for status in ("todo", "review", "blocked", "done"):
        task = running.call("POST", "/tasks", {"title": f"{status} {long}", "assignee": "felix", "description": long}, token)[1]["data"]["id"]
        running.call("PATCH", f"/tasks/{task}", {"status": status, "resolution": long}, token)
    running.call("POST", "/logs", {"agent": "felix", "message": long * 3}, token)
    browser.send("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
    for path in ("/", "/tasks", "/tasks?status=todo", f"/tasks/{task}", "/agents", "/agents/felix", "/agent-runs", "/task-queue", "/costs", "/more", "/logs", "/login"):
        browser.open(running.url + path)
        browser.wait("document.readyState === 'complete' && !!document.querySelector('main')")
        assert browser.run("document.documentElement.scrollWidth <= innerWidth && innerWidth") == width, path
    if width == 390:
        browser.open(running.url + "/")
        browser.wait("!!document.querySelector('#agent-felix button') && document.readyState === 'complete'")
        small = browser.run("[...document.querySelectorAll('button, .chips a')].filter(one => one.offsetParent && one.getBoundingClientRect().height < 40).map(one => one.innerText)")
        assert small == []
    assert browser.complaints == []


def test_without_a_script_all_can_be_read(server, browser):
    running = server()
    link = setup_link(running)
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(link)
    browser.wait("!!document.querySelector('[name=username]')")
    browser.send("Emulation.setScriptExecutionDisabled", value=False)  # to type; no page has been loaded with scripts
    fill_in(browser, username="root", email="root@example.com", password=PASSWORD)
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    token = eventually(lambda: running.call("POST", "/auth/login", {"email": "root@example.com", "password": PASSWORD})[1].get("token"))
    running.call("POST", "/tasks", {"title": "Count the gulls"}, token)
    running.call("POST", "/agents", {"name": "felix", "role": "Builder"}, token)
    browser.open(running.url + "/")
    browser.wait("document.body.innerText.includes('Felix')")
    browser.open(running.url + "/tasks")
    browser.wait("document.body.innerText.includes('Count the gulls')")
    assert browser.run("document.documentElement.classList.contains('scripted')") is False
    assert browser.run("[...document.querySelectorAll('button[data-do]')].every(one => getComputedStyle(one).display === 'none')")
    assert "as of" in browser.run("document.querySelector('[data-live-sign]').innerText")


def test_the_api_page_tries_operations_with_the_log_in(server, browser):
    running = server()
    set_up(browser, running)
    token = log_in(running)
    said = None
    for _ in range(4):  # a click while the page still draws itself is lost: then the person opens it again
        browser.open("about:blank")
        browser.open(running.url + "/api/docs#/Users/users.logout")
        browser.wait("!!document.querySelector('.opblock.is-open .btn.execute') && document.readyState === 'complete'")
        time.sleep(1)  # it still draws itself, and says nothing when it is done
        browser.run("document.querySelector('.opblock.is-open .btn.execute').click()")
        if said := browser.soon("[...document.querySelectorAll('.live-responses-table')].map(one => one.innerText).find(text => text.includes('logged_out'))",
                                patience=5):
            break
    assert said and '"logged_out": 1' in said, browser.run("document.querySelector('.opblock.is-open')?.innerText")
    assert [one["current"] for one in running.call("GET", "/auth/sessions", token=token)[1]["data"]] == [True], "the other session is ended"


def test_the_demo_prints_a_link_that_logs_in_once(server, browser, tmp_path):
    running = server("--demo")
    link = next(line for line in iter(running.process.stdout.readline, "") if "/login/ork_" in line).split()[1]
    browser.open(link)
    browser.wait("location.pathname === '/' && document.body.innerText.includes('Clara')")
    browser.wait("document.querySelectorAll('#flow .rows li').length > 2", patience=30)
    kept = HOME / "tests/pictures/now.png"
    if os.environ.get("ORKOSI_WRITE_PICTURES"):  # the README shows it
        browser.size(1000, "light", 620)
        browser.wait("document.querySelectorAll('#work .rows li').length > 0", patience=30)
        kept.write_bytes(browser.picture())
    assert kept.stat().st_size < 100_000 and "tests/pictures/now.png" in (HOME / "README.md").read_text()
    try:
        urllib.request.urlopen(link)
        raise AssertionError("it was good twice")
    except urllib.error.HTTPError as refused:
        assert refused.code == 404 and b"That link was used" in refused.read()


def test_a_form_shows_what_there_is_and_sends_only_what_was_changed(server, browser):
    running = server()
    set_up(browser, running)
    token = log_in(running)
    running.call("POST", "/agents", {"name": "felix"}, token)
    id = running.call("POST", "/tasks", {"title": "Gulls", "description": "old", "due_date": "2030-12-24T15:30:00Z"}, token)[1]["data"]["id"]
    field = lambda name: f"document.querySelector('#main form[data-form^=PATCH] [name={name}]')"  # noqa: E731
    task = lambda: running.call("GET", f"/tasks/{id}", None, token)[1]["data"]  # noqa: E731

    def save(**given):
        browser.run(f"{field('title')}.closest('details').open = true")
        for name, value in given.items():
            browser.run(f"{field(name)}.value = {value!r}")
        browser.run(f"{field('title')}.form.requestSubmit()")
        browser.wait(f"!{field('title')}.closest('details').open")

    browser.open(f"{running.url}/tasks/{id}")
    browser.wait(f"{field('description')}?.value === 'old'")
    save(description="NEW", priority="P0")
    browser.wait(f"{field('description')}.value === 'NEW' && {field('priority')}.value === 'P0'")
    running.call("PATCH", f"/tasks/{id}", {"description": "by another", "priority": "P3"}, token)
    browser.wait(f"{field('description')}.value === 'by another' && {field('priority')}.value === 'P3'")
    browser.run(f"{field('title')}.closest('details').open = true")
    running.call("PATCH", f"/tasks/{id}", {"description": "while it was open"}, token)
    save(title="Terns")
    now = task()
    assert (now["title"], now["description"], now["priority"], now["due_date"]) == ("Terns", "while it was open", "P3", "2030-12-24T15:30:00Z")
    save(due_date="")
    assert task()["due_date"] is None
