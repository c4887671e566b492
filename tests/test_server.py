"""Where a request is answered: a quick read by the loop, a quick write by the writer, all else by a lane, and what waits by nobody."""
import errno
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import HOME, eventually

import orkosi
from orkosi import db, here, settings
from plugins import queue, tasks
from plugins.server import lanes, loop, writer
from plugins.server.lanes import Lane, Line
from plugins.storage import flushing

FIRST = """
import contextlib, sys, threading
import msgspec, orkosi
orkosi.load()
from plugins.server.application import understand_structs
if sys.argv[1] == "understood":
    understand_structs()
sys.setswitchinterval(1e-6)
kinds = [msgspec.Struct]
for kind in kinds:
    kinds += kind.__subclasses__()
    together = threading.Barrier(4)
    def read():
        together.wait()
        with contextlib.suppress(msgspec.ValidationError, TypeError):
            msgspec.convert({name: None for name in kind.__struct_fields__}, kind, strict=False)
    crew = [threading.Thread(target=read) for _ in range(4)] if kind.__module__.startswith("plugins") else []
    for one in crew: one.start()
    for one in crew: one.join()
"""
ENDLESS = "WITH RECURSIVE count (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM count WHERE x < 1000000000) SELECT max(x) FROM count"


def test_two_threads_may_read_a_kind_of_struct_for_the_first_time_at_once():
    def ended(how):
        return subprocess.run([sys.executable, "-c", FIRST, how], cwd=HOME, env=os.environ | {"ORKOSI_NO_INSTALL": "1"}, timeout=60).returncode
    assert ended("understood") == 0
    assert any(ended("new") == -signal.SIGSEGV for _ in range(5)), "this msgspec ends no process any more: understand_structs() may go"


