"""The changelog: what is in it, in which order, and a feed that every reader accepts."""
from email.utils import parsedate_to_datetime
from xml.etree import ElementTree

import pytest
from conftest import put

from orkosi import COUNTED, acting, db, now, system
from plugins import changelog

ADD = """
    INSERT INTO changelog (tenant_id, guid, task_id, title, type, priority, agent, product, summary, completed_at)
    VALUES (:home, :title, (SELECT count(*) + 100 FROM changelog), :title, 'other', 'P2', :agent, :product, :resolution, :at)"""


def add(title, agent="felix", product=None, at=None, home=1, resolution=None, times=1):
    row = {"home": home, "title": title, "agent": agent, "product": product, "at": at or now(), "resolution": resolution}
    with acting(system()):
        db.write(lambda: db.run_many(ADD, [row] * times))


def items(answer):
    return ElementTree.fromstring(answer.body).findall("channel/item")


def test_what_is_done_stays_in_the_changelog_as_it_was_done(client, as_):
    client.post("/agents", {"name": "felix"}), client.post("/agents", {"name": "ada"})
    task = client.post("/tasks", {"title": "Mend it", "assignee": "felix", "product_slug": "unosend", "priority": "P1", "type": "bug"}).data["id"]
    done = client.patch(f"/tasks/{task}", {"status": "done", "resolution": "It is mended"}).data
    entry = {"id": 1, "task_id": task, "title": "Mend it", "summary": "It is mended", "type": "bug", "area": "unosend", "product": "unosend", "agent": "felix",
             "priority": "P1", "completed_at": done["finished_at"], "guid": f"orkosi-task-{task}"}
    assert client.get("/changelog").data == [entry]
    client.patch(f"/tasks/{task}", {"title": "Other", "assignee": "ada", "product_slug": None, "priority": "P3", "resolution": "x", "type": "ops"})
    assert client.get("/changelog").data == [entry], "whatever becomes of the task"
    client.patch(f"/tasks/{task}", {"status": "todo"})
    again = client.patch(f"/tasks/{task}", {"status": "done"}).data
    second, first = client.get("/changelog").data
    assert first == entry and (second["agent"], second["guid"], second["completed_at"]) == ("ada", f"orkosi-task-{task}-2", again["finished_at"])
    assert client.get("/changelog?agent=felix").data == [entry] and client.get(f"/changelog?task_id={task}").data == [second, first]
    assert client.delete(f"/tasks/{task}").status == 200 and client.get("/changelog").data == [second, first]
    at_once = client.post("/tasks", {"title": "Was done", "status": "done"}).data
    client.post("/tasks", {"title": "Open"}), client.patch(f"/tasks/{client.post('/tasks', {'title': 'Dropped'}).data['id']}", {"status": "archived"})
    assert [one["task_id"] for one in client.get("/changelog").data] == [at_once["id"], task, task]
    assert as_("olga", tenant=None).get("/changelog").data == []


def test_a_worker_s_result_is_an_entry(client):
    client.post("/agents", {"name": "felix"})
    task = client.post("/tasks", {"title": "Count", "assignee": "felix"}).data["id"]
    job = client.post("/task-queue/claim", {"queue_name": "agent:felix", "worker_id": "w"}).data
    assert client.get("/changelog").data == []
    client.post(f"/task-queue/{job['id']}/complete", {"lease_token": job["lease_token"], "result": {"resolution": "42"}})
    found, = client.get("/changelog").data
    assert (found["task_id"], found["summary"], found["agent"]) == (task, "42", "felix")


def test_an_erased_person_is_in_no_entry(client, as_):
    ann = as_("ann")
    id = ann.get("/auth/me").data["id"]
    task = client.post("/tasks", {"title": "By hand", "assignee": "ann"}).data["id"]
    client.patch(f"/tasks/{task}", {"status": "done"})
    assert client.get("/changelog").data[0]["agent"] == "ann"
    assert client.delete(f"/users/{id}").status == 200 and client.get("/changelog").data[0]["agent"] is None


def test_the_list_narrows(client):
    add("a", agent="felix")
    add("b", agent="otto")
    id = client.get("/changelog?agent=otto").data[0]["task_id"]
    assert [one["title"] for one in client.get(f"/changelog?task_id={id}").data] == ["b"]
    assert client.get(f"/changelog?task_id={id}&agent=felix").data == []
    assert client.get("/changelog?limit=1").meta["has_more"] is True
    for query in ("limit=0", "task_id=x", "product=x"):
        assert client.get(f"/changelog?{query}").status == 400, query


