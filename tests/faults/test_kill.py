"""The server is killed at random moments under eight clients: what it acknowledged must be there, and once."""
import http.client
import json
import random
import threading
import time
from collections import Counter
from urllib.parse import urlsplit

import apsw
import pytest

CYCLES, CLIENTS = 40, 8


class Journal:
    """What the clients were told, in the clients' own memory."""

    def __init__(self):
        self.lock = threading.Lock()
        self.jobs, self.tasks, self.completed = {}, set(), Counter()

    def note(self, kind, key, value=None):
        with self.lock:
            if kind == "job":
                self.jobs[key] = value
            elif kind == "task":
                self.tasks.add(key)
            else:
                self.completed[key, value] += 1


class Caller:
    """One client on one connection; whatever breaks, the answer is None."""

    def __init__(self, url, token):
        self.host, self.token = urlsplit(url).netloc, token
        self.connection = http.client.HTTPConnection(self.host, timeout=5)

    def __call__(self, method, path, body):
        try:
            self.connection.request(method, "/api" + path, json.dumps(body),
                                    {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"})
            answer = self.connection.getresponse()
            found = json.loads(answer.read())
            return found["data"] if answer.status < 300 else None
        except (OSError, http.client.HTTPException, ValueError):
            self.connection.close()
            return None


def client(number, url, token, journal, stop, seed):
    call, dice, count = Caller(url, token), random.Random(seed), 0
    while not stop.is_set():
        count += 1
        key = f"{seed}-{number}-{count}"
        if dice.random() < 0.5:
            if job := call("POST", "/task-queue/submit", {"task_type": "t", "idempotency_key": key, "payload": {"key": key}}):
                journal.note("job", job["id"], key)
        elif dice.random() < 0.3:
            if task := call("POST", "/tasks", {"title": f"Task {key}", "assignee": "nobody"}):
                journal.note("task", task["id"])
        elif job := call("POST", "/task-queue/claim", {"worker_id": f"w{number}"}):
            if call("POST", f"/task-queue/{job['id']}/complete", {"lease_token": job["lease_token"], "result": job["lease_token"]}):
                journal.note("completed", job["id"], job["lease_token"])


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_and_nothing_completes_twice(server):
    options = {"ORKOSI_LIMIT_TASK_CREATE": "off"}
    running = server(env=options)
    token, journal, dice = server.admin(running), Journal(), random.Random(20)
    for cycle in range(CYCLES):
        stop = threading.Event()
        clients = [threading.Thread(target=client, args=(number, running.url, token, journal, stop, cycle)) for number in range(CLIENTS)]
        for one in clients:
            one.start()
        time.sleep(dice.uniform(0.05, 0.9))  # the work, up to a moment by chance
        running.kill()
        stop.set()
        for one in clients:
            one.join()
        running = server(env=options)
    running.kill()

    con = apsw.Connection(str(running.folder / "orkosi.db"), flags=apsw.SQLITE_OPEN_READWRITE)
    rows = {f"job_{id}": (state, result, attempt, limit) for id, state, result, attempt, limit in con.execute(
        "SELECT id, state, result, attempt, max_attempts FROM jobs WHERE task_type = 't'")}
    tasks = {row[0] for row in con.execute("SELECT id FROM tasks")}
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()
    assert set(journal.jobs) <= set(rows), "a submit was lost"
    assert journal.tasks <= tasks, "a task was lost"
    assert len(journal.jobs) > 300 and len(journal.tasks) > 50 and len(journal.completed) > 100
    by_job = Counter(job for job, _ in journal.completed)
    assert max(by_job.values()) == 1, "a job completed under two leases"
    for job, token_used in journal.completed:
        state, result, *_ = rows[job]
        assert (state, json.loads(result)) == ("completed", token_used), f"{job} was completed, and is {state}"


@pytest.mark.slow
def test_a_killed_worker_is_rescued_in_time_and_refused_when_it_comes_back(server):
    running = server()
    token = server.admin(running)
    running.call("POST", "/task-queue/submit", {"task_type": "t", "timeout_seconds": 1}, token)
    _, stale = running.call("POST", "/task-queue/claim", {"worker_id": "gone"}, token)
    began = time.monotonic()
    _, fresh = running.call("POST", "/task-queue/claim", {"worker_id": "next", "wait_seconds": 10}, token)
    assert fresh["data"]["id"] == stale["data"]["id"] and fresh["data"]["attempt"] == 2
    assert time.monotonic() - began < 1 + 5
    status, answer = running.call("POST", f"/task-queue/{stale['data']['id']}/complete", {"lease_token": stale["data"]["lease_token"]}, token)
    assert (status, answer["error"]["code"]) == (409, "lease_lost")


@pytest.mark.slow
def test_a_terminated_server_ends_in_order(server):
    running = server()
    token = server.admin(running)
    waiting = threading.Thread(target=lambda: running.call("POST", "/task-queue/claim", {"worker_id": "w", "wait_seconds": 20}, token))
    waiting.start()
    time.sleep(0.3)  # the claim is on its way, and nothing shows one that waits
    began = time.monotonic()
    running.process.terminate()
    assert running.process.wait(10) == 0 and time.monotonic() - began < 10
    waiting.join()
    wal = running.folder / "orkosi.db-wal"
    assert not wal.exists() or wal.stat().st_size == 0
    assert not (running.folder / "server.json").exists()
