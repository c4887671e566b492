"""Twenty thousand hostile requests against a running server: no 5xx but "no room" and "try again", none late, and work goes on.

Every operation, as everybody: its own fields and others, with values that have broken something somewhere. The
seed is fixed, so that what fails once, fails again.
"""
import contextlib
import functools
import http.client
import json
import math
import os
import random
import socket
import time
import typing
from collections import Counter
from urllib.parse import quote, urlsplit

import msgspec
import pytest
from conftest import eventually
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import orkosi

REQUESTS, LATE = 20_000, 2.0
SEED = int(os.environ.get("ORKOSI_TESTS_SEED", "20261124"))

orkosi.load()
from plugins.server.application import Application  # noqa: E402

Application()  # which binds the endpoints
# They end who asks, so that nobody would be left to ask; the tests of users have them.
APART = {("DELETE", "/api/users/me"), ("DELETE", "/api/users/{id}"), ("POST", "/api/auth/logout"), ("DELETE", "/api/auth/sessions/{id}"), ("PATCH", "/api/users/{id}")}
ROUTES = sorted((one.method, one.path) for one in orkosi.endpoints() if (one.method, one.path) not in APART)
ENDPOINTS = {(one.method, one.path): one for one in orkosi.endpoints()}

TEXTS = ["", " ", "0", "-1", "1", "2", "job_1", "job_999999999999999999", "9223372036854775807", "9223372036854775808", "1e400", "NaN", "null",
         "felix", "ada", "me", "todo", "done,todo", "P0", "P0,P9", ",", "true", "../../etc/passwd", "..", ".", "/", "\\", "%00", "a\x00b", "\ud83d",
         "\u202e", "\ufeff", "'; DROP TABLE tasks; --", '"', "NEAR(", "-x", "a* OR b", "*", "(", "<script>", "{{7*7}}", "${jndi:x}", "=cmd|' /C calc'!A0",
         "x" * 255, "x" * 256, "x" * 5000, "é" * 300, "😀" * 80, "\r\nX-Evil: 1", "\n", "2026-11-24", "2026-99-99T99:99:99Z", "org_1", "key_1",
         "ork_ses_" + "0" * 38, "#3b82f6", "orkosi", "agent:felix", "default", "http://127.0.0.1:1/", "javascript:alert(1)", "a@b", "root@example.com"]
NUMBERS = [0, 1, -1, 2, 25, 200, 201, 2**31, 2**53, 2**63 - 1, 2**63, -2**63, 10**400, 0.5, 1e308, -0.0, math.inf]
GOOD = {"title": "Fix it", "name": "thing", "task_type": "t", "worker_id": "w", "email": "a@example.com", "password": "correct horse", "agent_name": "felix",
        "agent": "felix", "assignee": "felix", "slug": "thing", "path": "docs/a.md", "role": "member", "scope": "all", "actor_id": "1", "action": "did",
        "message": "hello", "rule": "be kind", "username": "Ann", "due_date": "2026-11-24", "brand_color": "#3b82f6", "domain": "example.com", "link": "/x"}
RAW = [
    b"{", b"[" * 3000, b'{"a":' * 100, b'{"title":"\\ud800"}', b'{"title": 1, "title": 2}', b"\xff\xfe", b"null", b"[]", b'"x"', b"NaN", b'{"title":NaN}',
    b'{"title":"' + b'\\"' * 20_000, b'{"a":"' + b"x" * 200_000 + b'"}', b'{"payload":' + b'{"a":' * 31 + b"1" + b"}" * 32, b'{"n":' + b"9" * 5000 + b"}"]


class Dice(random.Random):
    """What is sent, drawn. Hypothesis, which could make what fails smaller, takes longer to draw a request than the server to answer it."""

    def rarely(self):
        return self.random() < 1 / 16

    def letters(self, most, low=0, high=0x10FFFF):
        """Up to so many characters; halves of a pair among them, and those that few have seen."""
        top = high if high < 0x80 else self.choice([0x7F, 0xFF, 0xFFFF, high])
        return "".join(chr(self.randint(low, top)) for _ in range(self.randint(0, most)))

    def text(self):
        return self.choice(TEXTS) if self.random() < 0.5 else self.letters(40)

    def number(self):
        return self.choice([lambda: self.choice(NUMBERS), lambda: self.randint(-10 ** self.randint(1, 40), 10 ** self.randint(1, 40)),
                            lambda: self.uniform(-1, 1) * 10.0 ** self.randint(-300, 300)])()

    def value(self, depth=0):
        """Anything that JSON can say, three deep."""
        kind = self.randint(0, 5 if depth < 3 else 3)
        if kind >= 4:
            inner = [self.value(depth + 1) for _ in range(self.randint(0, 3))]
            return inner if kind == 4 else {self.text(): one for one in inner}
        return [self.text, self.number, lambda: self.random() < 0.5, lambda: None][kind]()


