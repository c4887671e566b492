"""A thousand deliveries under kills of the server and of the receiver: each at least once, in order for each task, none unsigned."""
import http.server
import json
import random
import threading
import time
from collections import defaultdict

import apsw
import pytest
from standardwebhooks.webhooks import Webhook

EVENTS, TASKS, KILLS = 1000, 25, 5


class Receiver:
    """A receiver on one port that verifies all it gets. While it is `down`, it reads what comes and hangs up without an answer, or answers nobody."""

    def __init__(self):
        self.got, self.wrong, self.down, self.verify, self.port = [], [], False, None, 0
        self.start()

    def start(self):
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    receiver.verify(body, dict(self.headers))
                except Exception as error:  # whatever it is, the test tells it
                    receiver.wrong.append(repr(error))
                if receiver.down:
                    self.close_connection = True
                    return
                receiver.got.append((self.headers["webhook-id"], json.loads(body)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def kill(self):
        self.down = True
        time.sleep(0.05)  # what is under way is read, and not answered
        self.server.shutdown()
        self.server.server_close()

    def again(self):
        self.down = False
        self.start()


@pytest.mark.slow
def test_a_thousand_deliveries_under_kills(server):
    options = {"ORKOSI_LIMIT_TASK_CREATE": "off", "ORKOSI_WEBHOOKS_PRIVATE": "1"}
    running, receiver, dice = server(env=options), Receiver(), random.Random(7)
    token = server.admin(running)
    status, made = running.call("POST", "/webhooks", {"url": f"http://127.0.0.1:{receiver.port}/", "types": ["task.*"]}, token)
    assert status == 201, made
    receiver.verify = Webhook(made["data"]["secret"]).verify
    tasks = [running.call("POST", "/tasks", {"title": f"Task {n}", "assignee": "nobody"}, token)[1]["data"]["id"] for n in range(TASKS)]
    for number in range(EVENTS - TASKS):
        running.call("PATCH", f"/tasks/{tasks[number % TASKS]}", {"title": f"Change {number}"}, token)
        if number % (EVENTS // KILLS) == EVENTS // KILLS - 40:
            receiver.kill()
            running.kill()
            receiver.again()
            running = server(env=options)
    until = time.monotonic() + 45
    while time.monotonic() < until:
        if len({id for id, _ in receiver.got}) >= EVENTS:
            break
        time.sleep(dice.uniform(0.3, 0.6))  # deliveries go on meanwhile
        if dice.random() < 0.05:
            running.kill()
            running = server(env=options)
    running.kill()

    con = apsw.Connection(str(running.folder / "orkosi.db"), flags=apsw.SQLITE_OPEN_READWRITE)
    happened = {f"msg_{made['data']['id']}_{id}" for id, in con.execute("SELECT id FROM activity WHERE action LIKE 'task.%'")}
    con.close()
    assert receiver.wrong == []
    assert len(happened) >= EVENTS
    assert {id for id, _ in receiver.got} == happened
    order = defaultdict(list)
    for _, body in receiver.got:
        order[body["data"]["entity_id"]].append(body["data"]["id"])
    assert all(ids == sorted(ids) for ids in order.values())
