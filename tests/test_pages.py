"""The pages, in a real browser, under their own content policy, asking nobody but this server."""
import pytest
from browser import Browser


@pytest.fixture
def browser(tmp_path):
    made = Browser(tmp_path / "profile")
    yield made
    made.close()


def test_the_api_page_shows_and_tries_the_operations(server, browser):
    running = server()
    browser.open(running.url + "/api/docs#/Health/health.version")
    browser.wait("document.querySelectorAll('.opblock').length > 0")
    browser.wait("!!document.querySelector('.opblock.is-open .btn.execute')")
    browser.run("document.querySelector('.opblock.is-open .btn.execute').click()")
    said = browser.wait("[...document.querySelectorAll('.live-responses-table')].map(one => one.innerText).find(text => text.includes('uptime'))")
    assert '"version"' in said and running.url + "/api/version" in browser.asked
    assert browser.complaints == []
    assert all(url.startswith((running.url, "data:", "blob:")) for url in browser.asked), browser.asked


def test_the_first_page_says_what_this_is(server, browser):
    running = server()
    browser.open(running.url + "/")
    assert browser.wait("document.querySelector('[data-state]')?.innerText.startsWith('ok') && document.title") == "Orkosi"
    assert browser.complaints == [] and all(url.startswith((running.url, "data:")) for url in browser.asked)


def test_the_set_up_link_makes_the_administrator_once(server, browser):
    running = server()
    line = next(line for line in iter(running.process.stdout.readline, "") if "/setup/" in line)
    link = line.split()[-1]
    for said in ("Done", "used or expired"):
        browser.open("about:blank")
        browser.open(link)
        browser.wait("!!document.querySelector('form') && document.readyState === 'complete'")
        browser.run("""for (const [name, value] of Object.entries({username: "Ann", email: "ann@example.com", password: "correct horse battery"}))
                         document.querySelector(`[name=${name}]`).value = value;
                       document.querySelector("button").click()""")
        browser.wait(f"document.querySelector('[role=status]').innerText.includes({said!r})")
    status, answer = running.call("POST", "/auth/login", {"email": "ann@example.com", "password": "correct horse battery"})
    assert status == 200 and answer["user"]["role"] == "admin"