def good(field):
    """Values that a field may well accept, so that some of it gets through."""
    kinds = [field.type]
    while kinds:
        kind = kinds.pop(0)
        if typing.get_origin(kind) is typing.Literal:
            return typing.get_args(kind)
        kinds += [one for one in typing.get_args(kind) if isinstance(one, type) or typing.get_args(one)]
        if kind in (int, float, bool, str):
            return [{int: 1, float: 1, bool: True, str: GOOD.get(field.encode_name, "x")}[kind]]
        if typing.get_origin(kind) in (list, dict) or kind in (list, dict):
            return [[] if list in (kind, typing.get_origin(kind)) else {"a": 1}]
    return ["x"]


@functools.cache
def fields_of(kind):
    """(name, whether it must be there, good values) of each field of a body."""
    return [(one.encode_name, one.required, good(one)) for one in msgspec.structs.fields(kind)]


def query(dice, endpoint):
    """What stands behind the question mark, if anything."""
    kind, odd = endpoint.query_type, dice.rarely()
    names = [*([one.encode_name for one in msgspec.structs.fields(kind)] if kind else []), "limit", *(["x"] if odd else [])]
    given = {dice.choice(names): dice.text() for _ in range(dice.randint(0, dice.choice([0, 1, 3])))}
    if given.get("wait_seconds", "0") in ("2", "25"):
        given["wait_seconds"] = "0.1"  # it would be late on purpose
    return "?" + "&".join(f"{name}={quote(value.encode(errors='replace'))}" for name, value in given.items()) if given else ""


def body(dice, endpoint):
    if not endpoint.body_type or dice.rarely():
        return b""
    kind = dice.choice(["good", "mixed", "bad"])
    given = {name: dice.choice(values) if kind == "good" or (kind == "mixed" and dice.random() < 0.5) else dice.value()
             for name, required, values in fields_of(endpoint.body_type) if required or dice.random() < 0.25}
    if "wait_seconds" in given:
        given["wait_seconds"] = 0.1  # a claim may wait for 25 s, and then it is late on purpose
    if dice.rarely():
        return dice.choice(RAW) if dice.random() < 0.5 else dice.randbytes(dice.randint(0, 200))
    return json.dumps(given, allow_nan=True).encode("utf-8", "replace")


def asked(dice):
    """(method, path, body, headers) of one request."""
    method, path = dice.choice(ROUTES)
    endpoint = ENDPOINTS[method, path]
    for wire in endpoint.path_names.values():
        inner = dice.choice(["1", "2", "3", "felix", "job_1", "job_2"]) if dice.random() < 0.5 else dice.text()
        path = path.replace("{%s}" % wire, quote(inner.encode(errors="replace").decode(), safe=dice.choice(["", "/.%"])) or "x")
    headers = {"Content-Type": dice.choice(["application/json"] * 12 + ["text/plain", "application/json; charset=latin-1"])}
    if dice.random() < 0.5:
        headers[dice.choice(["Idempotency-Key", "X-Request-Id", "Accept", "Expect", "Range", "X-Forwarded-For", "Cookie"])] = dice.letters(30, 32, 126)
    path, said = path + query(dice, endpoint), body(dice, endpoint)
    return dice.choice(["HEAD", "OPTIONS", "PUT", "TRACE", "BREW", "DELETE"]) if dice.rarely() else method, path, said, headers


class Attacker:
    """Everybody at once, on one connection after the other; what was answered, and when."""

    def __init__(self, url, tokens):
        self.netloc, self.tokens = urlsplit(url).netloc, tokens
        self.connection = http.client.HTTPConnection(self.netloc, timeout=30)
        self.statuses, self.slowest, self.wrong, self.count = Counter(), (0.0, ""), [], 0

    def ask(self, who, request):
        method, path, body, headers = request
        if self.tokens[who]:
            headers = headers | {"Authorization": f"Bearer {self.tokens[who]}"}
        began = time.monotonic()
        try:
            self.connection.request(method, path, body, headers)
            answer = self.connection.getresponse()
            if "text/event-stream" in (answer.headers["Content-Type"] or ""):
                said = answer.readline()  # it has no end
                self.connection.close()
            else:
                said = answer.read()
        except (http.client.HTTPException, OSError) as error:
            self.connection.close()
            said, answer = repr(error).encode(), None
            if isinstance(error, TimeoutError):
                self.wrong.append(f"no answer: {who} {method} {path}")
        took = time.monotonic() - began
        status = answer.status if answer else 0
        self.count += 1
        self.statuses[status] += 1
        self.slowest = max(self.slowest, (took, f"{who} {method} {path[:100]} {body[:100]!r}"))
        if (status >= 500 and status not in (503, 507)) or took > LATE:
            self.wrong.append(f"{status} after {took:.1f} s: {who} {method} {path} {body[:300]!r} {said[:300]!r}")
        elif status >= 400 and method != "HEAD":
            if said.startswith(b"<!doctype html>") and not path.startswith("/api/"):  # a page says it in words
                return
            refused = json.loads(said)
            assert set(refused["error"]) >= {"code", "message"} | (set() if "jsonrpc" in refused and path.startswith("/mcp") else {"request_id"}), (method, path, said[:200])