class Listening:
    """The HTTP server in this process, and one client of it."""

    def __init__(self, application, token):
        self.listener, self.token = loop.listen(application, "127.0.0.1", 0), token
        self.port = int(self.listener.effective_port)
        self.thread = threading.Thread(target=self.listener.run, name="loop")
        self.thread.start()

    def ask(self, method, path, body=None, timeout=5.0):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            headers = {"Authorization": f"Bearer {self.token}"} | ({"Content-Type": "application/json"} if body is not None else {})
            connection.request(method, f"/api{path}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()

    def send(self, method, path, body=None):
        """A connection on which a request was sent, and nothing read."""
        one = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        text = b"" if body is None else json.dumps(body).encode()
        one.sendall(f"{method} /api{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer {self.token}\r\n"
                    f"Content-Length: {len(text)}\r\n\r\n".encode() + text)
        return one

    def waits(self, within, times, method, path, body=None):
        """How long such requests take, one after the other."""
        took = []
        end = time.monotonic() + within
        while len(took) < times and time.monotonic() < end:
            began = time.monotonic()
            self.ask(method, path, body)
            took.append(time.monotonic() - began)
        return took


@pytest.fixture
def listening(application, client):
    started = []

    def start():
        started.append(Listening(application, client.token))
        return started[-1]
    yield start
    for one in started:
        one.listener.finish()
        one.thread.join(10)
        one.listener.shutdown()


@pytest.fixture
def where(monkeypatch):
    """Notes on which thread an endpoint's function runs; `where(operation)` gives the list."""
    def note(operation):
        endpoint = next(one for one in orkosi.endpoints() if one.operation == operation)
        plain, seen = endpoint.fn, []

        def noted(**values):
            seen.append(threading.current_thread().name)
            return plain(**values)
        monkeypatch.setattr(endpoint, "fn", noted)
        return seen
    return note


def test_reads_run_in_the_loop_writes_in_the_writer_all_else_in_lanes(listening, where):
    server = listening()
    seen = {operation: where(operation) for operation in (
        "tasks.index", "tasks.create", "queue.submit", "queue.claim", "agents.index", "users.login", "tasks.delete")}
    assert server.ask("POST", "/tasks", {"title": "A task"})[0] == 201
    assert server.ask("GET", "/tasks?limit=20")[1]["data"][0]["title"] == "A task"
    assert server.ask("POST", "/task-queue/submit", {"task_type": "t"})[0] == 201
    assert server.ask("POST", "/task-queue/claim", {"worker_id": "w"})[1]["data"]["task_type"] == "t"
    assert server.ask("GET", "/agents")[0] == 200 and server.ask("DELETE", "/tasks/1")[0] == 200
    assert server.ask("POST", "/auth/login", {"email": "root@example.com", "password": "wrong horse"})[0] == 401
    threads = {operation: names[0].rpartition("-")[0] or names[0] for operation, names in seen.items()}
    assert threads == {"tasks.index": "loop", "tasks.create": "writer", "queue.submit": "writer", "queue.claim": "writer",
                       "agents.index": "disk", "users.login": "hash", "tasks.delete": "disk"}


def test_a_write_that_is_large_or_not_alone_goes_to_a_lane(listening, where):
    server, seen = listening(), where("queue.submit")
    assert server.ask("POST", "/task-queue/submit", {"task_type": "t", "payload": {"x": "y" * 100_000}})[0] == 201
    assert seen.pop().startswith("disk")
    one = server.send("POST", "/task-queue/submit", {"task_type": "t"})
    again = server.send("POST", "/task-queue/submit", {"task_type": "t"})
    for connection in (one, again):
        assert connection.recv(4096).startswith(b"HTTP/1.1 201")
        connection.close()
    assert seen == ["writer"] * 2
    text = b'{"task_type": "t"}'
    request = (f"POST /api/task-queue/submit HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer {server.token}\r\n"
               f"Content-Length: {len(text)}\r\n\r\n").encode() + text
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as both:
        both.sendall(request * 2)
        eventually(lambda: len(seen) == 4)
    assert seen[2].startswith("disk"), "another request follows on its connection"


@pytest.mark.slow
def test_a_quick_read_that_takes_long_goes_to_a_lane_and_stays_there(listening, monkeypatch):
    plain, asked = tasks.page, []

    def slow(*args, **more):
        asked.append(threading.current_thread().name)
        if len(asked) == 1:
            db.value(ENDLESS)
        time.sleep(0.3)  # what is slow
        return plain(*args, **more)
    monkeypatch.setattr(tasks, "page", slow)
    server = listening()
    began = time.monotonic()
    assert server.ask("GET", "/tasks")[0] == 200
    assert time.monotonic() - began < 2, "it was cut off after 20 ms, and done again"
    assert asked[0] == "loop" and asked[1].startswith("disk") and len(asked) == 2
    others = [threading.Thread(target=server.ask, args=("GET", "/tasks")) for _ in range(4)]
    for one in others:
        one.start()
    waits = server.waits(2, 5, "GET", "/health")
    for one in others:
        one.join()
    assert max(waits) < 0.2, "the loop itself waits for none of them"
    assert {one.partition("-")[0] for one in asked[1:]} == {"disk"}
    server.listener.slow = {endpoint: 0.0 for endpoint in server.listener.slow}
    assert server.ask("GET", "/tasks")[0] == 200 and asked[-1] == "loop", "after a minute it is tried again"
    assert not hasattr(here, "patience") and loop.PATIENCE == 0.02


def test_a_large_answer_is_no_matter_for_the_loop(listening, client):
    for number in range(30):
        client.post("/tasks", {"title": f"Task {number}", "description": "x" * 60_000})
    server = listening()
    status, found = server.ask("GET", "/tasks?limit=200", timeout=10)
    assert status == 200 and len(found["data"]) == 30
    assert {endpoint.operation for endpoint in server.listener.slow} == {"tasks.index"}


def test_what_is_quick_is_declared_and_what_may_wait_for_disk_or_network_is_not():
    quick = [one for one in orkosi.endpoints() if one.quick]
    reads, changes = [one for one in quick if one.method == "GET"], {one.operation for one in quick if one.method != "GET"}
    assert len(reads) > 20
    assert not [one.path for one in reads if one.path.startswith(("/api/agents", "/api/automations", "/api/task-queue", "/api/bull-queue", "/api/files", "/api/products"))], \
        "these ask the supervisor or the disk, or carry payloads"
    assert changes == {
        "bull.submit", "queue.submit", "queue.claim", "queue.complete", "queue.complete_many", "queue.fail", "queue.retry", "queue.cancel",
        "tasks.create", "tasks.update", "logs.create", "activity.create", "notifications.create", "notifications.read", "tokens.consume", "agents.start_run",
        "agents.update_run", "public.create_task", "public.update_task", "public.archive_task"}
    assert {one.operation for one in quick if not one.durable} == {"queue.claim", "logs.create"}
    assert {one.lane for one in orkosi.endpoints()} <= set(lanes.THREADS)


# ── the lanes ──


def test_a_line_gives_every_tenant_its_turn():
    line = Line()
    for number in range(5):
        line.add("loud", f"loud {number}")
    line.add("quiet", "quiet 0")
    assert line.take(3) == ["loud 0", "quiet 0", "loud 1"] and line.length == 3
    line.add("quiet", "quiet 1")
    assert line.take(9) == ["loud 2", "quiet 1", "loud 3", "loud 4"] and line.take(1) == [] and line.length == 0


def test_a_full_lane_refuses_and_goes_on():
    gate, done = threading.Event(), []
    lane = Lane("test", 1, 8)
    try:
        lane.add(1, gate.wait)
        eventually(lambda: lane._line.length == 0)
        for number in range(4):
            lane.add(1, lambda number=number: done.append(number))
        with pytest.raises(orkosi.Unavailable) as refused:
            lane.add(1, gate.wait)
        assert refused.value.headers["Retry-After"]
        lane.add(2, lambda: done.append("other"))
        lane.add(3, lambda: 1 / 0)
        gate.set()
        eventually(lambda: len(done) == 5)
        assert done.index("other") == 1 and sorted(one for one in done if one != "other") == [0, 1, 2, 3]
    finally:
        gate.set()
        lane.close()


def test_hanging_calls_outside_stop_nobody(listening, monkeypatch):
    """Every place of the lane `outside` is taken: log-ins, reads, writes and claims go on, and who comes too late hears so."""
    gate = threading.Event()
    endpoint = next(one for one in orkosi.endpoints() if one.operation == "agents.index")
    monkeypatch.setattr(endpoint, "lane", "outside")
    begun = []
    monkeypatch.setattr(endpoint, "fn", lambda **_: begun.append(1) or (gate.wait(20) and []))
    server = listening()
    hanging = [server.send("GET", "/agents") for _ in range(4)]
    eventually(lambda: len(begun) == 4)  # all four hands are full: only now does what comes stand in line
    hanging += [server.send("GET", "/agents") for _ in range(32)]
    try:
        eventually(lambda: server.listener.lanes["outside"]._line.length == 32)
        status, found = server.ask("GET", "/agents", timeout=2)
        assert status == 503 and "try again" in found["error"]["message"]
        for method, path, body, good in (("GET", "/tasks", None, 200), ("POST", "/task-queue/submit", {"task_type": "t"}, 201),
                                         ("POST", "/task-queue/claim", {"worker_id": "w"}, 200), ("GET", "/task-queue", None, 200),
                                         ("POST", "/auth/login", {"email": "root@example.com", "password": "correct horse"}, 200)):
            began = time.monotonic()
            assert server.ask(method, path, body, timeout=2)[0] == good
            assert time.monotonic() - began < 1, path
    finally:
        gate.set()
        for one in hanging:
            one.close()


# ── the writer ──


@pytest.mark.slow
def test_what_needs_no_flush_waits_for_none_and_all_else_for_one_that_begins_later(listening, monkeypatch):
    server, began, ended = listening(), [], []
    slow = SlowDisk(monkeypatch, lambda: (began.append(time.monotonic()), time.sleep(0.4), ended.append(time.monotonic())))  # what is slow
    server.ask("POST", "/task-queue/submit", {"task_type": "t"})
    assert slow and len(began) == 1
    answered = {}

    def ask(name, path, body):
        status, _ = server.ask("POST", path, body)
        answered[name] = (status, time.monotonic())
    crew = [threading.Thread(target=ask, args=(name, path, body)) for name, path, body in (
        ("first", "/task-queue/submit", {"task_type": "t"}), ("submit", "/task-queue/submit", {"task_type": "t"}),
        ("claim", "/task-queue/claim", {"worker_id": "w"}), ("claim of what is not flushed", "/task-queue/claim", {"worker_id": "w", "wait_seconds": 5}))]
    crew[0].start()
    eventually(lambda: len(began) == 2)  # the others come while it is flushed
    for one in crew[1:3]:
        one.start()
    crew[2].join()
    assert answered["claim"][0] == 200 and len(ended) == 1, "a claim waits for no flush"
    crew[3].start()
    crew[3].join()
    assert answered["claim of what is not flushed"][0] == 200 and len(ended) == 1
    for one in crew[:2]:
        one.join()
    assert answered["first"][0] == answered["submit"][0] == 201
    assert answered["first"][1] >= ended[1] and answered["submit"][1] >= ended[2] and began[2] >= ended[1]


class SlowDisk:
    """From the next flush on, each does `what` as well, and is as slow."""

    def __init__(self, monkeypatch, what):
        plain = db.flusher._wal.flush
        monkeypatch.setattr(db.flusher._wal, "flush", lambda: (what(), plain()))
        monkeypatch.setattr(db.flusher, "took", 1.0)


def test_what_could_not_be_flushed_is_told_and_the_next_goes_on(listening, monkeypatch):
    server, broken = listening(), [OSError(errno.EIO, "broken"), OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "broken")]

    def fail():
        if broken:
            raise broken.pop(0)
    SlowDisk(monkeypatch, fail)
    file = settings.data / "orkosi.db"
    submit = ("POST", "/task-queue/submit", {"task_type": "t", "payload": {"text": "x" * 100_000}})
    for told in (503, 507):
        size = file.stat().st_size
        assert server.ask(*submit)[0] == told and file.stat().st_size == size
        assert server.ask(*submit)[0] == 201 and file.stat().st_size > size + 150_000, "what the next stands behind is in the main file, and flushed with it"
    with pytest.raises(orkosi.Unavailable), orkosi.acting(orkosi.system()):
        queue.submit("q", "t")
    assert [server.ask(*submit)[0] for _ in range(2)] == [201, 201] and not broken


