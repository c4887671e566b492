"""Webhooks: what is refused, what is signed, whose they are."""
import json
import socket
import threading

import pytest
from receiver import Receiver, send
from standardwebhooks.webhooks import Webhook as Library

from orkosi import acting, db, seconds, settings, system
from plugins import webhooks
from plugins.vault import canaries
from plugins.webhooks import sending

URL = "https://example.com/hook"


@pytest.mark.parametrize("body, field", [
    ({"url": "http://example.com/"}, "url"), ({"url": "https://u:p@example.com/"}, "url"), ({"url": "https://example.com/#a"}, "url"),
    ({"url": "https://example.com:0/"}, "url"), ({"url": "https://example.com/" + "x" * 2000}, "url"), ({"url": "https://127.0.0.1/"}, "url"),
    ({"url": "https://[::ffff:169.254.169.254]/"}, "url"), ({"url": URL, "types": ["task"]}, "types"), ({"url": URL, "typos": []}, "typos"),
])
def test_what_is_refused_names_its_field(client, body, field):
    answer = client.post("/webhooks", body)
    assert answer.status == 400
    assert field in answer.error["message"] or field in str(answer.error["details"])


def test_a_secret_is_shown_once_and_rotated_with_a_grace(client):
    made = client.post("/webhooks", {"url": URL, "types": ["task.*"]}).data
    assert made["secret"].startswith("whsec_")
    assert "secret" not in client.get(f"/webhooks/{made['id']}").data
    fresh = client.patch(f"/webhooks/{made['id']}", {"rotate_secret": True}).data["secret"]
    assert fresh != made["secret"]
    assert client.patch(f"/webhooks/{made['id']}", {"description": "x"}).data["secret"] is None
    with webhooks_of(1):
        keys = webhooks.secrets_of(made["id"])
    moment = int(sending.time.time())
    headers = {"webhook-id": "m", "webhook-timestamp": str(moment), "webhook-signature": sending.signed(keys, "m", moment, b"{}")}
    for secret in (made["secret"], fresh):
        assert Library(secret).verify(b"{}", headers) == {}


def webhooks_of(tenant):
    return acting(system(tenant))


def test_an_event_becomes_one_delivery_and_events_of_webhooks_none(client):
    id = client.post("/webhooks", {"url": URL}).data["id"]
    task = client.post("/tasks", {"title": "One", "assignee": "nobody"}).data["id"]
    with webhooks_of(1):
        sending.advance(id)
        sending.advance(id)
    found = [one["type"] for one in client.get(f"/webhooks/{id}/deliveries").data]
    assert found.count("task.created") == 1 and not any(type.startswith("webhook.") for type in found), task
    assert client.get(f"/webhooks/{id}/deliveries?status=dead").data == []


def test_a_secret_is_blotted_out_of_logs_and_texts(client):
    secret = client.post("/webhooks", {"url": URL}).data["secret"]
    client.post("/logs", {"agent": "felix", "message": f"signing with {secret} now", "level": "info"})
    task = client.post("/tasks", {"title": "Look", "description": f"It is {secret}"}).data
    assert task["description"] == "It is whsec_[secret 1 of webhook 1]"
    assert secret[6:] not in client.get("/logs").body.decode() and "[secret 1 of webhook 1]" in client.get("/logs").body.decode()
    assert secret[6:] not in canaries.blotted_text(f"an error with {secret}")
    fresh = client.patch("/webhooks/1", {"rotate_secret": True}).data["secret"]
    assert [canaries.blotted_text(one) for one in (secret, fresh)] == ["whsec_[secret 1 of webhook 1]", "whsec_[secret 2 of webhook 1]"]
    client.delete("/webhooks/1")
    assert canaries.blotted_text(fresh) == fresh


# ── to a receiver that is really there ──


@pytest.fixture
def nearby(data, monkeypatch):
    """This machine may be called."""
    monkeypatch.setitem(settings.values, "webhooks_private", True)


def row(id):
    return db.one(dict, "SELECT * FROM webhooks WHERE id = :id", id=id)


def states(client, id):
    return [one["status"] for one in client.get(f"/webhooks/{id}/deliveries").data][::-1]


def later(seconds):
    """As if so much time had passed for everything that waits."""
    ago = lambda name: f"strftime('%Y-%m-%dT%H:%M:%fZ', {name}, '-{seconds} seconds')"  # noqa: E731
    db.write(lambda: db.run(f"UPDATE webhook_deliveries SET due_at = {ago('due_at')}, first_sent_at = {ago('first_sent_at')}"))
    db.write(lambda: db.run(f"UPDATE webhooks SET held_until = {ago('held_until')}, failing_since = {ago('failing_since')}"))


def titles(receiver):
    return [(said["type"], said["data"]["entity_id"]) for said in (json.loads(body) for _, _, body in receiver.got)]


