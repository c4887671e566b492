"""Notifications: who sees which, what is read, and where a link may lead."""
import pytest
from conftest import Client

from orkosi import acting, db, system
from plugins import keys, notifications

NEW = {"title": "Backup failed", "message": "The disk is full"}


@pytest.mark.parametrize("body, status", [
    (NEW, 201),
    (NEW | {"type": "error", "source": "backups", "link": "/backups"}, 201),
    (NEW | {"link": "https://example.com/a?b=c#d"}, 201),
    (NEW | {"link": "/"}, 201),
    (NEW | {"link": "//evil.example"}, 400),
    (NEW | {"link": "/\\evil.example"}, 400),
    (NEW | {"link": "javascript:alert(1)"}, 400),
    (NEW | {"link": "https://user@evil.example/"}, 400),
    (NEW | {"link": "tasks/4"}, 400),
    (NEW | {"link": "/tasks\n"}, 400),
    (NEW | {"link": ""}, 400),
    (NEW | {"type": "loud"}, 400),
    (NEW | {"title": ""}, 400),
    (NEW | {"user_id": 3}, 400),
    ({"title": "x"}, 400),
])
def test_notifying_everybody(client, body, status):
    assert client.post("/notifications", body).status == status


def test_one_sees_ones_own_and_everybodys(client, as_):
    ann, bob = as_("ann", "viewer"), as_("bob", "viewer")
    ann_id = ann.get("/auth/me").data["id"]
    notifications.notify("For all", "x")
    mine = notifications.notify("For Ann", "x", user_id=ann_id)
    assert [one["title"] for one in ann.get("/notifications").data] == ["For Ann", "For all"]
    assert [one["title"] for one in bob.get("/notifications").data] == ["For all"]
    assert (ann.get("/notifications/unread-count").data["count"], bob.get("/notifications/unread-count").data["count"]) == (2, 1)
    assert bob.patch(f"/notifications/{mine.id}/read").status == 404
    assert bob.patch("/notifications/read-all").data == {"success": True, "updated": 1}
    assert ann.get("/notifications/unread-count").data == {"count": 2, "count_exceeded": False}
    assert [one["read"] for one in ann.get("/notifications").data] == [False, False] and bob.get("/notifications").data[0]["read"] is True


def test_another_tenants_are_not_there(client, as_):
    made = client.post("/notifications", NEW).data
    olga = as_("olga", tenant=None)
    assert olga.get("/notifications").data == []
    assert olga.patch(f"/notifications/{made['id']}/read").status == 404
    assert olga.patch("/notifications/read-all").data["updated"] == 0


def test_reading_twice_changes_nothing(client):
    id = client.post("/notifications", NEW).data["id"]
    first = client.patch(f"/notifications/{id}/read").data
    assert first["read"] and first["read_at"]
    assert client.patch(f"/notifications/{id}/read").data == first
    assert client.patch("/notifications/999/read").status == 404


def test_each_reads_for_themselves_and_every_mark_keeps_its_time(client, as_, monkeypatch):
    ann, bob = as_("ann", "viewer"), as_("bob", "viewer")
    made = [client.post("/notifications", NEW).data["id"] for _ in range(4)]
    times = iter(f"2026-12-01T10:00:0{second}.000Z" for second in range(9))
    monkeypatch.setattr(notifications, "now", lambda: next(times))
    ann.patch(f"/notifications/{made[1]}/read"), ann.patch("/notifications/read-all")
    marked = {one["id"]: one["read_at"] for one in ann.get("/notifications?read=true").data}
    assert marked == {made[1]: "2026-12-01T10:00:00.000Z"} | dict.fromkeys((made[0], made[2], made[3]), marked[made[0]]) and len(set(marked.values())) == 2
    later = notifications.notify("Later", "x").id
    assert [one["id"] for one in ann.get("/notifications?read=false").data] == [later]
    ann.patch("/notifications/read-all")
    again = {one["id"]: one["read_at"] for one in ann.get("/notifications?read=true").data}
    assert again.pop(later) > max(marked.values()) and again == marked
    assert bob.get("/notifications/unread-count").data["count"] == 5 and bob.get("/notifications?read=true").data == []


def test_the_list_narrows_by_what_is_read_and_by_type(client):
    first = client.post("/notifications", NEW).data["id"]
    client.post("/notifications", NEW | {"type": "success"})
    client.patch(f"/notifications/{first}/read")
    assert [one["type"] for one in client.get("/notifications?read=false").data] == ["success"]
    assert [one["id"] for one in client.get("/notifications?read=true&type=info").data] == [first]
    for query in ("read=maybe", "type=loud", "limit=201", "offset=-1", "unknown=1"):
        assert client.get(f"/notifications?{query}").status == 400, query


@pytest.mark.parametrize("role, listing, sending", [("viewer", 200, 403), ("member", 200, 201), ("demo", 403, 403)])
def test_who_may_do_what(as_, role, listing, sending):
    ann = as_("ann", role)
    assert (ann.get("/notifications").status, ann.post("/notifications", NEW).status) == (listing, sending)


def test_an_agents_key_neither_notifies_nor_reads(application):
    felix = Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])
    assert (felix.post("/notifications", NEW).status, felix.get("/notifications").status) == (403, 403)


def test_the_count_of_unread_is_bounded(client):
    def fill():
        db.run_many("INSERT INTO notifications (tenant_id, title, message, created_at) VALUES (:home, 't', 'm', '')",
                    [{"home": 1}] * 10_050)
    with acting(system()):
        db.write(fill)
    assert client.get("/notifications/unread-count").data == {"count": 10_000, "count_exceeded": True}