def test_what_changes_nothing_and_what_is_refused_cost_no_flush(data, monkeypatch):
    flushes = []
    SlowDisk(monkeypatch, lambda: flushes.append(1))
    with orkosi.acting(orkosi.system()):
        for _ in range(3):
            db.write(lambda: None)
            with pytest.raises(ZeroDivisionError):
                db.write(lambda: (queue.submit("q", "t"), 1 / 0))
        assert not flushes
        queue.submit("q", "t", key="k")
        db.write(lambda: None)
        assert len(flushes) == 1
        queue.claim("q", "w")
        assert len(flushes) == 1
        db.write(lambda: None)
        assert len(flushes) == 2, "what it was told of, only a flush makes sure"


def test_what_is_committed_but_not_flushed_has_what_follows_it(data, monkeypatch):
    def fail():
        raise MemoryError
    followed = []
    SlowDisk(monkeypatch, fail)
    with pytest.raises(MemoryError):
        db.write(lambda: (db.run("INSERT INTO signing_secrets VALUES ('one', x'00')"), db.after_commit(lambda: followed.append(1))))
    assert followed == [1] and db.value("SELECT count(*) FROM signing_secrets WHERE purpose = 'one'") == 1
    with pytest.raises(ZeroDivisionError):
        db.write(lambda: (db.after_commit(lambda: followed.append(2)), 1 / 0))
    assert followed == [1]


