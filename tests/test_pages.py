"""The pages, in a real browser, under their own content policy, asking nobody but this server."""
import email
import email.policy
import json
import re
import time

import pytest
from conftest import eventually


@pytest.mark.slow
def test_the_api_page_shows_and_tries_the_operations(server, browser):
    running = server()
    said = None
    for _ in range(4):  # a click while the page still draws itself is lost: then the person opens it again
        browser.open("about:blank")
        browser.open(running.url + "/api/docs#/Health/health.version")
        browser.wait("!!document.querySelector('.opblock.is-open .btn.execute') && document.readyState === 'complete'")
        time.sleep(1)  # it still draws itself, and says nothing when it is done
        browser.run("document.querySelector('.opblock.is-open .btn.execute').click()")
        if said := browser.soon("[...document.querySelectorAll('.live-responses-table')].map(one => one.innerText)"
                                ".find(text => text.includes('uptime'))", patience=5):
            break
    assert said, browser.run("document.querySelector('.opblock.is-open')?.innerText")
    assert '"version"' in said and running.url + "/api/version" in browser.asked
    assert browser.complaints == []
    assert all(url.startswith((running.url, "data:", "blob:")) for url in browser.asked), browser.asked


def mailed(running, kind, number=1):
    """The newest link of a kind in the outbox, once there are that many."""
    def links():
        texts = [email.message_from_bytes(file.read_bytes(), policy=email.policy.default).get_body(("plain",)).get_content()
                 for file in sorted((running.folder / "outbox").glob("*.eml"))]
        found = [link for text in texts for link in re.findall(rf"https?://\S+/{kind}/\S+", text)]
        return found if len(found) >= number else None
    return eventually(links)[-1]


def fill_in(browser, link, said, form=0, **fields):
    browser.open("about:blank")
    browser.open(link)
    browser.wait("!!document.querySelector('form') && document.readyState === 'complete'")
    browser.run(f"""{{ const form = document.forms[{form}];
        for (const [name, value] of Object.entries({json.dumps(fields)})) form.querySelector(`[name=${{name}}]`).value = value;
        for (const box of form.querySelectorAll("[type=checkbox]")) box.checked = true;
        form.querySelector("button").click(); }}""")
    browser.wait(f"document.forms[{form}].querySelector('[role=status]').innerText.includes({said!r})")


@pytest.mark.slow
def test_mailed_links_lead_to_pages_that_do_what_they_say(server, browser):
    running = server()
    admin = server.admin(running)
    org = running.call("POST", "/organizations", {"name": "Acme"}, admin)[1]["data"]["id"]
    running.call("POST", f"/organizations/{org}/invites", {"email": "ann@example.com"}, admin)
    fill_in(browser, mailed(running, "invite"), "Welcome", username="Ann", email="ann@example.com", password="correct horse battery")
    team = running.call("POST", "/teams", {"name": "Crew"}, admin)[1]["data"]["id"]
    running.call("POST", f"/teams/{team}/invites", {"email": "ann@example.com"}, admin)
    fill_in(browser, mailed(running, "invite", 2), "You are in", form=1, email="ann@example.com", password="correct horse battery")
    assert running.call("GET", f"/teams/{team}", token=admin)[1]["data"]["member_count"] == 2

    running.call("POST", "/auth/forgot-password", {"email": "ann@example.com"})
    link = mailed(running, "reset")
    fill_in(browser, link, "Done", password="another horse battery")
    fill_in(browser, link, "used or expired", password="a third horse battery")
    status, answer = running.call("POST", "/auth/login", {"email": "ann@example.com", "password": "another horse battery"})
    assert status == 200
    running.call("POST", "/auth/change-email", {"email": "anna@example.com", "password": "another horse battery"}, answer["token"])
    fill_in(browser, mailed(running, "verify"), "Done")
    assert running.call("GET", "/auth/me", token=answer["token"])[1]["data"]["email"] == "anna@example.com"
    assert running.call("GET", f"/organizations/{org}", token=answer["token"])[1]["data"]["role"] == "member"
    assert "Content Security Policy" not in str(browser.complaints)
    assert all(url.startswith((running.url, "data:", "about:")) for url in browser.asked), browser.asked