def test_the_summary_is_by_day_and_area(client):
    today, before = now()[:10], now(-86400)[:10]
    for title, product in [("a", "unosend"), ("b", "unosend"), ("c", None)]:
        add(title, product=product)
    add("d", at=now(-86400))
    add("e", at="2001-01-01T00:00:00.000Z")
    answer = client.get("/changelog/summary")
    assert answer.data == [
        {"date": today, "total": 3, "summary": "3 done: 2 in unosend, 1 in general",
         "areas": [{"area": "unosend", "count": 2}, {"area": "general", "count": 1}]},
        {"date": before, "total": 1, "summary": "1 done: 1 in general", "areas": [{"area": "general", "count": 1}]}]
    assert answer.meta == {"days": 30, "since": now(-30 * 86400)[:10], "total_exceeded": False}
    assert client.get("/changelog/summary?days=0").status == 400


@pytest.mark.slow
def test_the_summary_has_an_end(client):
    add("x", times=COUNTED + 5)
    assert client.get("/changelog/summary").meta["total_exceeded"] is True


def test_the_summary_reads_an_index(data):
    plan = [row[3] for row in db.all(tuple, "EXPLAIN QUERY PLAN " + changelog.BY_DAY, since="", most=1, agent=None)]
    assert any("SEARCH changelog USING INDEX idx_changelog_by_completed_at" in step for step in plan), plan


def test_the_feed_is_rss_that_any_reader_accepts(client):
    add("Bad \x00\x08\ufffe <b>&\u2028 title", product="unosend", resolution="é\x1b[31m", at="2026-11-02T10:00:00.000Z")
    add("Other", agent="otto")
    answer = client.get("/changelog/feed")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/rss+xml; charset=utf-8")
    other, bad = items(answer)
    assert (bad.findtext("title"), bad.findtext("description")) == ("Bad  <b>&\u2028 title", "é[31m")
    assert bad.findtext("pubDate") == "Mon, 02 Nov 2026 10:00:00 GMT"
    assert parsedate_to_datetime(bad.findtext("pubDate")).year == 2026
    assert (bad.find("guid").get("isPermaLink"), bad.findtext("category")) == ("false", "unosend")
    assert other.findtext("description") == "Done by otto"


def test_the_feed_narrows(client):
    add("a", product="unosend")
    add("b", agent="otto")
    assert [item.findtext("title") for item in items(client.get("/changelog/feed?product=unosend"))] == ["a"]
    assert [item.findtext("title") for item in items(client.get("/changelog/feed?agent=otto"))] == ["b"]
    assert len(items(client.get("/changelog/feed?limit=1"))) == 1
    assert items(client.get("/changelog/feed?agent=nobody")) == []
    assert client.get("/changelog/feed?limit=201").status == 400


@pytest.mark.parametrize("role, scopes, status", [
    ("viewer", None, 200), ("demo", None, 403), (None, ("tasks:read",), 200), (None, ("agents:read",), 403)])
def test_reading_takes_a_viewer_or_a_scope(as_, key_for, role, scopes, status):
    ann = as_("ann", role) if role else key_for(*scopes)
    for path in ("", "/summary", "/feed"):
        assert ann.get("/changelog" + path).status == status


@pytest.mark.parametrize("title", ["a \x01\x0b\x1f control", "done ]]> <b>bold</b> &amp; more", "🎉 emoji \U0001f9ff and ümläuts", "x" * 290, "\u2028 and \ufffe \ud7ff", "  spaces   within  "])
def test_a_real_reader_takes_every_title_without_a_warning(client, title):
    """feedparser, which notes in `bozo` whatever is not well-formed; a text of 10 KB stands below each."""
    import feedparser
    put("changelog", id=1, tenant_id=1, guid="g1", title=title, summary=f"{title} " + "y" * 10_000, type="feature", priority="P2", completed_at="2026-11-02T10:00:00.000Z")
    found = feedparser.parse(client.get("/changelog/feed").body)
    assert not found.bozo, found.get("bozo_exception")
    entry, = found.entries
    assert entry.id == "g1" and entry.published_parsed[:5] == (2026, 11, 2, 10, 0)
    kept = "".join(char for char in title if char.isprintable() or char in "\u2028\ud7ff")
    assert [word for word in entry.title.split() if word.isascii() and word.isalnum()] == [word for word in kept.split() if word.isascii() and word.isalnum()]
    assert "y" * 1000 in entry.summary