def test_where_no_thread_can_be_had_whoever_commits_flushes(data, monkeypatch):
    flushes = []
    SlowDisk(monkeypatch, lambda: (flushes.append(threading.current_thread().name), time.sleep(0.01)))  # what is slow
    start = threading.Thread.start

    def none(thread):
        if thread.name == "flusher":
            raise RuntimeError("can't start new thread")
        start(thread)
    monkeypatch.setattr(threading.Thread, "start", none)
    with orkosi.acting(orkosi.system()):
        queue.submit("q", "t"), queue.submit("q", "t")
        monkeypatch.setattr(threading.Thread, "start", start)
        queue.submit("q", "t")
    assert flushes == [threading.current_thread().name] * 2 + ["flusher"]


def test_a_main_file_that_is_a_link_has_its_wal_where_it_leads(tmp_path, server):
    running = server()
    token = server.admin(running)
    running.call("POST", "/tasks", {"title": "before"}, token)
    running.stop()
    (tmp_path / "elsewhere").mkdir()
    (running.folder / "orkosi.db").rename(tmp_path / "elsewhere/orkosi.db")
    (running.folder / "orkosi.db").symlink_to(tmp_path / "elsewhere/orkosi.db")
    running = server(folder=running.folder)
    assert running.call("POST", "/tasks", {"title": "after"}, token)[0] == 201 and (tmp_path / "elsewhere/orkosi.db-wal").exists()


