"""Stories of notifications: what one is told, what is read, and how much waits."""
import pytest
from conftest import db, listed, put


def note(id, home=1, **fields):
    """A notification as it is stored, and as it is shown."""
    shown = {"title": f"Title {id}", "message": f"Message {id}", "type": "info", "source": "backups", "link": f"/backups/{id}", "user_id": None,
             "read": False, "read_at": None, "created_at": f"2026-11-02T10:00:0{id}.000Z"} | fields
    put("notifications", **shown | {"id": id, "tenant_id": home, "read": int(shown["read"])})
    return {"id": id} | shown


@pytest.fixture
def notes(as_):
    """Ann, and what stands in the table: hers, everybody's, another's, another tenant's."""
    ann = as_("ann", "viewer")
    ann.id = ann.get("/auth/me").data["id"]
    ann.notes = [note(1), note(2, type="error", source=None, link=None, read=True, read_at="2026-11-02T11:00:00.000Z"),
                 note(3, type="warning", user_id=ann.id), note(4, type="success")]
    note(5, user_id=ann.id + 1)
    note(6, home=2)
    return ann


@pytest.mark.story("GET /api/notifications")
def test_one_is_shown_ones_own_and_everybodys(notes):
    first, second, own, fourth = notes.notes
    assert listed(notes, "/notifications", [fourth, own, second, first])
    for query, found in [("read=true", [second]), ("read=false", [fourth, own, first]), ("type=warning", [own]), ("type=error&read=false", [])]:
        assert listed(notes, f"/notifications?{query}", found)


@pytest.mark.story("GET /api/notifications/unread-count")
def test_what_waits_is_counted(notes):
    assert notes.get("/notifications/unread-count").json == {"data": {"count": 3, "count_exceeded": False}}
    db.write(lambda: db.run_many("INSERT INTO notifications (tenant_id, title, message, created_at) VALUES (1, 't', 'm', :at)", [{"at": "2026"}] * 9_998))
    assert notes.get("/notifications/unread-count").json == {"data": {"count": 10_000, "count_exceeded": True}}


@pytest.mark.story("PATCH /api/notifications/{id}/read")
def test_one_is_read_and_the_others_are_not(notes, lately):
    own = notes.notes[2]
    assert notes.patch("/notifications/3/read").json == {"data": own | {"read": True, "read_at": lately}}
    again = notes.patch("/notifications/3/read").data
    assert [again] == [one for one in notes.get("/notifications?read=true").data if one["id"] == 3]
    assert notes.patch("/notifications/2/read").data == notes.notes[1], "when it was read the first time, it was"
    assert [one["id"] for one in notes.get("/notifications?read=false").data] == [4, 1]


@pytest.mark.story("PATCH /api/notifications/read-all")
def test_all_that_one_sees_is_read_at_once(notes, lately):
    assert notes.patch("/notifications/read-all").json == {"data": {"success": True, "updated": 3}}
    assert [one["read_at"] for one in notes.get("/notifications").data] == [lately, lately, "2026-11-02T11:00:00.000Z", lately]
    assert notes.patch("/notifications/read-all").data == {"success": True, "updated": 0}
    assert db.all(tuple, "SELECT id FROM notifications WHERE read = 0 AND :tenant") == [(1,), (4,), (5,), (6,)], "what is for all, each reads for themselves"
    note(7)
    assert [(one["id"], one["read"]) for one in notes.get("/notifications?read=false").data] == [(7, False)]
    notes.patch("/notifications/read-all"), note(8, user_id=notes.id)
    assert notes.get("/notifications/unread-count").data["count"] == 1 and notes.patch("/notifications/read-all").data["updated"] == 1


@pytest.mark.story("POST /api/notifications")
def test_a_notification_is_what_was_sent_and_for_everybody(client, as_, lately):
    full = {"title": "Backup failed", "message": "The disk is full", "type": "error", "source": "backups", "link": "https://example.com/a"}
    made = client.post("/notifications", full)
    assert (made.status, made.json) == (201, {"data": full | {"id": made.data["id"], "user_id": None, "read": False, "read_at": None, "created_at": lately}})
    bare = client.post("/notifications", {"title": "Hi", "message": "there"}).data
    assert bare == {"id": made.data["id"] + 1, "title": "Hi", "message": "there", "type": "info", "source": None, "link": None, "user_id": None,
                    "read": False, "read_at": None, "created_at": lately}
    assert as_("ann").get("/notifications").data == [bare, made.data]
