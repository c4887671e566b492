"""The wire itself: the running server, held to RFC 9112 and RFC 9110 with raw sockets.

Nothing here knows how the server is built; every test speaks bytes to it and compares what comes back. What
every answer must be - one Date, one Content-Length, no name twice, no bare LF - is asked of each of them by
`Wire.answer`. Surprise: all tests share one server, so each that writes has a queue of its own.
"""
import contextlib
import itertools
import json
import os
import re
import socket
import struct
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import pytest
from conftest import Server, command, eventually

PATIENCE = 3.0   # seconds for anything at all
SOON = 0.5       # seconds within which what has no reason to wait is answered, on a machine that others use
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff\t]*[\x21-\x7e\x80-\xff])?)?[ \t]*")
FIXED_DATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")
BUNDLE = "/api/docs/swagger-ui-bundle.js"  # 1.5 MB
LISTS = {"cache-control"}  # names whose values are lists, and which the wire may therefore say in several lines
PARAM = pytest.param
numbers = itertools.count(1)


class Answer:
    """One answer, as it came: `names` in order, `headers` by lower-case name."""

    def __init__(self, line, fields, body):
        self.version, self.status, self.reason = line
        self.fields, self.body = fields, body
        self.headers = {name.lower(): value for name, value in fields}

    id = property(lambda self: self.headers.get("x-request-id"))
    json = property(lambda self: json.loads(self.body))
    data = property(lambda self: self.json["data"])

    def __repr__(self):
        return f"<{self.version} {self.status} {self.headers} {self.body[:300]!r}>"


class Wire:
    """One raw connection: `send` bytes, and read exactly one `answer` after the other."""

    def __init__(self, url, patience=PATIENCE):
        where = urlsplit(url)
        self.socket = socket.create_connection((where.hostname, where.port), timeout=patience)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.left = b""

    def send(self, *parts):
        self.socket.sendall(b"".join(parts))
        return self

    def last(self, *parts):
        """Send, and end, in one packet where the system can: else a quick server has answered before it hears of the end."""
        assert self.socket.send(data := b"".join(parts), getattr(socket, "MSG_MORE", 0)) == len(data)
        return self.ended()

    def drip(self, data):
        """Send one byte at a time."""
        for at in range(len(data)):
            self.socket.sendall(data[at:at + 1])

    def ended(self):
        """No more is sent from here; what is answered can be read still."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def reset(self):
        """End as a process that is killed may: with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _more(self):
        data = self.socket.recv(65536)
        assert data, f"closed in the middle of an answer, after {self.left[:500]!r}"
        self.left += data

    def answer(self, method="GET"):
        """The next answer, to a request of `method`; checked to be well-formed."""
        while b"\r\n\r\n" not in self.left:
            self._more()
        head, _, self.left = self.left.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        assert b"\n" not in head.replace(b"\r\n", b"") and b"\r" not in head.replace(b"\r\n", b""), f"a bare CR or LF in {head!r}"
        found = re.fullmatch(rb"(HTTP/1\.[01]) ([1-5]\d\d) ([\x20-\x7e]*)", line)
        assert found, f"no status line: {line!r}"
        status = int(found[2])
        matches = [FIELD.fullmatch(one) for one in lines]
        assert all(matches), f"a line that is no header field in {head!r}"
        fields = [(one[1].decode(), (one[2] or b"").decode("latin-1")) for one in matches]
        names = [name.lower() for name, _ in fields]
        assert [name for name in names if names.count(name) > 1 and name not in LISTS] == [], f"a name twice in {names}"
        headers = {name.lower(): value for name, value in fields}
        bare = status < 200 or status in (204, 304)
        assert "transfer-encoding" not in headers, "every answer here has its length"
        if bare:
            assert "content-length" not in headers or status == 304
        else:
            assert re.fullmatch(r"0|[1-9]\d*", headers["content-length"]), headers
        if status >= 200:
            assert FIXED_DATE.fullmatch(headers["date"]), headers["date"]
            assert abs((datetime.now(UTC) - parsedate_to_datetime(headers["date"])).total_seconds()) < 5
        size = 0 if bare or method == "HEAD" else int(headers["content-length"])
        while len(self.left) < size:
            self._more()
        body, self.left = self.left[:size], self.left[size:]
        return Answer((found[1].decode(), status, found[3].decode()), fields, body)

    def silent(self, seconds=0.1):
        """Whether nothing more comes for so long, and the connection stays open."""
        self.socket.settimeout(seconds)
        try:
            if not self.left:
                self.socket.recv(1, socket.MSG_PEEK)
            return False
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)

    def closed(self):
        """Whether the server closes here, with nothing said that was not read. (A reset closes as well.)"""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            self.left += self.socket.recv(65536)
        return not self.left


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """The one server of this file; `token` is an administrator's."""
    server = Server(tmp_path_factory.mktemp("http") / "data")
    try:
        command("user", "add", "root@example.com", "--username", "root", "--role", "admin", "--password-stdin",
                folder=server.folder, stdin="correct horse battery\n")
        server.token = server.call("POST", "/auth/login", {"email": "root@example.com", "password": "correct horse battery"})[1]["token"]
        yield server
    finally:
        server.stop()


@pytest.fixture
def wire(running):
    """Makes connections, which end with the test."""
    made = []

    def connect():
        made.append(Wire(running.url))
        return made[-1]
    yield connect
    for one in made:
        one.socket.close()


@pytest.fixture
def ask(running):
    """The bytes of one request: `ask("POST", path, "Name: value", body={...})`; with the token, unless told otherwise."""
    def make(method, path, *lines, body=None, id=None, version="1.1", token=True, host="localhost"):
        payload = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        head = [f"{method} {path} HTTP/{version}"]
        head += [f"Host: {host}"] if host else []
        head += [f"Authorization: Bearer {running.token}"] if token else []
        head += [f"X-Request-Id: {id}"] if id else []
        head += ["Content-Type: application/json"] if body is not None or method == "POST" else []
        head += [f"Content-Length: {len(payload)}"] if body is not None else []
        return "\r\n".join([*head, *lines, "", ""]).encode("latin-1") + payload
    return make


@pytest.fixture
def jobs(running):
    """The name of a fresh queue; `jobs.types(name)` are the types of the jobs that were submitted to it, oldest first."""
    class Jobs:
        name = f"wire{next(numbers)}"

        def types(self):
            status, found = running.call("GET", f"/task-queue?queue_name={self.name}&limit=200", token=running.token)
            assert status == 200
            return [one["task_type"] for one in reversed(found["data"])]

        def submit(self, kind="smuggled", **more):
            return {"task_type": kind, "queue_name": self.name} | more

        def claim(self, **more):
            return {"worker_id": "w", "queue_name": self.name} | more
    return Jobs()


@pytest.fixture
def smuggled(ask, jobs):
    """A whole request, which would submit a job: the bytes behind what is refused must never become one."""
    return ask("POST", "/api/task-queue/submit", body=jobs.submit())


def chunked(*chunks, end=b"0\r\n\r\n"):
    return b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in chunks) + end


def refused(one, *statuses, method="GET"):
    """The answer that refuses, as the last on its connection."""
    answer = one.answer(method)
    assert answer.status in statuses, answer
    assert answer.headers.get("connection", "").lower() == "close", answer
    assert one.closed(), f"after {answer}: {one.left[:300]!r}"
    return answer


# ── HEAD ──

