"""Stories of events: what happens is told as a stream and as pages, once, in order, to those that may hear it."""
import http.client
import json
import socket
import threading
import time

import pytest
from conftest import Client, eventually, put

from orkosi import db, now
from plugins import keys

OLD = "2026-11-02T10:00:00.000Z"


def happened(id, type="task.done", home=1, **more):
    """An event as its row is seeded, and as it is told."""
    told = {"id": id, "type": type, "entity_type": type.partition(".")[0], "entity_id": str(id), "actor_type": "user", "actor_id": "7", "metadata": {"title": f"t{id}"},
            "created_at": now(-60 + id / 1000)} | more
    put("activity", tenant_id=home, action=told["type"], **{name: value if name != "metadata" else value and json.dumps(value) for name, value in told.items() if name != "type"})
    return told


def read(text):
    """The events of a stream, as a browser would have them: (id, event, data)."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


@pytest.fixture
def quiet(client):
    """A client, and a log in which nothing is that a test did not put there."""
    assert client.get("/rules").status == 200
    db.write(lambda: db.run("DELETE FROM activity"))
    return client


@pytest.mark.story("GET /api/events")
def test_events_come_in_pages(quiet):
    a, b, c, d = happened(101), happened(102, "agent.paused", metadata=None), happened(103, "task.created", actor_type="system", actor_id="system"), happened(105, "run.finished")
    happened(104, home=2)
    page = lambda query: quiet.get(f"/events?{query}").json  # noqa: E731
    assert page("after=100") == {"data": [a, b, c, d], "meta": {"last_id": 105, "reset": False}}
    assert page("after=100&limit=2") == {"data": [a, b], "meta": {"last_id": 102, "reset": False}}
    assert page("after=102&limit=2") == {"data": [c, d], "meta": {"last_id": 105, "reset": False}} and page("after=105")["data"] == []
    assert page("after=100&type=task.*")["data"] == [a, c] and page("after=100&type=agent.paused,task.created")["data"] == [b, c]
    assert page("after=100&type=task.*&limit=1") == {"data": [a], "meta": {"last_id": 101, "reset": False}}
    assert page("after=100&type=nothing.here") == {"data": [], "meta": {"last_id": 105, "reset": False}}
    assert page("wait_seconds=0") == {"data": [], "meta": {"last_id": 105, "reset": False}}, "without after: from now on"
    for query in ("after=-1", "after=x", "wait_seconds=26", "limit=0", "limit=501", "type=Tasks", "type=task.*.x", "more=1"):
        assert quiet.get(f"/events?{query}").status == 400, query


@pytest.mark.story("GET /api/events")
def test_events_come_as_a_stream(quiet):
    first, second = happened(101), happened(102, "agent.paused")
    streamed = quiet.get("/events", headers={"Last-Event-ID": "100"})
    assert streamed.status == 200 and streamed.headers["Content-Type"] == "text/event-stream" and "Content-Length" not in streamed.headers
    assert read(streamed.body.decode()) == [(101, "task.done", first), (102, "agent.paused", second)]
    assert read(quiet.get("/events?type=agent.*", headers={"Last-Event-ID": "100"}).body.decode()) == [(102, "agent.paused", second)]
    assert read(quiet.get("/events").body.decode()) == [], "what was before is not told to a newcomer"


@pytest.mark.parametrize("last", ["5", "999"])
def test_what_cannot_be_told_again_is_said(quiet, monkeypatch, last):
    from orkosi import settings
    for id in range(1, 9):
        happened(id, created_at=OLD if id < 4 else now(-60 + id))
    monkeypatch.setattr(settings, "events_most", 2)
    head = [(8, "reset", {"last_id": 8})]
    assert read(quiet.get("/events", headers={"Last-Event-ID": last}).body.decode()) == head
    assert quiet.get(f"/events?after={last}").json == {"data": [], "meta": {"last_id": 8, "reset": True}}
    assert [one[0] for one in read(quiet.get("/events", headers={"Last-Event-ID": "6"}).body.decode())] == [7, 8]
    monkeypatch.setattr(settings, "events_most", 100)
    assert read(quiet.get("/events", headers={"Last-Event-ID": "2"}).body.decode()) == head, "too old"
    assert [one[0] for one in read(quiet.get("/events", headers={"Last-Event-ID": "3"}).body.decode())] == [4, 5, 6, 7, 8]


def test_only_those_who_may_hear_of_their_own(application, quiet, as_, key_for):
    happened(101), happened(102, home=2)
    assert as_("ann", role="viewer").get("/events?after=0").status == 403 and key_for("tasks:read").get("/events?after=0").status == 403
    assert as_("ed", role="editor").get("/events?after=100").status == 200 == key_for("events:read").get("/events?after=100").status
    quiet.post("/agents", {"name": "felix"})
    felix = Client(application, keys.issue(1, "felix's", ["events:read"], agent="felix")[1])
    assert felix.get("/events?after=100").status == 403


# ── on a real server ──


@pytest.fixture
def live(server):
    running = server(env={"ORKOSI_LIMIT_TASK_CREATE": "off"})
    running.token = server.admin(running)
    running.ask = lambda method, path, body=None: running.call(method, path, body, running.token)[1]
    return running


class Stream:
    """A client that reads a stream in a thread."""

    def __init__(self, running, path="/events", token="", last=None):
        host, port = running.url.removeprefix("http://").split(":")
        self.text, self.over = "", threading.Event()
        self.socket = socket.create_connection((host, int(port)))
        more = f"Last-Event-ID: {last}\r\n" if last is not None else ""
        self.socket.sendall(f"GET /api{path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token or running.token}\r\n{more}\r\n".encode())
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        eventually(lambda: "\r\n\r\n" in self.text or self.over.is_set())

    def _read(self):
        try:
            while raw := self.socket.recv(65536):
                self.text += raw.decode()
        except OSError:
            pass
        self.over.set()

    @property
    def events(self):
        return read(self.text.partition("\r\n\r\n")[2])

    def close(self):
        self.socket.close()


def test_what_happens_is_told_at_once_and_in_order(live):
    stream = Stream(live)
    assert stream.text.startswith("HTTP/1.1 200 OK") and "Connection: close" in stream.text and "Content-Length" not in stream.text
    ids = [live.ask("POST", "/tasks", {"title": f"t{n}"})["data"]["id"] for n in range(30)]
    eventually(lambda: len(stream.events) == 30)
    assert [event["entity_id"] for _, _, event in stream.events] == [str(id) for id in ids] and {kind for _, kind, _ in stream.events} == {"task.created"}
    began = time.monotonic()
    live.ask("PATCH", f"/tasks/{ids[0]}", {"status": "done"})
    eventually(lambda: stream.events[-1][1] == "task.done", every=0.005)
    assert time.monotonic() - began < 1.0
    last = stream.events[9][0]
    again = Stream(live, last=last)
    eventually(lambda: len(again.events) == 21)
    assert again.events == stream.events[10:] == read(json_stream(live, last))
    stream.close(), again.close()


def json_stream(live, after):
    """The same, from pages of JSON."""
    found = live.ask("GET", f"/events?after={after}&limit=500")["data"]
    return "".join(f"id: {one['id']}\nevent: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in found)


def test_a_page_waits_for_something_to_come(live):
    last = live.ask("GET", "/events?wait_seconds=0")["meta"]["last_id"]
    began, said = time.monotonic(), []
    waiting = threading.Thread(target=lambda: said.append(live.ask("GET", f"/events?after={last}&wait_seconds=20&type=task.*")))
    waiting.start()
    time.sleep(0.3)  # it waits by now
    live.ask("POST", "/rules", {"rule": "not for it"})
    live.ask("POST", "/tasks", {"title": "t"})
    waiting.join(10)
    assert [one["type"] for one in said[0]["data"]] == ["task.created"] and time.monotonic() - began < 5
    began, said = time.monotonic(), []
    waiting = threading.Thread(target=lambda: said.append(live.ask("GET", "/events?wait_seconds=20&type=task.*")))  # from now on
    waiting.start()
    time.sleep(0.3)  # it waits by now
    live.ask("POST", "/tasks", {"title": "another"})
    waiting.join(10)
    assert [one["type"] for one in said[0]["data"]] == ["task.created"] and time.monotonic() - began < 5
    began = time.monotonic()
    empty = live.ask("GET", f"/events?after={said[0]['meta']['last_id']}&wait_seconds=1")
    assert empty["data"] == [] and 0.8 < time.monotonic() - began < 5


def test_it_ends_with_its_key(live):
    key = live.ask("POST", "/organizations", {"name": "o"})["data"]["id"]
    made = live.ask("POST", f"/organizations/{key}/api-keys", {"name": "k", "scopes": ["events:read"]})["data"]
    stream = Stream(live, token=made["key"])
    live.ask("POST", "/tasks", {"title": "t"})
    eventually(lambda: stream.events)
    live.ask("POST", f"/organizations/{key}/api-keys/{made['id']}/revoke")
    assert stream.over.wait(5)


def test_it_goes_on_over_a_restart(live, server):
    stream = Stream(live)
    live.ask("POST", "/tasks", {"title": "before"})
    eventually(lambda: stream.events)
    last = stream.events[-1][0]
    live.stop()
    assert stream.over.wait(5)
    again = server()
    again.token = live.token
    again.call("POST", "/tasks", {"title": "after"}, live.token)
    stream = Stream(again, last=last)
    eventually(lambda: any(event["metadata"] == {"title": "after"} for _, _, event in stream.events))


def test_a_client_that_reads_nothing_costs_no_memory_and_loses_nothing(live):
    """It is sent what it takes, and read for from there when it goes on."""
    host, port = live.url.removeprefix("http://").split(":")
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect((host, int(port)))
    slow.sendall(f"GET /api/events HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {live.token}\r\n\r\n".encode())
    eventually(lambda: slow.recv(4096, socket.MSG_PEEK))
    connection = http.client.HTTPConnection(host, int(port))
    for n in range(3000):
        connection.request("POST", "/api/tasks", json.dumps({"title": f"{n} " + "x" * 280, "dedupe": False}), {"Authorization": f"Bearer {live.token}", "Content-Type": "application/json"})
        connection.getresponse().read()
    text = b""
    slow.settimeout(5)
    while text.count(b"event: task.created") < 3000 or not text.endswith(b"\n\n"):
        text += slow.recv(65536)
    found = read(text.partition(b"\r\n\r\n")[2].decode())
    assert [one["metadata"]["title"].split()[0] for _, _, one in found] == [str(n) for n in range(3000)]
    slow.close()


def test_whoever_hangs_up_makes_room(live):
    streams = [Stream(live) for _ in range(30)]
    for one in streams:
        one.close()
    live.ask("POST", "/tasks", {"title": "t"})
    last = Stream(live)
    live.ask("POST", "/tasks", {"title": "u"})
    eventually(lambda: last.events)
    last.socket.sendall(b"GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n")  # whatever it says, it is being answered
    live.ask("POST", "/tasks", {"title": "v"})
    eventually(lambda: len(last.events) == 2)
    assert last.text.count("HTTP/1.1") == 1


def test_there_is_an_end_to_how_many(application, quiet, monkeypatch):
    from plugins.server import feeds
    monkeypatch.setattr(feeds, "MOST", 0)
    full = quiet.get("/events")
    assert full.status == 503 and full.headers["Retry-After"] == "5" and quiet.get("/events?after=0").status == 200


def test_log_lines_are_followed_on_a_real_server(live):
    live.ask("POST", "/agents", {"name": "felix"})
    stream = Stream(live, "/logs?follow=true&agent=felix&q=hello")
    live.ask("POST", "/logs", {"agent": "felix", "message": "Hello there"})
    live.ask("POST", "/logs", {"agent": "felix", "message": "not this"})
    (live.folder / "agents/felix/logs/brain.log").write_text(f"{now()} INFO hello from a file\n")
    eventually(lambda: len(stream.events) == 2)
    assert [(kind, line["source"], line["message"]) for _, kind, line in stream.events] == [("line", "db", "Hello there"), ("line", "file", "INFO hello from a file")]


@pytest.mark.slow
def test_a_page_that_asks_for_it_hears_a_beat(live):
    """A page does not see comments, and would take a dead line for a quiet one."""
    stream, plain = Stream(live, "/events?beat=true&type=nothing.*"), Stream(live, "/events?type=nothing.*")
    assert eventually(lambda: "event: beat\ndata: {}\n\n" in stream.text, patience=14, every=0.2)
    assert "beat" not in plain.text
    stream.close(), plain.close()
