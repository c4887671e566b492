"""Stories of webhooks: added, listed, changed, tried, ended; and their deliveries, to a receiver that is really there."""
import pytest
from conftest import Client, Like, listed
from receiver import Receiver, send
from standardwebhooks.webhooks import Webhook as Library

from orkosi import acting, db, settings, system
from plugins.webhooks import sending

URL = "https://example.com/hook?of=orkosi"
SECRET = Like(r"whsec_[A-Za-z0-9+/]{43}=")
FRESH = {"status": "active", "paused_for": None, "failing_since": None, "last_sent_at": None, "last_response": None}
UNSENT = {"status": "waiting", "attempts": 0, "sent_at": None, "took_ms": None, "response_status": None, "response_headers": None, "response_body": None,
          "error": None}


@pytest.fixture
def nearby(data, monkeypatch):
    """This machine may be called."""
    monkeypatch.setitem(settings.values, "webhooks_private", True)


def row(id):
    return db.one(dict, "SELECT * FROM webhooks WHERE id = :id", id=id)


def rows(id):
    return db.all(dict, "SELECT * FROM webhook_deliveries WHERE webhook_id = :id ORDER BY id DESC", id=id)


def event(client, type):
    """The newest event of a type, as the log of events shows it."""
    return client.get(f"/events?after=0&type={type}").data[-1]


@pytest.mark.story("POST /api/webhooks")
def test_an_address_is_told_of_what_happens_from_now_on(client, nearby, lately):
    client.post("/tasks", {"title": "Before"})
    with Receiver((200, "thank you")) as receiver:
        made = client.post("/webhooks", {"url": receiver.url + "?a=b", "types": ["task.created", "agent.*", "task.created"], "description": "Ours"})
        id = row(made.data["id"])["id"]
        assert made.status == 201 and made.json == {"data": FRESH | {
            "id": id, "url": receiver.url + "?a=b", "types": ["task.created", "agent.*"], "description": "Ours", "secret": SECRET,
            "created_at": lately, "updated_at": lately}}
        task = client.post("/tasks", {"title": "After", "assignee": "felix"}).data["id"]
        client.patch(f"/tasks/{task}", {"title": "Not told"})
        send(id)
        (path, headers, body), = receiver.got
    said = event(client, "task.created")
    assert path == "/in?a=b" and headers["Host"] == receiver.url.split("/")[2] and headers["Content-Type"] == "application/json"
    assert Library(made.data["secret"]).verify(body, headers) == {"type": "task.created", "timestamp": said["created_at"], "data": said}
    assert said["entity_id"] == str(task) and headers["webhook-id"] == f"msg_{id}_{said['id']}"
    bare = client.post("/webhooks", {"url": URL}).data
    assert bare == FRESH | {"id": id + 1, "url": URL, "types": [], "description": "", "secret": SECRET, "created_at": lately, "updated_at": lately}
    assert bare["secret"] != made.data["secret"]


def filled(id):
    """A webhook as it is after a while: every field has something."""
    fields = {"status": "paused", "paused_for": "failing", "failing_since": "2026-11-01T10:00:00.000Z", "last_sent_at": "2026-11-04T10:00:00.000Z",
              "last_response": 503, "created_at": "2026-10-01T10:00:00.000Z", "updated_at": "2026-10-02T10:00:00.000Z"}
    db.write(lambda: db.run(f"UPDATE webhooks SET {', '.join(f'{name} = :{name}' for name in fields)} WHERE id = :id", id=id, **fields))
    return fields


@pytest.mark.story("GET /api/webhooks")
def test_webhooks_are_listed_with_how_they_stand(client):
    assert client.get("/webhooks").json == {"data": []}
    made = [client.post("/webhooks", {"url": f"{URL}&n={n}", "types": ["task.*"] * n, "description": f"No {n}"}).data for n in range(2)]
    shown = [{name: value for name, value in one.items() if name != "secret"} for one in made]
    assert client.get("/webhooks").json == {"data": shown}
    shown[1] |= filled(made[1]["id"])
    answer = client.get("/webhooks")
    assert answer.json == {"data": shown} and shown[1]["types"] == ["task.*"] and made[0]["secret"] not in answer.body.decode()


@pytest.mark.story("GET /api/webhooks/{id}")
def test_one_webhook_is_shown_without_its_secret(client, lately):
    made = client.post("/webhooks", {"url": URL, "types": ["task.done"], "description": "Ours"}).data
    fresh = FRESH | {"id": made["id"], "url": URL, "types": ["task.done"], "description": "Ours", "created_at": lately, "updated_at": lately}
    assert client.get(f"/webhooks/{made['id']}").json == {"data": fresh}
    changed = filled(made["id"])
    assert client.get(f"/webhooks/{made['id']}").data == fresh | changed
    assert client.get("/webhooks/99").status == 404


