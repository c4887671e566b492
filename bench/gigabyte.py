"""A company of 1 GB: what a backup costs whoever works meanwhile, and how long the worst day takes.

The database is of finished jobs with results of words, which pack about as text does. While the backup is made and proven, 200 requests
a second are asked at fixed moments, whether those before are answered or not: submit, claim, complete, list, by turns.
"""
import contextlib
import http.client
import json
import os
import queue
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ours import HOME, SETTINGS, Server, Tokens, prepare, serving

RATE, HANDS = 200, 8  # requests a second, and connections that they go over
RESULT = 4000  # bytes of a job's result
KEY = "ORKOSI_MASTER_KEY_FILE"


def measure(table, folder: Path, rounds: int, megabytes: int) -> None:
    """Each number once a round, but for what needs the whole gigabyte copied: that is measured once."""
    data = folder / "gigabyte"
    os.environ[KEY] = str(folder / "master.key")
    tokens = prepare(data, 1000, {"busy": 50_000})
    grow(data, megabytes)
    size = (data / "orkosi.db").stat().st_size
    note = f"a database of {size / 1e6:,.0f} MB"
    with serving(data) as server:
        operator = f"Bearer {(data / 'keys/operator').read_text().strip()}"
        backups(table, server, tokens, operator, rounds, note)
        standby(table, data, folder / "standby", note)
        table.add("doctor", "s", timed("doctor", "--data", data, check=False), must="≤ 5 s", note=note)
    name = max(path.name for path in (data / "backups").glob("*.backup"))
    table.add("verify a backup", "s", timed("backup", "verify", name, "--data", data), must="≤ 60 s", note=note)
    table.add("restore a backup", "s", timed("restore", data / "backups" / name, "--yes", "--data", folder / "restored"), must="≤ 60 s", note=note)


def grow(data: Path, megabytes: int) -> None:
    """Finished jobs, until the database is as large as that."""
    from orkosi import acting, db, now, settings, system
    from plugins import storage
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 11))) for _ in range(5000)]
    settings.load(data=data, durability="process")
    storage.open_data()
    try:
        with acting(system()):
            for _ in range(megabytes * 1_000_000 // (RESULT + 120) // 5000 + 1):
                moment = now(-86400)
                rows = [{"result": json.dumps({"said": " ".join(chance.choices(words, k=RESULT // 8))[:RESULT]}), "now": moment} for _ in range(5000)]
                db.write(lambda rows=rows: db.run_many(
                    """INSERT INTO jobs (tenant_id, queue, task_type, payload, state, result, timeout_seconds, created_at, finished_at)
                       VALUES (1, 'done', 't', '{}', 'completed', :result, 300, :now, :now)""", rows))
    finally:
        storage.close_data()


def timed(*words: object, check: bool = True) -> float:
    """Seconds that a command of ours takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, str(HOME / "orkosi.py"), *map(str, words)], check=check, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, env=os.environ | SETTINGS)
    return time.perf_counter() - began


# ── a backup, while others work ──


def backups(table, server: Server, tokens: Tokens, operator: str, rounds: int, note: str) -> None:
    for _ in range(min(rounds, 3)):
        with asking(server, tokens) as alone:
            time.sleep(5)
        began = time.perf_counter()
        with asking(server, tokens) as within:
            name = said(server, operator, "POST", "/api/backups/trigger")["data"]["filename"]
            while not (found := listed(server, operator, name)):
                time.sleep(0.2)
            made = time.perf_counter() - began
            while (found := listed(server, operator, name)) and found["verification"] == "pending":
                time.sleep(0.2)
            proven = time.perf_counter() - began - made
        table.add("claim while a backup is made and proven", "ms p99", within.p99(), "no backup", alone.p99(), must="≤ 25 ms",
                  note=f"{note}; {within.asked / (made + proven):.0f} requests a second; slowest {max(within.claims):.0f} ms")
        table.add("make a backup", "s", made, note=f"{note}, {RATE} requests a second beside it")
        table.add("prove it, beside as many requests", "s", proven)


def said(server: Server, token: str, method: str, path: str) -> dict:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.request(method, path, headers={"Authorization": token})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def listed(server: Server, token: str, name: str) -> dict | None:
    return next((one for one in said(server, token, "GET", "/api/backups")["data"] if one["filename"] == name), None)


class Asking:
    """Requests at fixed moments, over a few connections."""

    def __init__(self, server: Server, tokens: Tokens):
        self.claims: list[float] = []
        self.asked = 0
        self.server, self.tokens, self.ended = server, tokens, threading.Event()
        self.due: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        self.threads = [threading.Thread(target=self.keep_time), *(threading.Thread(target=self.hand) for _ in range(HANDS))]

    def keep_time(self) -> None:
        began, number = time.perf_counter(), 0
        while not self.ended.is_set():
            self.due.put(began + number / RATE)
            number += 1
            time.sleep(max(0.0, began + number / RATE - time.perf_counter()))
        for _ in range(HANDS):
            self.due.put(None)

    def hand(self) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.server.url).netloc, timeout=60)
        while (moment := self.due.get()) is not None:
            self.turn(connection, moment)
        connection.close()

    def turn(self, connection: http.client.HTTPConnection, moment: float) -> None:
        """One of four; a claim's time counts from the moment at which it was due."""
        self.asked += 1
        which = self.asked % 4
        if which == 0:
            self.ask(connection, "GET", "/api/tasks?limit=20", None, self.tokens.reader)
        elif which == 1:
            self.ask(connection, "POST", "/api/task-queue/submit", {"task_type": "t", "queue_name": "busy"})
        else:
            job = self.ask(connection, "POST", "/api/task-queue/claim", {"worker_id": "w", "queue_name": "busy"})["data"]
            self.claims.append((time.perf_counter() - moment) * 1000)
            if job:
                self.ask(connection, "POST", f"/api/task-queue/{job['id']}/complete", {"lease_token": job["lease_token"]})

    def ask(self, connection: http.client.HTTPConnection, method: str, path: str, body: dict | None, token: str = "") -> dict:
        connection.request(method, path, None if body is None else json.dumps(body),
                           {"Authorization": token or self.tokens.worker, "Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status not in (200, 201):
            raise RuntimeError(f"{path} answered {answer.status}: {text[:200]!r}")
        return json.loads(text)

    def p99(self) -> float:
        return statistics.quantiles(self.claims, n=100)[98]


@contextlib.contextmanager
def asking(server: Server, tokens: Tokens) -> Iterator[Asking]:
    one = Asking(server, tokens)
    for thread in one.threads:
        thread.start()
    try:
        yield one
    finally:
        one.ended.set()
        for thread in one.threads:
            thread.join()


# ── the second machine ──


def standby(table, data: Path, copy: Path, note: str) -> None:
    table.add("the first pull of a standby", "s", timed("standby", "pull", data, "--data", copy), note=note)
    for _ in range(2):  # the first one may still find what came meanwhile
        took = timed("standby", "pull", data, "--data", copy)
    table.add("a pull where nothing has changed", "s", took, must="≤ 2 s", note=note)