def test_what_waits_for_a_flush_gets_it_when_the_files_are_closed(data, monkeypatch):
    go, jobs = threading.Event(), []
    SlowDisk(monkeypatch, lambda: go.wait(5))

    def submit():
        with orkosi.acting(orkosi.system()):
            jobs.append(queue.submit("q", "t"))
    crew = [threading.Thread(target=submit) for _ in range(3)]
    for one in crew:
        one.start()
    eventually(lambda: db.value("SELECT count(*) FROM jobs WHERE queue = 'q' AND (:tenant IS NULL OR 1)") == 3)
    assert not jobs
    closing = threading.Thread(target=db.close)
    closing.start()
    go.set()
    for one in (closing, *crew):
        one.join(5)
    assert len(jobs) == 3 and db.folder is None
    db.open(data)


def test_one_write_that_fails_fails_alone_and_every_one_runs_once(listening, where):
    server, seen = listening(), where("queue.submit")
    outcomes = []

    def work(number):
        for turn in range(10):
            body = {"task_type": "t", "payload": {"n": number * 10 + turn}} | ({"queue_name": "orkosi"} if turn % 5 == 4 else {})
            outcomes.append(server.ask("POST", "/task-queue/submit", body)[0])
    crew = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for one in crew:
        one.start()
    for one in crew:
        one.join()
    assert sorted(outcomes) == [201] * 64 + [400] * 16 and len(seen) == 80
    assert db.value("SELECT count(*) FROM jobs WHERE :tenant IS NULL OR 1") == 64


def test_what_follows_from_a_write_and_touches_the_disk_runs_in_a_lane(listening, monkeypatch):
    followed = []
    plain = queue.submit

    def submit(*args, **more):
        db.after_commit(lambda: followed.append(threading.current_thread().name), slow=True)
        db.after_commit(lambda: 1 / 0)
        return plain(*args, **more)
    monkeypatch.setattr(queue, "submit", submit)
    server = listening()
    assert server.ask("POST", "/task-queue/submit", {"task_type": "t"})[0] == 201
    assert followed[0].startswith("disk"), "and one that fails keeps nobody's answer back"