@pytest.mark.story("PATCH /api/webhooks/{id}")
def test_a_webhook_is_changed_paused_and_resumed_and_its_secret_rotated(client, nearby, lately):
    with Receiver((204, "")) as receiver:
        made = client.post("/webhooks", {"url": URL, "types": ["task.done"], "description": "Ours"}).data
        id, old = made["id"], made.pop("secret")
        db.write(lambda: db.run("UPDATE webhooks SET created_at = '2026-10-01T10:00:00.000Z', updated_at = created_at"))
        made |= {"created_at": "2026-10-01T10:00:00.000Z", "updated_at": lately}
        changed = {"url": receiver.url, "types": ["task.created"], "description": "Theirs"}
        assert client.patch(f"/webhooks/{id}", changed).json == {"data": made | changed | {"secret": None}}
        paused = client.patch(f"/webhooks/{id}", {"status": "paused"}).data
        assert paused == made | changed | {"status": "paused", "paused_for": "asked", "secret": None}
        client.post("/tasks", {"title": "Meanwhile"})
        send(id)
        assert receiver.got == [] and rows(id) == []
        fresh = client.patch(f"/webhooks/{id}", {"status": "active", "rotate_secret": True}).data
        assert fresh == made | changed | {"secret": SECRET} and fresh["secret"] != old
        send(id)
        (_, headers, body), = receiver.got
    for secret in (old, fresh["secret"]):
        assert Library(secret).verify(body, headers)["type"] == "task.created"
    assert len(headers["webhook-signature"].split()) == 2
    newer = client.patch(f"/webhooks/{id}", {"rotate_secret": True}).data["secret"]
    db.write(lambda: db.run("UPDATE webhook_secrets SET until = '2026-10-01T10:00:00.000Z' WHERE until IS NOT NULL"))
    with acting(system(1)):
        assert len(sending.secrets_of(id)) == 1 and newer != fresh["secret"]
    failing = {name: filled(id)[name] for name in ("last_sent_at", "last_response", "created_at")}
    assert client.patch(f"/webhooks/{id}", {"status": "active"}).data == made | changed | failing | {"updated_at": lately, "secret": None}
    assert row(id)["failures"] == 0 and client.get(f"/webhooks/{id}").data == made | changed | failing
    assert client.patch("/webhooks/99", {"description": "x"}).status == 404


@pytest.mark.story("DELETE /api/webhooks/{id}")
def test_a_webhook_ends_with_its_deliveries(client):
    gone, stays = (client.post("/webhooks", {"url": URL}).data["id"] for _ in range(2))
    for id in (gone, stays):
        client.post(f"/webhooks/{id}/test")
    assert client.delete(f"/webhooks/{gone}").json == {"data": {"id": gone, "deleted": True}}
    assert [one["id"] for one in client.get("/webhooks").data] == [stays] and client.get(f"/webhooks/{gone}").status == 404
    assert rows(gone) == [] and len(rows(stays)) == 1 and client.get(f"/webhooks/{gone}/deliveries").status == 404
    assert db.all(tuple, "SELECT webhook_id FROM webhook_secrets") == [(stays,)] and client.delete(f"/webhooks/{gone}").status == 404


@pytest.mark.story("POST /api/webhooks/{id}/test")
def test_a_webhook_is_tried(client, nearby, lately):
    with Receiver((200, "thank you")) as receiver:
        made = client.post("/webhooks", {"url": receiver.url, "types": ["task.done"]}).data
        tried = client.post(f"/webhooks/{made['id']}/test")
        kept, = rows(made["id"])
        assert tried.status == 201 and tried.json == {"data": UNSENT | {
            "id": kept["id"], "webhook_id": made["id"], "event_id": None, "message_id": Like("msg_test_[0-9a-f]{16}"), "type": "webhook.test",
            "due_at": lately, "created_at": lately}}
        send(made["id"])
        (_, headers, body), = receiver.got
    assert Library(made["secret"]).verify(body, headers) == {"type": "webhook.test", "timestamp": lately, "data": {"webhook_id": made["id"]}}
    assert headers["webhook-id"] == tried.data["message_id"] == kept["message_id"]
    now = client.get(f"/webhooks/{made['id']}").data
    assert now == {name: value for name, value in made.items() if name != "secret"} | {"last_sent_at": lately, "last_response": 200}
    client.patch(f"/webhooks/{made['id']}", {"status": "paused"})
    assert client.post(f"/webhooks/{made['id']}/test").status == 409 and client.post("/webhooks/99/test").status == 404