READS = [
    PARAM("/api/ready", 200, True, id="quick"), PARAM("/api/tasks?limit=5", 200, True, id="quick list"), PARAM("/api/auth/me", 200, True, id="quick, signed in"),
    PARAM("/api/openapi.json", 200, False, id="slow"), PARAM(BUNDLE, 200, False, id="large"), PARAM("/", 200, False, id="page"),
    PARAM("/api/task-queue/stats", 200, True, id="slow, signed in"), PARAM("/api/nothing", 404, False, id="no such path"),
    PARAM("/api/tasks/999999", 404, True, id="no such task"), PARAM("/api/task-queue/job_999999", 404, True, id="no such job"),
    PARAM("/api/tasks?limit=x", 400, True, id="bad query"), PARAM("/api/tasks", 401, False, id="not signed in"),
    PARAM("/api/task-queue", 401, False, id="slow, not signed in")]


@pytest.mark.parametrize("path, status, token", READS)
def test_head_says_all_that_get_says_and_sends_no_body(wire, ask, path, status, token):
    one = wire()
    got = one.send(ask("GET", path, id="same", token=token)).answer()
    assert got.status == status and len(got.body) == int(got.headers["content-length"]) > 0
    head = one.send(ask("HEAD", path, id="same", token=token)).answer("HEAD")
    assert one.silent(0.05), "no body, and the connection stays"
    assert (head.version, head.status, head.reason) == (got.version, got.status, got.reason)
    assert [field for field in head.fields if field[0] != "Date"] == [field for field in got.fields if field[0] != "Date"]
    after = one.send(ask("GET", path, id="same", token=token)).answer()
    assert (after.status, after.body) == (got.status, got.body), "what follows on the connection is not out of step"


def test_heads_in_one_send_do_not_shift_what_follows(wire, ask):
    one = wire()
    paths = ["/api/ready", "/api/openapi.json", "/api/nothing", "/api/tasks?limit=x", "/api/task-queue/stats"]
    plan = [(method, path, f"{method}-{number}") for number, path in enumerate(paths * 2) for method in ("HEAD", "GET", "HEAD")]
    one.send(*(ask(method, path, id=id) for method, path, id in plan))
    lengths = {}
    for method, path, id in plan:
        found = one.answer(method)
        assert found.id == id and len(found.body) == (0 if method == "HEAD" else int(found.headers["content-length"]))
        lengths.setdefault(path, set()).add((found.status, found.headers["content-length"]))
    assert {path: len(found) for path, found in lengths.items() if path not in ("/api/nothing", "/api/tasks?limit=x")} == dict.fromkeys([paths[0], paths[1], paths[4]], 1)
    assert one.silent()


# ── Expect: 100-continue ──

def writes(jobs):
    """(path, body, status) of requests that take a body: answered soon, by another verb, and after some work."""
    return {"submit": ("/api/task-queue/submit", jobs.submit("one"), 201), "claim": ("/api/task-queue/claim", jobs.claim(), 200),
            "task": ("/api/tasks", {"title": f"A task {next(numbers)}"}, 201),
            "login": ("/api/auth/login", {"email": "root@example.com", "password": "correct horse battery"}, 200),
            "invalid": ("/api/task-queue/submit", {"task_type": 7}, 400), "missing": ("/api/nothing", {}, 404)}


def interim(one):
    """The 100 that lets the body come."""
    answer = one.answer()
    assert (answer.version, answer.status, answer.body) == ("HTTP/1.1", 100, b""), answer


@pytest.mark.parametrize("expectation", ["100-continue", "100-Continue"])
@pytest.mark.parametrize("what", ["submit", "claim", "task", "login", "invalid"])
def test_who_expects_a_100_gets_it_before_the_body_and_then_the_answer(wire, ask, jobs, what, expectation):
    path, body, status = writes(jobs)[what]
    request = ask("POST", path, f"Expect: {expectation}", body=body, id="expecting", token=what != "login")
    head, payload = request[:request.index(b"\r\n\r\n") + 4], request[request.index(b"\r\n\r\n") + 4:]
    one = wire().send(head)
    interim(one)
    assert one.silent(0.05), "nothing is answered before the body is there"
    one.send(payload[:3])
    assert one.silent(0.05)
    found = one.send(payload[3:]).answer()
    assert (found.status, found.id) == (status, "expecting")
    assert one.silent(0.05), "one 100, and one answer"
    assert one.send(ask("GET", "/api/ready", id="next")).answer().id == "next"


def test_expecting_twice_on_a_connection_gets_two_100s(wire, ask, jobs):
    one = wire()
    for round in ("first", "second", "third"):
        request = ask("POST", "/api/task-queue/submit", "Expect: 100-continue", body=jobs.submit(round), id=round)
        head, _, payload = request.partition(b"\r\n\r\n")
        one.send(head, b"\r\n\r\n")
        interim(one)
        assert one.send(payload).answer().id == round
        assert one.send(ask("POST", "/api/task-queue/submit", body=jobs.submit("plain"), id="plain")).answer().id == "plain", "no 100 that nobody asked for"
    assert jobs.types() == ["first", "plain", "second", "plain", "third", "plain"]


@pytest.mark.parametrize("what", ["submit", "task", "missing"])
def test_a_body_that_comes_at_once_is_answered_once_whether_or_not_a_100_came_before(wire, ask, jobs, what):
    (path, body, status), (_, another, _) = writes(jobs)[what], writes(jobs)[what]
    one = wire().send(ask("POST", path, "Expect: 100-continue", body=body, id="a"), ask("POST", path, "Expect: 100-continue", body=another, id="b"),
                      ask("GET", "/api/ready", id="c"))
    finals = []
    while len(finals) < 3:
        if (found := one.answer()).status != 100:
            finals.append((found.id, found.status))
    assert finals == [("a", status), ("b", status), ("c", 200)] and one.silent(0.05)
    assert jobs.types() == ["one"] * (2 if what == "submit" else 0)


def test_http_1_0_gets_no_100(wire, ask, jobs):
    request = ask("POST", "/api/task-queue/submit", "Expect: 100-continue", body=jobs.submit("old"), id="old", version="1.0")
    head, _, payload = request.partition(b"\r\n\r\n")
    one = wire().send(head, b"\r\n\r\n")
    assert one.silent(0.1)
    found = one.send(payload).answer()
    assert (found.status, found.id) == (201, "old") and one.closed()


def test_who_expects_in_chunks_gets_a_100_too(wire, ask, jobs):
    one = wire().send(ask("POST", "/api/task-queue/submit", "Expect: 100-continue", "Transfer-Encoding: chunked", id="chunks"))
    interim(one)
    found = one.send(chunked(json.dumps(jobs.submit("chunks")).encode())).answer()
    assert (found.status, found.id) == (201, "chunks") and jobs.types() == ["chunks"]


@pytest.mark.slow
def test_a_100_waits_for_the_answer_that_is_still_under_way(wire, ask, jobs):
    """Answers come in order, and an interim one belongs to its request: before the first answer it would be that one's."""
    request = ask("POST", "/api/task-queue/submit", "Expect: 100-continue", body=jobs.submit("behind"), id="behind")
    head, _, payload = request.partition(b"\r\n\r\n")
    for together in (True, False):
        one = wire()
        first = ask("POST", "/api/task-queue/claim", body=jobs.claim(wait_seconds=0.6, task_type="never"), id="waits")
        if together:
            one.send(first, head, b"\r\n\r\n")
        else:
            one.send(first)
            time.sleep(0.15)  # in a packet of its own
            one.send(head, b"\r\n\r\n")
        found = one.answer()
        assert (found.status, found.id, found.data) == (200, "waits", None)
        interim(one)
        found = one.send(payload).answer()
        assert (found.status, found.id) == (201, "behind")
    assert jobs.types() == ["behind", "behind"]