@pytest.mark.slow
def test_nothing_hostile_gets_a_500_or_stops_the_work(server, stripe_outside):
    running = server(env={f"ORKOSI_LIMIT_{name}": "off" for name in ("LOGIN", "LOGIN_ACCOUNT", "REGISTER", "FORGOT", "FORGOT_FROM", "LINK", "CONFIRM", "REFRESH",
                                                                     "TASK_CREATE", "ORG_INVITES", "TEAM_INVITES", "INVITES", "INVITES_TENANT", "BILLING")} | stripe_outside.env)
    admin = server.admin(running)
    tokens = {"nobody": "", "admin": admin}
    from conftest import command
    for role in ("member", "viewer"):
        command("user", "add", f"{role}@example.com", "--role", role, "--password-stdin", folder=running.folder, stdin="correct horse battery\n")
        tokens[role] = running.call("POST", "/auth/login", {"email": f"{role}@example.com", "password": "correct horse battery"})[1]["token"]
    made = command("key", "create", "all", *(part for scope in ("tasks:read", "tasks:write", "queue:work", "queue:submit", "agents:write", "files:write", "logs:write")
                                             for part in ("--scope", scope)), folder=running.folder)
    tokens["key"] = made.stdout.split()[0]
    running.call("POST", "/agents", {"name": "felix", "interval_sec": 60}, admin)
    tokens["agent"] = (running.folder / "keys/felix").read_text().strip()
    attacker = Attacker(running.url, tokens)

    dice = Dice(SEED)
    for _ in range(REQUESTS):
        attacker.ask(dice.choice([*tokens, "admin", "admin"]), asked(dice))
    raw(running, attacker)

    print(f"\n{attacker.count} requests: {dict(sorted(attacker.statuses.items()))}; the slowest took {attacker.slowest[0]:.2f} s: {attacker.slowest[1]}")
    assert not attacker.wrong, "\n".join(attacker.wrong[:20])
    assert attacker.count >= REQUESTS
    busy = attacker.statuses[503] + attacker.statuses[507]
    assert busy <= attacker.count // 1000, f"{busy} were told that there is no room"
    assert sum(count for status, count in attacker.statuses.items() if 200 <= status < 300) > REQUESTS // 8, "some of it must get through"

    began = time.monotonic()
    status, agent = running.call("POST", "/agents", {"name": "honest", "interval_sec": 1}, admin)
    assert status == 200 and all(step["ok"] for step in agent["data"]["steps"]), agent
    brain = running.folder / "agents/honest/workspace/brain"
    brain.write_text("#!/bin/sh\necho all is well\n")
    brain.chmod(0o700)
    _, task = running.call("POST", "/tasks", {"title": "After the attack", "assignee": "honest"}, admin)
    eventually(lambda: running.call("GET", f"/tasks/{task['data']['id']}", token=admin)[1]["data"]["resolution"] == "all is well", 10)
    print(f"the main job ran through {time.monotonic() - began:.1f} s later")


def raw(running, attacker):
    """Bytes that are hardly HTTP at all."""
    where = urlsplit(running.url)

    @seed(SEED)
    @settings(max_examples=300, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.binary(min_size=1, max_size=300), st.builds(
        lambda line, headers: (line + "\r\n" + "\r\n".join(headers) + "\r\n\r\n").encode("utf-8", "replace"),
        st.sampled_from(["GET / HTTP/1.1", "GET  / HTTP/1.1", "GET / HTTP/9.9", "POST /api/tasks HTTP/1.1", "GET http://[::1/ HTTP/1.1", "GET //x HTTP/1.1", "* / HTTP/1.1"]),
        st.lists(st.sampled_from(["Host: localhost", "Content-Length: 5", "Content-Length: 5", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Host: a b",
                                  ": x", "X", "Content-Length: 99999999999999999999", "Expect: 100-continue", "Connection: close", "X: " + "y" * 40_000]), max_size=4))))
    def attack(sent):
        with socket.create_connection((where.hostname, where.port), timeout=15) as one:
            one.sendall(sent)
            began = time.monotonic()
            with contextlib.suppress(OSError):  # it is answered, and closed, before all is sent
                one.shutdown(socket.SHUT_WR)
            said = one.recv(65536)
            attacker.count += 1
            status = int(said.split()[1]) if said.startswith(b"HTTP/") else 0
            attacker.statuses[status] += 1
            if status in (500, 502) or time.monotonic() - began > LATE:
                attacker.wrong.append(f"{status} after {time.monotonic() - began:.1f} s: {sent[:200]!r}")
    attack()
