"""Health, readiness, damage that is found while the server runs, and the answers to what does not exist."""
import threading
import time

import apsw
import pytest
from conftest import eventually

import orkosi
from orkosi import db
from plugins import health
from plugins.health import damage, machine


def test_a_running_server_says_so(anonymous):
    assert anonymous.get("/ready").data == {"ready": True}
    health = anonymous.get("/health").json
    assert (health["status"], health["db"], health["redis"]) == ("ok", "connected", "not_configured")
    assert set(anonymous.get("/version").data) == {"version", "uptime"}


def test_errors_are_json_also_where_nothing_is(anonymous):
    assert anonymous.get("/nothing/here").code == "not_found"
    answer = anonymous.post("/health")
    assert (answer.status, answer.code, answer.headers["Allow"]) == (405, "method_not_allowed", "HEAD, GET")
    assert answer.error["request_id"] == answer.headers["X-Request-Id"]


# ── damage ──


def overwrite(folder, name, table):
    """Make the first page of a table, and of its indexes, into none."""
    con = apsw.Connection(str(folder / name))
    roots = con.execute("SELECT rootpage FROM sqlite_schema WHERE tbl_name = :table AND rootpage > 0", {"table": table}).fetchall()
    con.close()
    with open(folder / name, "r+b") as file:
        for root, in roots:
            file.seek((root - 1) * 4096)
            file.write(b"\xa5" * 4096)


@pytest.mark.slow
@pytest.mark.parametrize("name, table", [("orkosi.db", "agents"), ("logs.db", "log_lines")])
def test_a_server_whose_database_is_damaged_does_not_say_that_it_is_well(server, name, table):
    first = server()
    admin = server.admin(first)
    first.stop()
    overwrite(first.folder, name, table)
    running = server(folder=first.folder)
    eventually(lambda: running.call("GET", "/arch-health")[0] == 503, patience=20)
    status, found = running.call("GET", "/arch-health", token=admin)
    assert (status, found["data"]["status"], found["data"]["checks"]["db"]) == (503, "degraded", "fail") and "damaged" in found["data"]["details"]["db"]
    told = lambda: [one for one in running.call("GET", "/notifications", token=admin)[1]["data"] if one["source"] == "health"]  # noqa: E731
    eventually(told)
    one, = told()
    assert (one["title"], one["type"], "damaged" in one["message"]) == ("The database is damaged", "error", True)
    if table == "agents":  # which a service reads at its start
        eventually(lambda: "agents.settle stopped" in running.call("GET", "/arch-health", token=admin)[1]["data"]["details"]["watchers"])


def test_what_is_answered_as_damaged_is_remembered_and_told_of_once(client, anonymous, monkeypatch):
    damage.look()
    assert anonymous.get("/arch-health").data["checks"]["db"] == "ok" and client.get("/notifications").data == []

    def refuse(*_, **__):
        raise orkosi.Damaged("The file is damaged")
    with monkeypatch.context() as patch:
        patch.setattr(db, "all", refuse)
        assert client.get("/agents").code == "damaged"
    answer = client.get("/arch-health")
    assert answer.status == 503 and answer.data["checks"]["db"] == "fail" and answer.data["details"]["db"] == "The file is damaged"
    damage.look(), damage.look()
    told, = client.get("/notifications").data
    assert (told["title"], told["message"], told["type"]) == ("The database is damaged", "The file is damaged", "error")


def test_a_service_that_stops_again_and_again_is_no_live_one(client, monkeypatch):
    monkeypatch.setattr(machine.threading, "enumerate", lambda: [type("Thread", (), {"name": name}) for name in
        ["every", *(f"{one.name}.{service.__name__}" for one in orkosi.plugins.values() for service in one.services)]])
    word = lambda: client.get("/arch-health").data["checks"]["watchers"]  # noqa: E731
    assert word() == "ok"
    for pause, ago, said in [(1.0, 5, "warn"), (8.0, 5, "fail"), (60.0, 60, "fail"), (60.0, 100, "ok")]:
        monkeypatch.setitem(orkosi.restarted, "agents.settle", (time.monotonic() - ago, pause))
        assert word() == said
    monkeypatch.setitem(orkosi.restarted, "agents.settle", (time.monotonic(), 8.0))
    answer = client.get("/arch-health")
    assert answer.status == 503 and answer.data["details"]["watchers"] == "agents.settle stopped; the log says why"


def test_a_write_that_hangs_is_told_and_so_is_that_it_goes_on(anonymous, client, monkeypatch):
    monkeypatch.setattr(health, "PAUSE", 0.02), monkeypatch.setattr(health, "LATE", 0.2)
    stop, held, go = threading.Event(), threading.Event(), threading.Event()
    ready = lambda: anonymous.get("/ready").status  # noqa: E731
    threads = [threading.Thread(target=health.try_to_write, args=(stop,)), threading.Thread(target=orkosi.db.write, args=(lambda: (held.set(), go.wait(20)),))]
    try:
        threads[0].start()
        with pytest.raises(AssertionError, match="did not come true"):
            eventually(lambda: ready() != 200, patience=0.6)  # all is well
        threads[1].start()
        assert held.wait(5) and eventually(lambda: ready() == 503)
        told = anonymous.get("/health")
        assert (told.status, told.json["db"]) == (503, "error") and client.get("/arch-health").json["data"]["checks"]["db"] == "fail"
        assert client.get("/tasks").status == 200, "reading goes on"
        go.set()
        assert eventually(lambda: ready() == 200)
    finally:
        go.set(), stop.set()
        [one.join(10) for one in threads if one.ident]


def test_a_flush_that_hangs_is_told_and_so_is_that_it_goes_on(anonymous, client, monkeypatch):
    monkeypatch.setattr(health, "LATE", 0.2)
    go, plain = threading.Event(), orkosi.db.flusher._wal.flush
    monkeypatch.setattr(orkosi.db.flusher._wal, "flush", lambda: (go.wait(20), plain()))
    ready = lambda: anonymous.get("/ready").status  # noqa: E731
    assert ready() == 200
    thread = threading.Thread(target=client.post, args=("/tasks", {"title": "It hangs"}))
    try:
        thread.start()
        assert eventually(lambda: ready() == 503)
        go.set()
        assert eventually(lambda: ready() == 200)
    finally:
        go.set()
        thread.join(10)
    assert [task["title"] for task in client.get("/tasks").data] == ["It hangs"]