@pytest.mark.parametrize("lines", [("Content-Length: 900000000",), ("Content-Length: 9000000",), ("Content-Length: 99999999999999999999999999",)])
def test_a_body_that_is_too_large_is_refused_without_waiting_for_it(wire, ask, lines):
    began = time.monotonic()
    one = wire().send(ask("POST", "/api/task-queue/submit", *lines))
    assert refused(one, 413).headers["content-type"] == "application/json"
    assert time.monotonic() - began < SOON + 0.5


def test_another_expectation_holds_nothing_up(wire, ask, jobs):
    one = wire().send(ask("POST", "/api/task-queue/submit", "Expect: tea", body=jobs.submit("tea"), id="tea"))
    found = one.answer()
    assert (found.status, found.id) in ((201, "tea"), (417, "tea"))
    assert jobs.types() == ["tea"] * (found.status == 201)


# ── pipelining ──

def mixture(ask, jobs, rounds):
    """(bytes, what each request of them is: method, id, status), with jobs whose order shows in the answers."""
    parts, plan = [], []

    def add(method, path, status, *lines, **more):
        plan.append((method, f"r{len(plan)}", status))
        parts.append(ask(method, path, *lines, id=plan[-1][1], **more))
    for number in range(rounds):
        add("GET", "/api/ready", 200)
        add("POST", "/api/task-queue/submit", 201, body=jobs.submit(f"t{number}"))
        add("HEAD", "/api/openapi.json", 200)
        add("POST", "/api/task-queue/claim", 200, body=jobs.claim())
        add("GET", "/api/task-queue/stats", 200)
        add("GET", "/api/tasks?limit=x", 400)
        add("HEAD", "/api/ready", 200)
        add("POST", "/api/task-queue/submit", 400, body=b'{"task_type": ')
        add("DELETE", "/api/ready", 405)
        add("POST", "/api/task-queue/claim", 200, body=jobs.claim())
        add("GET", "/api/nothing", 404)
        add("GET", "/api/openapi.json", 200)
        add("POST", "/api/tasks", 401, body={"title": "nobody's"}, token=False)
    return b"".join(parts), plan


def in_order(one, plan, rounds):
    found = [one.answer(method) for method, _, _ in plan]
    assert [(answer.id, answer.status) for answer in found] == [(id, status) for _, id, status in plan]
    size = len(plan) // rounds
    for number in range(rounds):
        mine = found[number * size:(number + 1) * size]
        assert mine[0].data == {"ready": True} and mine[2].body == mine[6].body == b"" and mine[11].json["openapi"].startswith("3")
        assert mine[1].data["task_type"] == mine[3].data["task_type"] == f"t{number}" and mine[1].data["id"] == mine[3].data["id"]
        assert mine[9].data is None, "its only job was claimed by the request before"
        assert [answer.json["error"]["request_id"] for answer in mine if answer.status >= 400] == [answer.id for answer in mine if answer.status >= 400]


def test_many_requests_in_one_send_are_answered_in_order_and_a_malformed_one_ends_them(wire, ask, jobs, smuggled):
    sent, plan = mixture(ask, jobs, 5)
    one = wire().send(sent, b"GET /api/ready HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n", smuggled)
    in_order(one, plan, 5)
    refused(one, 400)
    assert jobs.types() == [f"t{number}" for number in range(5)]


def test_requests_that_come_one_byte_at_a_time_are_answered_all_the_same(wire, ask, jobs):
    sent, plan = mixture(ask, jobs, 1)
    one = wire()
    one.drip(sent)
    in_order(one, plan, 1)
    assert one.silent(0.05) and one.send(ask("GET", "/api/ready", id="whole")).answer().id == "whole"


@pytest.mark.parametrize("size", [7, 61, 1000, 1460])
def test_where_a_send_ends_does_not_matter(wire, ask, jobs, size):
    sent, plan = mixture(ask, jobs, 2)
    one = wire()
    for at in range(0, len(sent), size):
        one.send(sent[at:at + size])
        if size > 100:
            time.sleep(0.005)  # in packets of their own
    in_order(one, plan, 2)


def test_the_same_head_again_is_a_request_of_its_own(wire, ask, jobs):
    one, other = wire(), wire()
    for number in range(3):  # the first of them is understood; what follows, of whatever connection, is known
        for mine, kind in ((one, f"a{number}"), (other, f"b{number}")):
            mine.send(ask("POST", "/api/task-queue/submit", body=jobs.submit(kind))).answer()
    assert jobs.types() == ["a0", "b0", "a1", "b1", "a2", "b2"]
    for query, many in (("limit=2", 2), ("limit=3", 3)) * 2:
        assert len(one.send(ask("GET", f"/api/task-queue?queue_name={jobs.name}&{query}")).answer().data) == many
    head = ask("HEAD", "/api/ready")
    assert one.send(head, head, head).answer("HEAD").status == one.answer("HEAD").status == one.answer("HEAD").status == 200
    expecting = ask("POST", "/api/task-queue/submit", "Expect: 100-continue", body=jobs.submit("c"))
    for mine in (one, other, one):
        head, _, body = expecting.partition(b"\r\n\r\n")
        assert mine.send(head + b"\r\n\r\n").answer().status == 100 and mine.send(body).answer().status == 201
    closing = ask("GET", "/api/ready", "Connection: close")
    for mine in (one, other):
        assert mine.send(closing).answer().status == 200 and mine.closed()


def test_however_many_heads_there_are_each_is_understood(wire, ask, jobs):
    one, kept = wire(), ask("GET", "/api/ready", id="kept")
    for number in range(600):
        assert one.send(ask("GET", "/api/ready", id=f"n{number}")).answer().id == f"n{number}"
        assert number % 50 or one.send(kept).answer().id == "kept"


@pytest.mark.slow
def test_requests_behind_a_long_poll_wait_for_it_and_none_of_them_is_done_before(wire, ask, jobs):
    one = wire()
    began = time.monotonic()
    one.send(ask("POST", "/api/task-queue/claim", body=jobs.claim(wait_seconds=1), id="poll"), ask("GET", "/api/ready", id="quick"),
             ask("POST", "/api/task-queue/submit", body=jobs.submit("late"), id="submit"), ask("POST", "/api/task-queue/claim", body=jobs.claim(), id="claim"))
    found = one.answer()
    took = time.monotonic() - began
    assert (found.id, found.data) == ("poll", None), "a job that is submitted behind it is not there yet"
    assert 0.9 < took < 1.0 + SOON
    found = [one.answer() for _ in range(3)]
    assert [answer.id for answer in found] == ["quick", "submit", "claim"] and found[1].data["id"] == found[2].data["id"]
    assert time.monotonic() - began < took + SOON


def test_a_long_poll_that_gets_its_job_lets_those_behind_it_go_on_at_once(wire, ask, jobs):
    one, other = wire(), wire()
    one.send(ask("POST", "/api/task-queue/claim", body=jobs.claim(wait_seconds=2), id="poll"), ask("GET", "/api/ready", id="quick"),
             ask("HEAD", "/api/openapi.json", id="slow"))
    assert one.silent(0.2)
    began = time.monotonic()
    assert other.send(ask("POST", "/api/task-queue/submit", body=jobs.submit("now"))).answer().status == 201
    found = [one.answer(), one.answer(), one.answer("HEAD")]
    assert [answer.id for answer in found] == ["poll", "quick", "slow"] and found[0].data["task_type"] == "now"
    assert time.monotonic() - began < SOON