def test_after_a_failure_each_thing_goes_on_in_its_own_order(client, nearby):
    with Receiver((500, "no"), (200, "")) as receiver:
        id = client.post("/webhooks", {"url": receiver.url, "types": ["task.*"]}).data["id"]
        a, b = (str(client.post("/tasks", {"title": title}).data["id"]) for title in "AB")
        client.patch(f"/tasks/{a}", {"title": "A again"})
        send(id)
        send(id)
        assert titles(receiver) == [("task.created", a)] and row(id)["failures"] == 1 and row(id)["failing_since"]
        later(2)  # the webhook may be called again; the delivery that failed is not due
        send(id)
        assert titles(receiver)[1:] == [("task.created", b)] and row(id)["failures"] == 0 and row(id)["failing_since"] is None
        later(5)
        send(id)
        assert titles(receiver)[2:] == [("task.created", a), ("task.updated", a)] and states(client, id) == ["delivered"] * 3
        assert receiver.got[0][1]["webhook-id"] == receiver.got[2][1]["webhook-id"]
        assert client.get(f"/webhooks/{id}/deliveries").data[-1]["attempts"] == 2


def test_a_410_pauses_at_once_and_resuming_goes_on(client, nearby):
    with Receiver((410, "gone"), (200, "")) as receiver:
        id = client.post("/webhooks", {"url": receiver.url, "types": ["task.created"]}).data["id"]
        for title in ("One", "Two"):
            client.post("/tasks", {"title": title})
        send(id)
        later(100)
        send(id)
        seen = client.get(f"/webhooks/{id}").data
        assert (seen["status"], seen["paused_for"], seen["last_response"]) == ("paused", "gone", 410) and len(receiver.got) == 1
        assert [one["title"] for one in client.get("/dashboard/needs").data["needs"] if one["kind"] == "webhook"] == ["The webhook to 127.0.0.1 is paused"]
        assert "webhook.paused" in [one["action"] for one in client.get("/activity-log").data]
        client.post("/tasks", {"title": "Meanwhile"})
        client.patch(f"/webhooks/{id}", {"status": "active"})
        send(id)
        assert titles(receiver)[1:] == [("task.created", str(number)) for number in (1, 2, 3)] and states(client, id) == ["delivered"] * 3
        assert not [one for one in client.get("/dashboard/needs").data["needs"] if one["kind"] == "webhook"]


def test_down_for_three_days_ends_dead_and_paused_and_is_replayed(client, nearby):
    receiver = Receiver((200, "well again"))
    receiver.__exit__()
    id = client.post("/webhooks", {"url": receiver.url, "types": ["task.created"]}).data["id"]
    client.post("/tasks", {"title": "One"})
    passed, waits = 0, []
    send(id)
    while states(client, id) == ["waiting"]:
        one, = client.get(f"/webhooks/{id}/deliveries").data
        waits.append(seconds(one["due_at"]) - seconds(one["sent_at"]))
        assert "does not answer" in one["error"] and row(id)["status"] == "active"
        later(waits[-1] + 0.01), send(id)
        passed += waits[-1]
    assert waits[:5] == pytest.approx([5, 15, 60, 240, 960], rel=0.1) and waits[-2:] == [28800] * 2 and passed >= 3 * 86400 > passed - 28800, waits
    assert states(client, id) == ["dead"] and client.get(f"/webhooks/{id}").data["paused_for"] == "failing"
    client.post("/tasks", {"title": "Two"})
    send(id)
    assert states(client, id) == ["dead"] and client.get(f"/webhooks/{id}/deliveries?status=dead").meta["total"] == 1
    dead, = client.get(f"/webhooks/{id}/deliveries").data
    with receiver.again():
        client.patch(f"/webhooks/{id}", {"status": "active"})
        assert client.post(f"/webhooks/{id}/deliveries/{dead['id']}/replay").status == 202
        send(id)
        assert states(client, id) == ["delivered"] * 2 and [headers["webhook-id"] for _, headers, _ in receiver.got][0] == dead["message_id"]
        assert titles(receiver) == [("task.created", "1"), ("task.created", "2")]


def test_a_redirect_is_not_followed(client, nearby):
    with Receiver((200, "")) as other, Receiver((302, "", {"Location": "http://169.254.169.254/latest/meta-data/"}), (307, "", {"Location": other.url})) as receiver:
        id = client.post("/webhooks", {"url": receiver.url}).data["id"]
        for status in (302, 307):
            client.post(f"/webhooks/{id}/test"), later(4), send(id)
            one = client.get(f"/webhooks/{id}/deliveries").data[0]
            assert (one["status"], one["response_status"], one["error"]) == ("waiting", status, f"it answered {status}")
        assert len(receiver.got) == 2 and other.got == []


@pytest.mark.slow
def test_a_receiver_that_drips_a_byte_a_second_ends_after_ten(client, nearby):
    server, stop = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def drip():
        sock, _ = server.accept()
        with sock:
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n":
                if stop.wait(1):
                    return
                try:
                    sock.sendall(bytes([byte]))
                except OSError:
                    return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    with server:
        id = client.post("/webhooks", {"url": f"http://127.0.0.1:{server.getsockname()[1]}/"}).data["id"]
        client.post(f"/webhooks/{id}/test")
        send(id)
    stop.set(), thread.join(5)
    one, = client.get(f"/webhooks/{id}/deliveries").data
    assert one["error"] == "no whole answer within 10 s" and 9900 < one["took_ms"] < 11_500 and one["status"] == "waiting"