@pytest.mark.story("GET /api/webhooks/{id}/deliveries")
def test_deliveries_are_listed_with_what_they_were_answered(client, nearby, lately):
    with Receiver((503, "x" * 5000), (200, "thank you")) as receiver:
        id = client.post("/webhooks", {"url": receiver.url, "types": ["task.created"]}).data["id"]
        other = client.post("/webhooks", {"url": URL}).data["id"]
        for title in ("One", "Two"):
            client.post("/tasks", {"title": title})
        send(id)
        db.write(lambda: db.run("UPDATE webhooks SET held_until = NULL"))
        send(id)
    events = client.get("/events?after=0&type=task.created").data
    shown = []
    for one, said, more in zip(rows(id), reversed(events), (
            {"status": "delivered", "response_status": 200, "response_body": "thank you", "error": None, "due_at": lately(5)},
            {"status": "waiting", "response_status": 503, "response_body": "x" * 4096, "error": "it answered 503", "due_at": lately(5)}), strict=True):
        size = "9" if more["response_status"] == 200 else "5000"
        shown.append({"id": one["id"], "webhook_id": id, "event_id": said["id"], "message_id": f"msg_{id}_{said['id']}", "type": "task.created", "attempts": 1,
                      "sent_at": lately, "took_ms": one["took_ms"], "response_headers": {"X-Of": "the receiver", "Content-Length": size},
                      "created_at": lately} | more)
    assert all(0 < one["took_ms"] < 2000 for one in rows(id))
    assert listed(client, f"/webhooks/{id}/deliveries", shown)
    assert listed(client, f"/webhooks/{id}/deliveries?status=delivered", shown[:1]) and listed(client, f"/webhooks/{id}/deliveries?status=dead", [])
    assert client.get(f"/webhooks/{other}/deliveries").data == [] and client.get("/webhooks/99/deliveries").status == 404


@pytest.mark.story("POST /api/webhooks/{id}/deliveries/{deliveryId}/replay")
def test_a_delivery_is_sent_again_under_the_name_it_had(client, nearby, lately):
    with Receiver((500, "no"), (200, "thank you")) as receiver:
        id = client.post("/webhooks", {"url": receiver.url}).data["id"]
        first = client.post(f"/webhooks/{id}/test").data
        path = f"/webhooks/{id}/deliveries/{first['id']}/replay"
        assert client.post(path).status == 409
        send(id)
        db.write(lambda: db.run("UPDATE webhook_deliveries SET status = 'dead', event_id = 7"))
        db.write(lambda: db.run("UPDATE webhooks SET held_until = NULL"))
        dead, = rows(id)
        again = client.post(path)
        assert again.status == 202 and again.json == {"data": first | {
            "event_id": 7, "attempts": 1, "due_at": lately, "sent_at": dead["sent_at"], "took_ms": dead["took_ms"], "response_status": 500,
            "response_headers": {"X-Of": "the receiver", "Content-Length": "2"}, "response_body": "no", "error": "it answered 500"}}
        assert rows(id)[0]["status"] == "waiting"
        send(id)
    now, = client.get(f"/webhooks/{id}/deliveries").data
    assert [now[name] for name in ("status", "attempts", "response_body", "error")] == ["delivered", 2, "thank you", None]
    assert [headers["webhook-id"] for _, headers, _ in receiver.got] == [first["message_id"]] * 2
    assert client.post(f"/webhooks/{id}/deliveries/99/replay").status == 404 and client.post("/webhooks/99/deliveries/1/replay").status == 404


def test_another_tenant_and_keys_have_what_they_have(client, as_, key_for, application):
    id = client.post("/webhooks", {"url": URL}).data["id"]
    number = client.post(f"/webhooks/{id}/test").data["id"]
    stranger = as_("eve", "admin", tenant=None)
    assert stranger.get("/webhooks").data == []
    for method, path, body in (("GET", "", None), ("PATCH", "", {"description": "x"}), ("DELETE", "", None), ("POST", "/test", None), ("GET", "/deliveries", None),
                               ("POST", f"/deliveries/{number}/replay", None)):
        assert stranger.request(method, f"/webhooks/{id}{path}", body).status == 404
        assert as_(f"m{method}{path[1:5]}".lower(), "member").request(method, f"/webhooks/{id}{path}", body).status == 403
    assert key_for("webhooks:read").get("/webhooks").status == 200 and key_for("webhooks:read").post(f"/webhooks/{id}/test").status == 403
    assert key_for("webhooks:write").post(f"/webhooks/{id}/test").status == 201 and key_for("webhooks:write", role="editor").post(f"/webhooks/{id}/test").status == 403
    assert Client(application).get("/webhooks").status == 401
