"""A thousand deliveries under kills of the server and of the receiver: each at least once, in order for each task, none unsigned."""
import json
import random
import socket
import subprocess
import sys
import time
from collections import defaultdict

import apsw
import pytest

EVENTS, TASKS, KILLS = 1000, 25, 5
# A receiver as a process of its own: it verifies, writes down what it got, and only then answers. `standardwebhooks` is the specification's own library.
PROGRAM = """
import http.server, json, os, sys
from standardwebhooks.webhooks import Webhook
port, secret, book = int(sys.argv[1]), sys.argv[2], open(sys.argv[3], "ab", buffering=0)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body, wrong = self.rfile.read(int(self.headers["Content-Length"])), None
        try:
            Webhook(secret).verify(body, dict(self.headers))
        except Exception as error:
            wrong = repr(error)
        book.write(json.dumps([self.headers["webhook-id"], wrong, body.decode()]).encode() + b"\\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


class Receiver:
    """That process, and what it wrote down in all its lives."""

    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.book, self.secret, self.process = folder / "got", "", None

    def start(self):
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(self.port), self.secret, str(self.book)], stderr=subprocess.DEVNULL)

    def kill(self):
        self.process.kill()
        self.process.wait()

    @property
    def got(self):
        """What it got: the id, what was wrong with its signature, and the body. A line that its death cut in two was not answered."""
        lines = self.book.read_bytes().split(b"\n") if self.book.exists() else []
        return [json.loads(line) for line in lines if line.endswith(b"]")]


@pytest.mark.slow
def test_a_thousand_deliveries_under_kills(server, tmp_path):
    options = {"ORKOSI_LIMIT_TASK_CREATE": "off", "ORKOSI_WEBHOOKS_PRIVATE": "1"}
    running, receiver, dice = server(env=options), Receiver(tmp_path), random.Random(7)
    token = server.admin(running)
    status, made = running.call("POST", "/webhooks", {"url": f"http://127.0.0.1:{receiver.port}/", "types": ["task.*"]}, token)
    assert status == 201, made
    receiver.secret = made["data"]["secret"]
    receiver.start()
    tasks = [running.call("POST", "/tasks", {"title": f"Task {n}", "assignee": "nobody"}, token)[1]["data"]["id"] for n in range(TASKS)]
    for number in range(EVENTS - TASKS):
        running.call("PATCH", f"/tasks/{tasks[number % TASKS]}", {"title": f"Change {number}"}, token)
        if number % (EVENTS // KILLS) == EVENTS // KILLS - 40:
            receiver.kill()
            running.kill()
            receiver.start()
            running = server(env=options)
    until = time.monotonic() + 45
    while time.monotonic() < until:
        if len({id for id, _, _ in receiver.got}) >= EVENTS:
            break
        time.sleep(dice.uniform(0.3, 0.6))  # deliveries go on meanwhile
        if dice.random() < 0.05:
            running.kill()
            running = server(env=options)
    running.kill()

    con = apsw.Connection(str(running.folder / "orkosi.db"), flags=apsw.SQLITE_OPEN_READWRITE)
    happened = {f"msg_{made['data']['id']}_{id}" for id, in con.execute("SELECT id FROM activity WHERE action LIKE 'task.%'")}
    con.close()
    receiver.kill()
    assert [wrong for _, wrong, _ in receiver.got if wrong] == []
    assert len(happened) >= EVENTS
    assert {id for id, _, _ in receiver.got} == happened
    order = defaultdict(list)
    for _, _, text in receiver.got:
        body = json.loads(text)
        order[body["data"]["entity_id"]].append(body["data"]["id"])
    assert all(ids == sorted(ids) for ids in order.values())
