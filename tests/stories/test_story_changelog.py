"""Stories of the changelog: what got done, as a list, by day, and as a feed."""
from xml.etree import ElementTree

import pytest
from conftest import listed, put

from orkosi import now
from plugins import server


def done(id, home=1, **fields):
    """An entry as it is stored, and as the changelog shows it."""
    shown = {"title": f"Task {id}", "summary": f"Did {id}", "type": "bug", "product": "shop", "agent": "felix", "priority": "P1",
             "completed_at": f"2026-11-0{id}T10:00:00.000Z"} | fields
    shown = {"task_id": id + 70, "guid": f"orkosi-task-{id + 70}"} | shown
    put("changelog", id=id, tenant_id=home, **shown)
    return shown | {"id": id, "area": shown["product"] or "general"}


@pytest.mark.story("GET /api/changelog")
def test_what_got_done_is_listed_the_latest_first(client):
    one = done(1)
    two = done(2, completed_at="2026-11-09T10:00:00.000Z", product=None, agent=None, type="ops", priority="P0", summary=None)
    three = done(3, agent="ada")
    done(5, home=2)
    assert listed(client, "/changelog", [two, three, one])
    for query, found in [("agent=felix", [one]), ("task_id=73", [three]), ("task_id=73&agent=felix", []), ("task_id=3", []), ("agent=nobody", [])]:
        assert listed(client, f"/changelog?{query}", found)


@pytest.mark.story("GET /api/changelog/summary")
def test_the_summary_counts_each_day_by_area(client):
    for id, (ago, product) in enumerate([(0, "shop"), (0, None), (0, "shop"), (86400, None), (3 * 86400, "bank"), (40 * 86400, "old")], 1):
        done(id, product=product, completed_at=now(-ago))
    done(7, home=2, completed_at=now())
    day = lambda ago: now(-86400 * ago)[:10]  # noqa: E731
    days = [{"date": day(0), "total": 3, "summary": "3 done: 2 in shop, 1 in general", "areas": [{"area": "shop", "count": 2}, {"area": "general", "count": 1}]},
            {"date": day(1), "total": 1, "summary": "1 done: 1 in general", "areas": [{"area": "general", "count": 1}]},
            {"date": day(3), "total": 1, "summary": "1 done: 1 in bank", "areas": [{"area": "bank", "count": 1}]},
            {"date": day(40), "total": 1, "summary": "1 done: 1 in old", "areas": [{"area": "old", "count": 1}]}]
    for query, back, found in [("", 30, days[:3]), ("?days=2", 2, days[:2]), ("?days=366", 366, days)]:
        meta = {"days": back, "since": day(back), "total_exceeded": False}
        assert client.get(f"/changelog/summary{query}").json == {"data": found, "meta": meta}, query


@pytest.mark.story("GET /api/changelog/feed")
def test_the_feed_has_the_same_entries_as_rss(client):
    done(1), done(2, agent="ada", product=None, summary=None), done(3, agent=None, product="bank", summary=None, title="<b> & co", task_id=None, guid="orkosi-product-bank-1")
    assert client.get("/changelog/feed?after=garbage").status == 400
    rest = client.get(f"/changelog/feed?after={client.get('/changelog?limit=2').json['meta']['next_after']}").body.decode()
    assert rest.count("<item>") == 1 and "Task 1" in rest
    answer = client.get("/changelog/feed")
    assert answer.headers["Content-Type"] == "application/rss+xml; charset=utf-8"
    root, home = ElementTree.fromstring(answer.body), server.url()
    assert (root.tag, root.attrib) == ("rss", {"version": "2.0"})
    told = lambda one: [(part.tag, part.text) for part in one if part.tag != "item"]  # noqa: E731
    assert told(root.find("channel")) == [("title", "Orkosi changelog"), ("link", home), ("description", "What got done"),
                                          ("lastBuildDate", "Tue, 03 Nov 2026 10:00:00 GMT")]
    entry = lambda link, guid, title, date, area, text: [  # noqa: E731
        ("title", title), ("link", link), ("guid", guid), ("pubDate", f"{date} Nov 2026 10:00:00 GMT"), ("category", area), ("description", text)]
    entries = [entry(home, "orkosi-product-bank-1", "<b> & co", "Tue, 03", "bank", "Done"),
               entry(f"{home}/tasks/72", "orkosi-task-72", "Task 2", "Mon, 02", "general", "Done by ada"),
               entry(f"{home}/tasks/71", "orkosi-task-71", "Task 1", "Sun, 01", "shop", "Did 1")]
    for query, found in [("", entries), ("?limit=2", entries[:2]), ("?agent=ada", entries[1:2]), ("?product=shop", entries[2:]), ("?product=shop&agent=ada", [])]:
        assert [told(one) for one in ElementTree.fromstring(client.get(f"/changelog/feed{query}").body).iter("item")] == found