def test_what_comes_while_a_request_is_worked_on_is_answered_after_it(wire, ask, jobs):
    one = wire().send(ask("POST", "/api/task-queue/claim", body=jobs.claim(wait_seconds=0.5), id="0"))
    for number in range(1, 31):
        time.sleep(0.01)  # one after the other
        one.send(ask("GET", "/api/ready" if number % 3 else "/api/openapi.json", id=str(number)))
    assert [one.answer().id for _ in range(31)] == [str(number) for number in range(31)]


# ── how long a connection lasts ──

def test_a_connection_of_http_1_1_is_kept_without_being_asked_to(wire, ask, jobs):
    one = wire()
    for number in range(20):
        method, path, body = [("GET", "/api/ready", None), ("POST", "/api/task-queue/submit", jobs.submit(f"t{number}")), ("HEAD", "/api/ready", None),
                              ("GET", "/api/openapi.json", None), ("GET", "/api/nothing", None)][number % 5]
        found = one.send(ask(method, path, body=body, id=str(number))).answer(method)
        assert (found.id, found.version) == (str(number), "HTTP/1.1") and "close" not in found.headers.get("connection", "").lower()
    assert jobs.types() == ["t1", "t6", "t11", "t16"] and one.silent(0.05)


@pytest.mark.parametrize("path", ["/api/ready", "/api/openapi.json", "/api/nothing"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("value", ["close", "Close"])
def test_connection_close_closes_after_the_answer_and_nothing_behind_it_is_executed(wire, ask, jobs, smuggled, method, path, value):
    one = wire().send(ask("GET", "/api/ready", id="before"), ask(method, path, f"Connection: {value}", id="last"), smuggled)
    assert one.answer().id == "before"
    assert one.answer(method).id == "last"
    assert one.closed() and jobs.types() == []


def test_a_post_that_closes_is_answered_first(wire, ask, jobs, smuggled):
    one = wire().send(ask("POST", "/api/task-queue/submit", "Connection: close", body=jobs.submit("last"), id="last"), smuggled)
    found = one.answer()
    assert (found.id, found.status) == ("last", 201)
    assert one.closed() and jobs.types() == ["last"]


@pytest.mark.parametrize("method, path", [("GET", "/api/ready"), ("HEAD", "/api/ready"), ("GET", "/api/openapi.json"), ("GET", BUNDLE), ("GET", "/api/nothing")])
def test_a_connection_of_http_1_0_closes(wire, ask, jobs, smuggled, method, path):
    one = wire().send(ask(method, path, id="old", version="1.0", host=""), smuggled)
    found = one.answer(method)
    assert found.id == "old" and found.headers.get("connection", "close").lower() == "close"
    assert one.closed() and jobs.types() == []


@pytest.mark.parametrize("value", ["keep-alive", "Keep-Alive"])
def test_a_connection_of_http_1_0_is_kept_where_it_asks_for_that(wire, ask, jobs, value):
    one = wire()
    for number, (method, path, body) in enumerate([("GET", "/api/ready", None), ("HEAD", "/api/openapi.json", None), ("GET", "/api/openapi.json", None),
                                                   ("POST", "/api/task-queue/submit", jobs.submit("old")), ("GET", "/api/nothing", None)]):
        found = one.send(ask(method, path, f"Connection: {value}", body=body, id=str(number), version="1.0")).answer(method)
        assert (found.id, found.headers["connection"].lower()) == (str(number), "keep-alive")
    assert one.silent(0.05)
    assert one.send(ask("GET", "/api/ready", id="last", version="1.0")).answer().id == "last" and one.closed()


@pytest.mark.slow
def test_a_connection_that_was_idle_for_a_while_is_served_at_once(wire, ask, jobs):
    used, unused = wire(), wire()
    assert used.send(ask("GET", "/api/ready", id="first")).answer().id == "first"
    time.sleep(1.3)  # idle
    for one in (used, unused):
        for method, path, body in [("GET", "/api/ready", None), ("POST", "/api/task-queue/submit", jobs.submit("late")), ("GET", "/api/openapi.json", None)]:
            began = time.monotonic()
            assert one.send(ask(method, path, body=body, id="late")).answer().id == "late"
            assert time.monotonic() - began < SOON
    assert jobs.types() == ["late", "late"]


@pytest.mark.slow
def test_fifty_idle_connections_are_each_served_when_they_speak_again(wire, ask, jobs):
    idle = [wire() for _ in range(50)]
    waits = []
    for turn in range(2):
        for number, one in reversed(list(enumerate(idle))):
            began = time.monotonic()
            if number % 5:
                found = one.send(ask("GET", "/api/ready", id=f"{turn}-{number}")).answer()
            else:
                found = one.send(ask("POST", "/api/task-queue/submit", body=jobs.submit(f"t{turn}-{number}"), id=f"{turn}-{number}")).answer()
            waits.append(time.monotonic() - began)
            assert found.id == f"{turn}-{number}" and found.status == (200 if number % 5 else 201)
        time.sleep(0.6)  # idle
    assert max(waits) < SOON, max(waits)
    for number, one in enumerate(idle):  # all at once, too
        one.send(ask("GET", "/api/ready", id=str(number)))
    assert [one.answer().id for one in idle] == [str(number) for number in range(50)]
    assert len(jobs.types()) == 20


# ── a client that has said all it has to say ──

@pytest.mark.parametrize("pause", [0, 0.1])
@pytest.mark.parametrize("method, path", [("GET", "/api/ready"), ("HEAD", "/api/ready"), ("GET", "/api/openapi.json"), ("GET", BUNDLE), ("GET", "/api/nothing")])
def test_who_says_no_more_is_answered_still(wire, ask, method, path, pause):
    one = wire().send(ask(method, path, id="half"))
    if pause:
        time.sleep(pause)  # between what it asks and its last word
    found = one.ended().answer(method)
    assert found.id == "half" and one.closed()


def test_who_posts_and_says_no_more_is_answered_still(wire, ask, jobs):
    for number in range(10):
        found = wire().send(ask("POST", "/api/task-queue/submit", body=jobs.submit(f"t{number}"), id="half")).ended().answer()
        assert (found.id, found.status) == ("half", 201)
    assert jobs.types() == [f"t{number}" for number in range(10)]
    assert wire().send(ask("POST", "/api/auth/login", body=writes(jobs)["login"][1], token=False)).ended().answer().status == 200


def test_all_of_several_requests_are_answered_to_who_says_no_more(wire, ask, jobs):
    plan = [("GET", "/api/ready", None, 200), ("POST", "/api/task-queue/submit", jobs.submit("half"), 201), ("HEAD", "/api/openapi.json", None, 200),
            ("GET", "/api/openapi.json", None, 200), ("GET", "/api/nothing", None, 404)] * 4
    one = wire().send(*(ask(method, path, body=body, id=str(number)) for number, (method, path, body, _) in enumerate(plan))).ended()
    found = [one.answer(method) for method, *_ in plan]
    assert [(answer.id, answer.status) for answer in found] == [(str(number), status) for number, (*_, status) in enumerate(plan)]
    assert one.closed() and jobs.types() == ["half"] * 4


def test_a_claim_of_who_says_no_more_is_answered_and_costs_no_job(running, wire, ask, jobs):
    """Who waits for a job and closes is gone, as far as can be told; a job it is not given stays for others."""
    job = wire().send(ask("POST", "/api/task-queue/submit", body=jobs.submit("job"))).answer().data["id"]
    one = wire().last(ask("POST", "/api/task-queue/claim", body=jobs.claim(), id="half"))
    found = one.answer()
    assert (found.id, found.status) == ("half", 409) and one.closed()
    shown = eventually(lambda: (row := running.call("GET", f"/task-queue/{job}", token=running.token)[1]["data"])["status"] == "waiting" and row)
    assert shown["attempt"] == 0


@pytest.mark.parametrize("cut", [10, 60, -5])
def test_half_a_request_and_no_more_is_not_executed_and_the_connection_closes(wire, ask, jobs, smuggled, cut):
    one = wire().send(smuggled[:cut]).ended()
    with contextlib.suppress(ConnectionResetError):
        data = one.socket.recv(65536)
        assert data == b"" or data.startswith(b"HTTP/1.1 400 "), data
    assert jobs.types() == []


# ── bodies in chunks ──

def encodings(body):
    return {"one": chunked(body), "many": chunked(*(body[at:at + 5] for at in range(0, len(body), 5))),
            "upper case and zeros": b"00%X\r\n%s\r\n000\r\n\r\n" % (len(body), body),
            "extensions": b'%x;a;b=c;d="e f"\r\n%s\r\n0;last\r\n\r\n' % (len(body), body),
            "trailers": chunked(body, end=b"0\r\nX-Check: 1\r\nContent-Length: 3\r\nAuthorization: none\r\n\r\n")}


@pytest.mark.parametrize("drip", [False, True], ids=["in one send", "one byte at a time"])
@pytest.mark.parametrize("how", ["one", "many", "upper case and zeros", "extensions", "trailers"])
def test_a_body_in_chunks_is_put_together(wire, ask, jobs, how, drip):
    body = json.dumps(jobs.submit("whole", payload={"text": "0\r\n\r\n" * 10})).encode()
    sent = ask("POST", "/api/task-queue/submit", "Transfer-Encoding: chunked", id="chunks") + encodings(body)[how] + ask("GET", "/api/ready", id="next")
    one = wire()
    (one.drip if drip else one.send)(sent)
    found = one.answer()
    assert (found.id, found.status, found.data["payload"]) == ("chunks", 201, {"text": "0\r\n\r\n" * 10})
    assert one.answer().id == "next" and one.silent(0.05) and jobs.types() == ["whole"]


def test_an_empty_body_in_chunks_is_an_empty_body(wire, ask):
    one = wire().send(ask("POST", "/api/task-queue/submit", "Transfer-Encoding: chunked", id="empty"), chunked(), ask("GET", "/api/ready", id="next"))
    found = one.answer()
    assert (found.id, found.status) == ("empty", 400) and [one["field"] for one in found.json["error"]["details"]] == ["task_type"]
    assert one.answer().id == "next"


def test_the_name_of_a_coding_has_no_case(wire, ask, jobs):
    body = json.dumps(jobs.submit("upper")).encode()
    one = wire().send(ask("POST", "/api/task-queue/submit", "transfer-ENCODING: Chunked", id="upper"), chunked(body), ask("GET", "/api/ready", id="next"))
    assert [one.answer().id, one.answer().id] == ["upper", "next"] and jobs.types() == ["upper"]


@pytest.mark.parametrize("bad", [
    b"xyz\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"5_0\r\nhello\r\n0\r\n\r\n",
    b" 5\r\nhello\r\n0\r\n\r\n", b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello, and more\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n",
    b"5;=\r\nhello\r\n0\r\n\r\n", b";x\r\nhello\r\n0\r\n\r\n", b"5;a\x00\r\nhello\r\n0\r\n\r\n", b"\xb2\r\nhello\r\n0\r\n\r\n"])
def test_a_malformed_chunk_is_400_and_nothing_behind_it_is_executed(wire, ask, jobs, smuggled, bad):
    for begin in (b"", chunked(json.dumps(jobs.submit()).encode(), end=b"")):
        one = wire().send(ask("POST", "/api/task-queue/submit", "Transfer-Encoding: chunked"), begin, bad, smuggled)
        refused(one, 400)
    assert jobs.types() == []


def test_chunks_without_end_are_too_large_at_some_point(wire, ask, jobs):
    one = wire().send(ask("POST", "/api/task-queue/submit", "Transfer-Encoding: chunked"))
    block = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        for _ in range(400):
            one.send(block)
        raise AssertionError("25 MB were taken")
    assert one.answer().status == 413
    assert jobs.types() == []


def test_a_large_refused_body_does_not_take_the_refusal_with_it(wire, ask):
    """Who closes with bytes unread resets the connection; the client must find its answer all the same."""
    one = wire().send(ask("POST", "/api/task-queue/submit", "Content-Length: 9000000"))
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        for _ in range(90):
            one.send(b" " * 100_000)
    assert one.answer().status == 413


# ── framing that is not to be trusted ──

@pytest.mark.parametrize("value, statuses", [
    ("gzip", (400, 501)), ("gzip, chunked", (400, 501)), ("identity", (400, 501)), ("chunked, gzip", (400, 501)), ("xchunked", (400, 501)),
    ("\x0bchunked", (400, 501)), ("chunked\x00", (400,)), ("\xa0chunked", (400, 501)), ("chunked;q=1", (400, 501)), ("\"chunked\"", (400, 501))])
def test_another_transfer_encoding_is_refused_with_all_that_is_behind_it(wire, ask, jobs, smuggled, value, statuses):
    one = wire().send(ask("POST", "/api/task-queue/submit", f"Transfer-Encoding: {value}"), chunked(), smuggled)
    refused(one, *statuses)
    assert jobs.types() == []


@pytest.mark.parametrize("lines", [
    ("Transfer-Encoding: chunked", "Content-Length: 5"), ("Content-Length: 5", "Transfer-Encoding: chunked"), ("Content-Length: 0", "Transfer-Encoding: chunked"),
    ("Transfer-Encoding: gzip", "Content-Length: 5"), ("Transfer-Encoding: chunked", "Transfer-Encoding: gzip"), ("Transfer-Encoding : chunked",),
    ("Content-Length: 5", "Transfer-Encoding : chunked"), ("Content-Length : 5",)])
def test_a_length_and_a_coding_together_or_out_of_shape_are_refused(wire, ask, jobs, smuggled, lines):
    one = wire().send(ask("POST", "/api/task-queue/submit", *lines), chunked(), smuggled)
    refused(one, 400, 501)
    assert jobs.types() == []


LENGTHS = ["", "-1", "+1", "1 1", "0x5", "1,2", "5;", "5.0", "5e0", "five", "\u00b2", "1_0", "-0", "0, 5"]


@pytest.mark.parametrize("value", LENGTHS)
def test_a_content_length_that_is_none_is_400_and_nothing_behind_it_is_executed(wire, ask, jobs, smuggled, value):
    for method in ("POST", "GET"):
        one = wire().send(ask(method, "/api/ready", f"Content-Length: {value}"), smuggled)
        refused(one, 400)
    assert jobs.types() == []


@pytest.mark.parametrize("pair", [("0", "5"), ("5", "0"), ("1", "9999999999"), ("5", "x")])
def test_two_content_lengths_that_differ_are_400(wire, ask, jobs, smuggled, pair):
    one = wire().send(ask("POST", "/api/task-queue/submit", *(f"Content-Length: {value}" for value in pair)), smuggled)
    refused(one, 400)
    assert jobs.types() == []


def test_two_content_lengths_that_agree_are_refused_or_taken_as_one(wire, ask, jobs, smuggled):
    body = json.dumps(jobs.submit("agreed")).encode()
    one = wire().send(ask("POST", "/api/task-queue/submit", f"Content-Length: {len(body)}", f"Content-Length: {len(body)}"), body, ask("GET", "/api/ready", id="next"))
    found = one.answer()
    if found.status == 400:
        assert one.closed() and jobs.types() == []
    else:
        assert found.status == 201 and one.answer().id == "next" and jobs.types() == ["agreed"]


def test_the_body_of_a_refused_request_is_never_a_request(wire, ask, jobs, smuggled):
    """Too large, malformed, or for nobody: what was to be its body looks like a request, and must not be one."""
    one = wire().send(ask("POST", "/api/task-queue/submit", "Content-Length: 9000000"), smuggled * 3)
    refused(one, 413)
    one = wire().send(ask("POST", "/api/task-queue/submit", "no colon", f"Content-Length: {len(smuggled)}"), smuggled)
    refused(one, 400)
    for method, path, status in [("POST", "/api/nothing", 404), ("DELETE", "/api/ready", 405), ("GET", "/api/ready", 200), ("GET", "/api/openapi.json", 200), ("HEAD", "/api/ready", 200),
                                 ("POST", "/api/task-queue/submit", 400)]:
        one = wire().send(ask(method, path, f"Content-Length: {len(smuggled)}", id="first"), smuggled, ask("GET", "/api/ready", id="next"))
        found = one.answer(method)
        assert (found.id, found.status) == ("first", status)
        assert one.answer().id == "next", "its body belonged to it"
    assert jobs.types() == []


def test_a_key_in_a_head_that_cannot_be_read_is_told_to_nobody(wire, running):
    lines = (b"Authorization: Bearer ork_live_HIDDENHIDDEN\r", b"X-API-Key: HIDDENHIDDEN\r", b"Cookie: orkosi=ork_ses_HIDDENHIDDEN\r", b"ork_live_HIDDENHIDDEN")
    for line in lines:
        answer = wire().send(b"GET /api/ready HTTP/1.1\r\nHost: localhost\r\n" + line + b"\r\n\r\n").answer()
        assert answer.status == 400 and b"HIDDEN" not in answer.body, answer.body
    log = running.folder / "logs" / "orkosi.log"
    assert eventually(lambda: "malformed requests refused, the last: Bad Request" in log.read_text()) and "HIDDEN" not in log.read_text()


@pytest.mark.parametrize("sent", [
    b"GET /api/ready HTTP/1.1\r\nHost: localhost\r\nX-A: a\x00b\r\n\r\n", b"GET /api/ready HTTP/1.1\r\nHost: localhost\r\nX-A: a\rb\r\n\r\n",
    b"GET /api/ready HTTP/1.1\r\nHost : localhost\r\n\r\n", b"GET /api/ready HTTP/1.1\r\n Host: localhost\r\n\r\n", b"GET /api/ready HTTP/1.1\r\n: x\r\nHost: localhost\r\n\r\n",
    b"GET  /api/ready HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /api/ready HTTP/1.1 x\r\nHost: localhost\r\n\r\n", b"GET /api/ready HTTP/x\r\nHost: localhost\r\n\r\n",
    b"GET /api/ready http/1.1\r\nHost: localhost\r\n\r\n", b"GET /api/ready HTTP/1.1\r\nX-Only: 1\r\n\r\n",
    b"GET /api/ready HTTP/1.1\r\nHost: localhost\r\nX-A: 1\nX-B: 2\r\n\r\n", b"G(T /api/ready HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_malformed_head_is_400_and_nothing_behind_it_is_executed(wire, jobs, smuggled, sent):
    refused(wire().send(sent, smuggled), 400)
    assert jobs.types() == []


def test_two_hosts_are_400(wire, ask, jobs):
    for second in ("localhost", "127.0.0.1"):
        assert wire().send(ask("POST", "/api/task-queue/submit", f"Host: {second}", body=jobs.submit())).answer().status == 400
    assert jobs.types() == []


def test_headers_without_end_are_431(wire):
    one = wire().send(b"GET /api/ready HTTP/1.1\r\nHost: localhost\r\n", b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1000) for number in range(40)))
    refused(one, 431)


@pytest.mark.parametrize("lines, body", [(("Content-Length: 1", " 5"), b""), (("Transfer-Encoding:", " chunked"), b"0\r\n\r\n"), (("X-A: 1", "\tfolded"), b"")])
def test_a_folded_line_is_refused_or_read_as_one_line(wire, ask, lines, body):
    one = wire().send(ask("GET", "/api/ready", *lines, id="folded"), body, ask("GET", "/api/ready", id="next"))
    found = one.answer()
    if found.status == 400:
        assert one.closed()
    else:
        assert found.status == 200 and lines[0] != "Content-Length: 1" and one.answer().id == "next"


def test_empty_lines_before_a_request_are_no_request(wire, ask):
    one = wire().send(b"\r\n", ask("GET", "/api/ready", id="a"), b"\r\n\r\n", ask("POST", "/api/nothing", body={}, id="b"), b"\r\n", ask("GET", "/api/ready", id="c"))
    assert [one.answer().id for _ in range(3)] == ["a", "b", "c"] and one.silent(0.05)


def test_the_absolute_form_of_a_target_is_the_same_target(wire, ask):
    one = wire()
    plain = one.send(ask("GET", "/api/tasks?limit=1&status=todo", id="same")).answer()
    absolute = one.send(ask("GET", "http://localhost/api/tasks?limit=1&status=todo", id="same")).answer()
    assert (absolute.status, absolute.body) == (200, plain.body)


# ── what an answer says ──

@pytest.mark.parametrize("path, allowed", [("/api/ready", {"GET", "HEAD"}), ("/api/openapi.json", {"GET", "HEAD"}), ("/api/task-queue/submit", None),
                                           ("/api/tasks", {"GET", "HEAD", "POST"}), ("/api/auth/login", {"POST"})])
def test_405_lists_what_is_allowed_and_only_that(wire, ask, path, allowed):
    one, seen = wire(), set()
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
        found = one.send(ask(method, path, body={} if method in ("POST", "PUT", "PATCH") else None, id=method)).answer(method)
        assert found.id == method
        listed = set(re.split(r", *", found.headers["allow"])) if "allow" in found.headers else None
        if found.status == 405:
            assert listed and method not in listed and allowed in (None, listed), found
            seen.add(frozenset(listed))
        elif allowed:
            assert method in allowed | {"OPTIONS"}, found
    assert len(seen) == 1, "every 405 of a path says the same"


def test_every_answer_names_its_type_and_what_it_answers(wire, ask, jobs):
    one = wire()
    for method, path, body, status, kind in [
            ("GET", "/api/ready", None, 200, "application/json"), ("GET", "/api/openapi.json", None, 200, "application/json"), ("GET", "/", None, 200, "text/html; charset=utf-8"),
            ("POST", "/api/task-queue/submit", jobs.submit("typed"), 201, "application/json"), ("GET", "/api/nothing", None, 404, "application/json"),
            ("PUT", "/api/ready", {}, 405, "application/json"), ("POST", "/api/tasks", b"{", 400, "application/json")]:
        found = one.send(ask(method, path, body=body)).answer(method)
        assert (found.status, found.headers["content-type"]) == (status, kind), found
        assert found.reason == {200: "OK", 201: "Created", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}[status]
        assert re.fullmatch(r"[0-9a-f]{16}", found.id), "who sends no id gets one"
    assert len({one.send(ask("GET", "/api/ready")).answer().id for _ in range(3)}) == 3


def test_401_says_how_to_sign_in(wire, ask):
    for path, lines in (("/api/tasks", ()), ("/api/task-queue", ()), ("/api/tasks", ("Authorization: Bearer nobody",))):
        found = wire().send(ask("GET", path, *lines, token=False)).answer()
        assert (found.status, found.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("id", ["a\tb", "x" * 65, "a b", "a;b", "\xe9", "<b>"])
def test_an_id_of_another_shape_is_not_said_back(wire, ask, id):
    for path in ("/api/ready", "/api/openapi.json"):
        assert re.fullmatch(r"[0-9a-f]{16}", wire().send(ask("GET", path, id=id)).answer().id)


def test_a_line_break_in_a_target_is_no_line_break_in_an_answer(wire, ask):
    one = wire()
    for path in ("/api/%0d%0aX-Bad:%201", "/api/tasks/%0d%0aX-Bad:%201", "/api/tasks?status=%0d%0aX-Bad:%201", "/pages/%0d%0aX-Bad:%201", "/api/docs/%0aX-Bad:1"):
        found = one.send(ask("GET", path, id="split")).answer()
        assert found.id == "split" and found.status in (400, 404) and "x-bad" not in found.headers


# ── clients that go ──

def held(running):
    """What the server holds open, but for the files of its data."""
    folder, found = f"/proc/{running.process.pid}/fd", []
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"{folder}/{name}"))
    return sum(not one.startswith(str(running.folder)) or one.endswith("(deleted)") for one in found)


def steady(running):
    """The count once connections that ended are gone."""
    last, since = held(running), time.monotonic()
    while time.monotonic() - since < 0.1:
        time.sleep(0.02)  # a look now and then
        if (count := held(running)) != last:
            last, since = count, time.monotonic()
    return last


GOING = ["at once", "in the line", "in a header", "in the body", "in a large body", "in a chunk", "in a large chunk", "after a 100", "between two", "in the second",
         "in a long poll", "before a large answer"]


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts what /proc lists")
@pytest.mark.parametrize("hard", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("where", GOING)
@pytest.mark.slow
def test_who_goes_in_the_middle_leaves_nothing(running, ask, jobs, smuggled, where, hard):
    sent = {"at once": b"", "in the line": smuggled[:15], "in a header": smuggled[:70], "in the body": smuggled[:-3],
            "in a large body": ask("POST", "/api/task-queue/submit", "Content-Length: 700000") + b" " * 400_000,
            "in a chunk": ask("POST", "/api/task-queue/submit", "Transfer-Encoding: chunked") + b"50\r\n{",
            "in a large chunk": ask("POST", "/api/task-queue/submit", "Transfer-Encoding: chunked") + b"70000\r\n" + b" " * 400_000,
            "after a 100": ask("POST", "/api/task-queue/submit", "Expect: 100-continue", "Content-Length: 50"),
            "between two": ask("GET", "/api/ready"), "in the second": ask("GET", "/api/ready") + smuggled[:-3],
            "in a long poll": ask("POST", "/api/task-queue/claim", body=jobs.claim(wait_seconds=1.5)), "before a large answer": ask("GET", BUNDLE) * 5}[where]
    before = steady(running)
    crowd = [Wire(running.url).send(sent) for _ in range(10)]
    try:
        eventually(lambda: held(running) >= before + 10, patience=1.0)
        time.sleep(0.05)  # what was sent is read, which nobody outside can see
    finally:
        for one in crowd:
            one.reset() if hard else one.socket.close()
    eventually(lambda: held(running) <= before, patience=2.0)
    assert jobs.types() == []
    assert running.call("GET", "/ready")[0] == 200


# ── what the RFCs say as well ──

@pytest.mark.parametrize("path", ["/api/ready", "/api/openapi.json", "/api/nothing"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_answer_before_a_close_says_close(wire, ask, path, version):
    """RFC 9112 9.6: the server should send the option in its last answer."""
    for method in ("GET", "HEAD"):
        found = wire().send(ask(method, path, "Connection: close", version=version)).answer(method)
        assert found.headers.get("connection", "").lower() == "close", f"{method}: {found}"
    found = wire().send(ask("POST", "/api/nothing", "Connection: close", body={}, version=version)).answer()
    assert found.headers.get("connection", "").lower() == "close", found


@pytest.mark.parametrize("path", ["/api/ready", "/api/openapi.json", BUNDLE, "/", "/api/nothing"])
def test_no_header_stands_twice(wire, ask, path):
    """Where two lines are one list (RFC 9110 5.3), they must not say the opposite of each other."""
    for method in ("GET", "HEAD"):
        names = [name.lower() for name, _ in wire().send(ask(method, path)).answer(method).fields]
        assert [name for name in names if names.count(name) > 1] == []


def test_head_of_what_may_only_be_posted_is_as_long_as_get(wire, ask):
    """RFC 9110 8.6: no Content-Length that GET would not have."""
    one = wire()
    get, head = [one.send(ask(method, "/api/auth/login", id="same")).answer(method) for method in ("GET", "HEAD")]
    assert (get.status, head.status) == (405, 405) and head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize("rest, status", [
    PARAM(b"\r\n\r\n", 400, id="no host"), PARAM(b"\r\nHost: localhost\r\nno colon\r\n\r\n", 400, id="no colon"),
    PARAM(b"\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", 400, id="no length"), PARAM(b"\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n", 413, id="too large")])
def test_a_refused_head_has_no_body_either(wire, rest, status):
    """RFC 9110 9.3.2: no content in any answer to HEAD."""
    one = wire().send(b"HEAD /api/ready HTTP/1.1", rest)
    assert one.answer("HEAD").status == status and one.closed(), one.left


@pytest.mark.parametrize("lines", [("Connection: close, te",), ("Connection: te,close",), ("Connection: keep-alive, Close",), ("Connection: te", "Connection: close")])
@pytest.mark.parametrize("path", ["/api/ready", "/api/openapi.json"])
def test_close_counts_wherever_it_stands_among_the_options(wire, ask, jobs, smuggled, path, lines):
    """RFC 9112 9.3 and 9.6: the value is a list, and nothing behind a close is processed."""
    one = wire().send(ask("GET", path, *lines, id="last"), smuggled)
    assert one.answer().id == "last"
    assert jobs.types() == [] and one.closed(), one.left


def test_keep_alive_counts_among_the_options_of_http_1_0(wire, ask):
    """RFC 9112 9.3; and close counts more."""
    one = wire().send(ask("GET", "/api/ready", "Connection: keep-alive, close", id="closes", version="1.0"))
    assert one.answer().id == "closes" and one.closed()
    one = wire().send(ask("GET", "/api/ready", "Connection: te, keep-alive", id="keeps", version="1.0"))
    assert one.answer().id == "keeps" and one.silent(), "kept"


@pytest.mark.parametrize("length", ["9000000", "900000000000"])
def test_who_expects_and_is_too_large_hears_that_and_no_100(wire, ask, length):
    """RFC 9110 10.1.1: the answer at once, where it is known from the head."""
    refused(wire().send(ask("POST", "/api/task-queue/submit", "Expect: 100-continue", f"Content-Length: {length}")), 413)


@pytest.mark.parametrize("lines", [("Content-Length: 5",), ("Host: localhost", "Content-Length: x"), ("Host: localhost", "Content-Length: 5", "Transfer-Encoding: chunked"),
                                   ("Host: localhost", "Transfer-Encoding: gzip")])
def test_who_expects_and_is_malformed_hears_that_and_no_100(wire, ask, lines):
    """RFC 9112 3.2 and 6.3: 400, and not an invitation to send what cannot be framed."""
    refused(wire().send(ask("POST", "/api/tasks", "Expect: 100-continue", *lines, host="")), 400, 501)


@pytest.mark.parametrize("method, path, lines, status", [
    PARAM("GET", "/api/ready", (), 200, id="quick"), PARAM("GET", "/api/openapi.json", (), 200, id="slow"), PARAM("HEAD", "/api/ready", (), 200, id="head"),
    PARAM("POST", "/api/task-queue/submit", ("Content-Length: 0",), 400, id="nothing posted"), PARAM("POST", "/api/nothing", (), 404, id="no length")])
def test_who_expects_and_has_no_body_is_answered(wire, ask, method, path, lines, status):
    """RFC 9110 10.1.1: a 100 may be left out then, but never the answer; and what follows is a request of its own."""
    one = wire().send(ask(method, path, "Expect: 100-continue", *lines, id="bodyless"))
    one.socket.settimeout(0.7)
    found = one.answer(method)
    if found.status == 100:
        found = one.answer(method)
    assert (found.id, found.status) == ("bodyless", status)
    assert one.send(ask("GET", "/api/ready", id="next")).answer().id == "next"


@pytest.mark.parametrize("version", ["1.0", "1.2", "1.9"])
@pytest.mark.parametrize("lines", [("Transfer-Encoding: chunked",), ("Transfer-Encoding: chunked", "Connection: keep-alive"), ("Transfer-Encoding: gzip", "Connection: keep-alive")])
def test_what_a_coding_frames_in_another_version_is_never_a_request(wire, ask, jobs, smuggled, version, lines):
    """RFC 9112 6.1: with HTTP/1.0 the framing is faulty, and the connection closes. A later 1.x is read as 1.1 (RFC 9110 2.5)."""
    one = wire().send(ask("POST", "/api/nothing", *lines, version=version), smuggled)
    assert one.answer().status in (400, 404, 501, 505)
    assert jobs.types() == [] and one.closed(), one.left


@pytest.mark.parametrize("lines", [("Transfer-Encoding:",), ("Transfer-Encoding: ,",), ("Transfer-Encoding:", "Content-Length: 5"), ("Transfer-Encoding: chunked, chunked",),
                                   ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked")])
def test_a_coding_that_is_none_or_twice_the_same_is_refused(wire, ask, jobs, smuggled, lines):
    """RFC 9112 6.3: 400 and a close, unless chunked is the last; 6.1: and it is applied once only."""
    one = wire().send(ask("POST", "/api/task-queue/submit", *lines), chunked(), smuggled)
    found = one.answer()
    assert found.status in (400, 501) and jobs.types() == []
    assert one.closed(), (found, one.left)


@pytest.mark.parametrize("version", ["1.2", "1.9"])
def test_a_later_minor_version_is_answered_as_http_1_1(wire, ask, version):
    """RFC 9110 2.5: as the highest minor version that the server knows."""
    one = wire().send(ask("GET", "/api/ready", id="later", version=version), ask("GET", "/api/ready", id="next"))
    found = one.answer()
    assert (found.id, found.status, found.version) == ("later", 200, "HTTP/1.1") and one.answer().id == "next"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_every_answer_says_what_the_server_speaks(wire, ask, version):
    """RFC 9110 6.2: the highest version that the server conforms to, also to HTTP/1.0, and to what is no request."""
    assert wire().send(ask("GET", "/api/ready", version=version)).answer().version == "HTTP/1.1"
    assert wire().send(ask("GET", "/api/ready", "no colon", version=version)).answer().version == "HTTP/1.1"


@pytest.mark.parametrize("digits", [4000, 5000, 20000])
def test_a_content_length_of_very_many_digits_is_refused(wire, ask, digits):
    """RFC 9110 8.6: large numerals are to be expected."""
    refused(wire().send(ask("POST", "/api/task-queue/submit", f"Content-Length: {'9' * digits}")), 400, 413)


@pytest.mark.parametrize("bad", [b"\r\n0\r\n\r\n", b"\r\n\r\n5\r\n     \r\n0\r\n\r\n", b"0\r\nno colon\r\n\r\n", b"0\r\nX-A: a\x00b\r\n\r\n", b"0\r\nX-A : b\r\n\r\n", b"0\r\nX-A: 1\nX-B: 2\r\n\r\n"])
def test_a_line_that_is_no_chunk_and_a_trailer_that_is_none_are_400(wire, ask, jobs, smuggled, bad):
    """RFC 9112 2.2: what does not match the grammar of 7.1 should be refused, and close."""
    body = chunked(json.dumps(jobs.submit()).encode(), end=b"")
    refused(wire().send(ask("POST", "/api/task-queue/submit", "Transfer-Encoding: chunked"), body, bad, smuggled), 400)
    assert jobs.types() == []


@pytest.mark.parametrize("target, host, statuses", [
    PARAM("http://evil.example/api/ready", "localhost", (400, 421), id="another's"), PARAM("http://localhost/api/ready", "evil.example", (200,), id="ours"),
    PARAM("http:///api/ready", "localhost", (400,), id="nobody's")])
def test_the_host_of_an_absolute_target_counts_and_not_the_header(wire, ask, target, host, statuses):
    """RFC 9112 3.2.2: the Host header is ignored then. RFC 9110 4.2.1: and a target without a host is refused."""
    assert wire().send(ask("GET", target, host=host)).answer().status in statuses


@pytest.mark.parametrize("line", [b"GET /api/ready", b"GET /api/ready#fragment HTTP/1.1"], ids=["no version", "fragment"])
def test_a_request_line_out_of_shape_is_400(wire, line):
    """RFC 9112 3 and 3.2: a version there must be, and a fragment is no part of a target."""
    refused(wire().send(line, b"\r\nHost: localhost\r\n\r\n"), 400)


@pytest.mark.parametrize("method, path, body, headers, status", [
    ("GET", "/api/teams?name=" + "_" * 30_000, None, {}, 400), ("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "ping"}, {"Origin": "http://[evil"}, 403),
    ("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "ping"}, {"Origin": "http://[:::]"}, 403),
    ("POST", "/login", {}, {"Origin": "http://[:::]", "Content-Type": "application/x-www-form-urlencoded"}, 403),
    ("PATCH", "/api/agents/felix", {"base_url": "https://[:::]/v1"}, {}, 400),
    ("POST", "/login", {}, {"Origin": "http://[evil", "Content-Type": "application/x-www-form-urlencoded"}, 403),
    ("PATCH", "/api/agents/felix", {"base_url": "https://[::1"}, {}, 400), ("POST", "/api/bull-queue/q/retry", {"timestamp": 2**53}, {}, 400)])
def test_what_no_library_bears_is_refused_in_words(client, method, path, body, headers, status):
    client.post("/agents", {"name": "felix", "adapter": "openai-compatible", "model": "m", "base_url": "http://127.0.0.1:1/v1"})
    assert client.request(method, path, body, headers=headers, root="/").status == status


def test_a_row_without_text_counts_against_the_share(as_):
    from orkosi import settings
    far = as_("far", tenant=None)
    settings.values["tenant_bytes"] = 1
    for path, body in (("/files", {"name": "a", "path": "a"}), ("/teams", {"name": "t"}), ("/tasks", {"title": "x"}), ("/products", {"name": "p"}),
                       ("/task-queue/submit", {"task_type": "t"})):
        assert far.post(path, body).status == 507, path