def test_a_turn_ends_after_ten_milliseconds(data):
    ran, order = [], []

    def slow(number):
        ran.append(number)
        time.sleep(0.006)  # what is slow
    items = [orkosi.Write(lambda number=number: slow(number), orkosi.system(), True, lambda item: order.append(item)) for number in range(6)]
    before = db.commits
    db._inbox.extend(items)
    assert db._turn.acquire(blocking=False)
    db._lead()
    while not all(item.committed for item in items):
        db._lead()
    assert ran == list(range(6)) and 2 <= db.commits - before <= 4
    assert (writer.MOST, orkosi.TURN) == (32, 0.01)


# ── who waits ──


@pytest.mark.slow
def test_a_thousand_claims_wait_and_a_thousand_jobs_go_to_one_each(server):
    """A tenth of them hang up: none of those gets a job, and every job is given once."""
    running = server(env={"ORKOSI_LIMIT_TASK_CREATE": "off"})
    token = server.admin(running)
    where = running.url.removeprefix("http://").split(":")
    body = json.dumps({"worker_id": "w", "wait_seconds": 25}).encode()
    request = (f"POST /api/task-queue/claim HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}\r\n"
               f"Content-Length: {len(body)}\r\n\r\n").encode() + body
    waiting = []
    for _ in range(1000):
        waiting.append(socket.create_connection((where[0], int(where[1])), timeout=30))
        waiting[-1].sendall(request)
    running.call("POST", "/task-queue/claim", {"worker_id": "w", "queue_name": "none"}, token)
    gone, waiting = waiting[::10], [one for at, one in enumerate(waiting) if at % 10]
    for one in gone:
        one.close()
    time.sleep(1.2)  # within which they are forgotten
    ids, began = [], time.monotonic()
    for _ in range(1000):
        ids.append(running.call("POST", "/task-queue/submit", {"task_type": "t"}, token)[1]["data"]["id"])
    got = []
    for one in waiting:
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.endswith(b"}}"):
            answer += one.recv(65536)
        got.append(json.loads(answer.partition(b"\r\n\r\n")[2])["data"])
        one.close()
    print(f"900 answered in {time.monotonic() - began:.1f} s")
    assert sorted(job["id"] for job in got) == sorted(ids[:900]) and {job["attempt"] for job in got} == {1}
    _, stats = running.call("GET", "/task-queue/stats?queue_name=default", token=token)
    assert (stats["data"][0]["counts"]["active"], stats["data"][0]["counts"]["waiting"]) == (900, 100)


@pytest.mark.slow
def test_a_waiting_claim_holds_no_thread_and_ends_in_time(listening):
    server = listening()
    before = threading.active_count()
    waiting = [server.send("POST", "/task-queue/claim", {"worker_id": "w", "wait_seconds": 1}) for _ in range(50)]
    eventually(lambda: len(server.listener.room.calls) == 50)
    assert threading.active_count() == before and len(server.listener.idle._selector.get_map()) == 50
    began = time.monotonic()
    for one in waiting:
        assert one.recv(4096).endswith(b'{"data":null}')
        one.close()
    assert 0.5 < time.monotonic() - began < 1.5 and not queue.waiting._sleepers and not queue.waiting._waiting


def test_a_waiting_claim_whose_client_hangs_up_leaves_its_line(listening):
    server = listening()
    one = server.send("POST", "/task-queue/claim", {"worker_id": "w", "wait_seconds": 20})
    two = server.send("POST", "/task-queue/claim", {"worker_id": "w", "wait_seconds": 20})
    two.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    eventually(lambda: len(server.listener.room.calls) == 2)
    one.close()
    two.close()
    eventually(lambda: not queue.waiting._sleepers and not server.listener.room.calls, patience=2)


def test_a_claim_waits_behind_another_request_of_its_connection_as_well(listening):
    server = listening()
    body = json.dumps({"worker_id": "w", "wait_seconds": 20}).encode()
    head = f"Host: localhost\r\nAuthorization: Bearer {server.token}\r\n"
    claim = f"POST /api/task-queue/claim HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as one:
        one.sendall(claim + b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: len(server.listener.room.calls) == 1)
        server.ask("POST", "/task-queue/submit", {"task_type": "t"})
        answer = b""
        while answer.count(b"HTTP/1.1 200") < 2 or not answer.endswith(b"}"):
            answer += one.recv(65536)
        assert answer.index(b"lease_token") < answer.index(b"uptime")