def test_a_name_that_is_private_at_the_second_look_is_not_called(client, monkeypatch):
    looked, connected = [], []

    def look_up(host, port, **more):
        looked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14" if len(looked) == 1 else "169.254.169.254", port))]

    def connect(address, **more):
        connected.append(address)
        raise ConnectionRefusedError("Connection refused")
    monkeypatch.setattr(socket, "getaddrinfo", look_up), monkeypatch.setattr(socket, "create_connection", connect)
    id = client.post("/webhooks", {"url": "https://rebinding.example/"}).data["id"]
    client.post(f"/webhooks/{id}/test")
    send(id)
    assert client.get(f"/webhooks/{id}/deliveries").data[0]["error"] == "it does not answer: Connection refused"
    later(5), send(id)
    assert client.get(f"/webhooks/{id}/deliveries").data[0]["error"] == "rebinding.example is a private address"
    assert looked == ["rebinding.example"] * 2 and connected == [("93.184.215.14", 443)]


def test_sent_and_not_noted_is_sent_again_under_the_same_name(client, nearby, monkeypatch):
    def gone(*_):
        raise OSError("the disk is full")
    with Receiver((200, "")) as receiver:
        id = client.post("/webhooks", {"url": receiver.url}).data["id"]
        client.post(f"/webhooks/{id}/test")
        with monkeypatch.context() as patch:
            patch.setattr(sending, "note", gone)
            send(id)
        assert states(client, id) == ["sending"]
        db.write(lambda: db.run("UPDATE jobs SET state = 'waiting', run_at = NULL WHERE state = 'delayed'"))
        send(id)
        assert states(client, id) == ["delivered"] and len(receiver.got) == 2
        assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 1


def test_a_job_of_before_a_replay_sends_nothing(client, nearby):
    with Receiver((200, "")) as receiver:
        id = client.post("/webhooks", {"url": receiver.url}).data["id"]
        number = client.post(f"/webhooks/{id}/test").data["id"]
        send(id)
        client.post(f"/webhooks/{id}/deliveries/{number}/replay")
        with webhooks_of(1):
            sending.advance(id)
            assert sending.send(sending.Order(id, number, 0)) == "no longer to be sent"
            sending.note(sending.Order(id, number, 0), sending.Sent(1, error="late"))
        assert len(receiver.got) == 1 and states(client, id) == ["sending"]
        send(id)
        assert len(receiver.got) == 2 and states(client, id) == ["delivered"]


def test_of_those_that_fail_or_are_slow_one_is_called_at_a_time_in_turn(client, as_, nearby):
    other = as_("eve", "admin", tenant=None)
    with Receiver((200, "")) as receiver:
        ids = [(one, one.post("/webhooks", {"url": f"{receiver.url}/{n}"}).data["id"]) for n, one in enumerate((client, client, other, client))]
        for one, id in ids:
            one.post(f"/webhooks/{id}/test")
        set_to = lambda what, id: db.write(lambda: db.run(f"UPDATE webhooks SET {what} WHERE id = :id", id=id))  # noqa: E731
        set_to("failures = 3, last_sent_at = '2026-11-03T10:00:00.000Z'", ids[0][1])
        set_to("last_took_ms = 9000, last_sent_at = '2026-11-02T10:00:00.000Z'", ids[1][1])
        set_to("failures = 1, last_sent_at = '2026-11-01T10:00:00.000Z'", ids[2][1])
        set_to("last_took_ms = 9, last_sent_at = '2026-11-04T10:00:00.000Z'", ids[3][1])
        sent = lambda: [path[-1] for path, _, _ in receiver.got]  # noqa: E731
        for _ in range(3):
            for tenant, id in sending.behind():
                with webhooks_of(tenant):
                    sending.advance(id)
            send(0)
        assert sorted(sent()[:2]) == ["2", "3"] and sent()[2:] == ["1", "0"]


def test_what_waits_has_an_end_and_the_rest_stays_in_the_log(client, nearby, monkeypatch):
    monkeypatch.setattr(sending, "WAITING", 3), monkeypatch.setattr(sending, "AT_ONCE", 2)
    with Receiver((500, ""), (200, "")) as receiver:
        id = client.post("/webhooks", {"url": receiver.url, "types": ["task.created"]}).data["id"]
        for number in range(12):
            client.post("/tasks", {"title": str(number)})
        for _ in range(12):
            send(id)
        assert len(states(client, id)) <= 6 and client.post(f"/webhooks/{id}/test").status == 409
        with webhooks_of(1):
            assert sending.behind() == []
        for _ in range(12):
            later(5), send(id)
        assert sorted(titles(receiver)[1:]) == sorted(("task.created", str(number)) for number in range(1, 13))