def test_waiting_claims_are_answered_when_the_server_ends(application, client):
    server = Listening(application, client.token)
    one = server.send("POST", "/task-queue/claim", {"worker_id": "w", "wait_seconds": 20})
    eventually(lambda: server.listener.room.calls)
    began = time.monotonic()
    server.listener.finish()
    server.thread.join(5)
    assert one.recv(4096).endswith(b'{"data":null}') and time.monotonic() - began < 1
    server.listener.shutdown()
    one.close()


@pytest.mark.slow
def test_a_waiting_claim_whose_key_ends_is_told_so(listening, client):
    server = listening()
    one = server.send("POST", "/task-queue/claim", {"worker_id": "w", "wait_seconds": 20})
    eventually(lambda: server.listener.room.calls)
    assert client.post("/auth/logout").status == 200
    assert one.recv(4096).startswith(b"HTTP/1.1 401")
    one.close()
    assert not queue.waiting._sleepers


@pytest.mark.slow
def test_silent_connections_stand_aside_and_are_heard(listening):
    server = listening()
    silent = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(50)]
    eventually(lambda: len(server.listener.idle._selector.get_map()) == 50)
    assert len(server.listener._map) < 10 and len(server.listener.active_channels) == 50
    for one in silent[:25]:
        one.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert one.recv(4096).startswith(b"HTTP/1.1 200")
    for one in silent:
        one.close()
    eventually(lambda: not server.listener.active_channels)


@pytest.mark.parametrize("sent", [b"5\r\nhello\r\n0\r\n\r\n", b"5;a=b\r\nhello\r\n0;last\r\n\r\n", b"5\r\nhello\r\n0\r\nX-Check: 1\r\n\r\n"])
def test_a_body_in_chunks_is_the_same_however_it_comes_apart(sent):
    from plugins.server.parser import Chunks, OverflowableBuffer
    for pieces in [[sent[:at], sent[at:]] for at in range(len(sent) + 1)] + [[sent[at:at + 1] for at in range(len(sent))]]:
        body = Chunks(OverflowableBuffer(1000))
        taken = sum(body.received(piece) for piece in pieces)
        assert (body.completed, body.error, taken, body.getfile().read()) == (True, None, len(sent), b"hello"), pieces


def test_a_slow_write_is_named_in_the_log(listening, monkeypatch, caplog):
    plain = queue.submit
    monkeypatch.setattr(queue, "submit", lambda *args, **more: time.sleep(0.06) or plain(*args, **more))  # what is slow
    assert listening().ask("POST", "/task-queue/submit", {"task_type": "t"})[0] == 201
    assert [record.getMessage() for record in caplog.records if record.getMessage().startswith("slow write queue.submit: ")]


def test_an_answer_that_cannot_be_made_keeps_nobody_else_waiting(listening, monkeypatch):
    from plugins.server.call import Call
    plain = Call.finish

    def finish(self, made=None, error=None, **more):
        if made is not None and self.values and self.values.get("body") and getattr(self.values["body"], "task_type", "") == "broken":
            raise RuntimeError("no answer")
        return plain(self, made, error, **more)
    monkeypatch.setattr(Call, "finish", finish)
    server = listening()
    lost = server.send("POST", "/task-queue/submit", {"task_type": "broken"})
    assert server.ask("POST", "/task-queue/submit", {"task_type": "t"}, timeout=2)[0] == 201
    queue.submit("q", "t")
    assert server.ask("POST", "/task-queue/claim", {"worker_id": "w", "queue_name": "q"}, timeout=2)[1]["data"]["task_type"] == "t"
    lost.settimeout(2)
    assert lost.recv(100) == b"", "whoever has no answer is not left waiting"


def test_a_fault_in_the_loop_itself_ends_it_for_nobody_else(listening, application, monkeypatch):
    server = listening()
    plain = application.route
    monkeypatch.setattr(application, "route", lambda request: 1 / 0 if request.path.endswith("/broken") else plain(request))
    lost = server.send("GET", "/broken")
    assert server.ask("GET", "/health", timeout=2)[0] == 200
    lost.settimeout(2)
    assert lost.recv(100) == b"", "whoever met the fault is not left waiting, nor does the end of the server wait for them"


@pytest.mark.slow
def test_after_a_slow_flush_one_waits_no_longer_than_until_everybody_is_back(listening, monkeypatch):
    server = listening()
    monkeypatch.setattr(flushing, "LONGEST", 3.0)
    SlowDisk(monkeypatch, lambda: time.sleep(0.4))  # what is slow
    began = time.monotonic()
    for _ in range(3):
        assert server.ask("POST", "/task-queue/submit", {"task_type": "t"})[0] == 201
    assert 1.2 < time.monotonic() - began < 1.6, "three flushes, and no pause between them"


def test_heartbeats_that_wait_hold_no_thread(listening, client):
    server, jobs = listening(), []
    for _ in range(60):
        client.post("/task-queue/submit", {"task_type": "t"})
        held = client.post("/task-queue/claim", {"worker_id": "w"}).data
        jobs.append((held["id"], server.send("POST", f"/task-queue/{held['id']}/heartbeat", {"lease_token": held["lease_token"], "wait_seconds": 20})))
    eventually(lambda: len(queue.working._listening) == 60)
    before = threading.active_count()
    assert max(server.waits(5, 20, "GET", "/ready")) < 0.5 and threading.active_count() <= before, "far more wait than there are threads"
    id, connection = jobs[30]
    began = time.monotonic()
    assert server.ask("POST", f"/task-queue/{id}/cancel")[0] == 200
    assert b'"cancel":true' in connection.recv(65536) and time.monotonic() - began < 1
    assert len(queue.working._listening) == 59
    for _, one in jobs:
        one.close()
    eventually(lambda: not queue.working._listening, 15)  # who hung up listens no more


# ── as a Mac's poll has it ──


class MacPoll:
    """XNU's poll: a client that says no more is POLLHUP, and POLLPRI where that is asked for, beside what there is to read."""

    def __init__(self):
        self.real, self.asked = REAL_POLL(), {}

    def register(self, fd, flags):
        fd = fd if isinstance(fd, int) else fd.fileno()
        self.asked[fd] = flags
        self.real.register(fd, flags | (select.POLLRDHUP if flags & select.POLLIN else 0))

    def poll(self, timeout=None):
        found = []
        for fd, flags in self.real.poll(timeout):
            if flags & select.POLLRDHUP:
                flags = flags & ~select.POLLRDHUP | select.POLLHUP | (self.asked[fd] & select.POLLPRI)
            found.append((fd, flags))
        return found


REAL_POLL = select.poll


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="a Mac's poll is that by itself")
@pytest.mark.parametrize("pause", [0.0, 0.1])
def test_who_says_no_more_is_answered_where_poll_calls_that_gone(listening, monkeypatch, pause):
    one = listening()
    monkeypatch.setattr(select, "poll", MacPoll)
    answers = []
    for method, path, body in (("GET", "/tasks", None), ("POST", "/task-queue/submit", {"task_type": "half"}), ("GET", "/openapi.json", None)):
        with one.send(method, path, body) as client:
            if pause:
                time.sleep(pause)  # between what it asks and its last word
            client.shutdown(socket.SHUT_WR)
            answers.append(b"".join(iter(lambda: client.recv(65536), b""))[:12])  # noqa: B023
    assert answers == [b"HTTP/1.1 200", b"HTTP/1.1 201", b"HTTP/1.1 200"]
    eventually(lambda: not one.listener.active_channels)
