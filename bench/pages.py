"""Pages: what the console takes of the processor and of the wire, beside ten thousand and beside a million tasks, and two hundred consoles at once.

Surprise: each request is another address, for a page that is asked again within its beat is known before anything is read.
"""
import concurrent.futures
import contextlib
import gzip
import http.client
import json
import multiprocessing
import statistics
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import seeing
from ours import Server, prepare, serving

ASKED = 120
WANTED = {"Now": ("/", 8), "board": ("/tasks", 6), "task": ("/tasks/77", None), "run of 500 lines": ("/agent-runs/RUN", 6), "queues": ("/task-queue", None),
          "costs": ("/costs", None), "tasks, a list": ("/tasks?status=todo", None)}
OPEN, CHANGES, SECONDS = 200, 100, 10


def measure(table, folder: Path, rounds: int, seconds: int, quick: bool) -> None:
    for many in (10_000,) if quick else (10_000, 1_000_000):
        place = folder / f"pages{many}"
        tokens = prepare(place, 10, {"mails": 15_000})
        seeing.grow(place, many)
        run = session(place)
        with serving(place) as server:
            cookie = enter(server)
            for _ in range(rounds):
                with table.guard("pages"):
                    looks(table, server, cookie, many, run)
            if many == 10_000:
                with table.guard("open consoles"):
                    crowd(table, server, cookie, tokens, 3 if quick else SECONDS)


def session(folder: Path) -> int:
    """A person with a password, a full board, a run that has 500 lines, and jobs that failed; the run's number. No server may run."""
    import orkosi
    from orkosi import acting, db, now, settings, system
    orkosi.load()
    from plugins import storage, users
    settings.load(data=folder, durability="process")
    storage.open_data()
    try:
        with acting(system()):
            users.add("looker", "looker@example.com", users.passwords.hashed("correct horse battery"), "admin", 1)
            run = db.write(lambda: db.add("""INSERT INTO agent_runs (tenant_id, agent, task_id, status, started_at, counted)
                                              VALUES (1, 'agent1', 77, 'running', :now, 1)""", now=now(-60)))
            for at, status in enumerate(("in_progress", "review", "blocked")):  # a board whose columns are all full
                db.write(lambda at=at, status=status: db.run("""
                    UPDATE tasks SET status = :status, finished_at = NULL, last_error = 'Timeout after ' || id || ' s'
                     WHERE id > :first AND id <= :first + 100""", status=status, first=1000 + 100 * at))
            db.write(lambda: db.run_many("""INSERT INTO log_lines (source, agent, level, message, task_id, created_at)
                                             VALUES ('db', 'agent1', 'info', 'line ' || :n || ' of what it does, about so long', 77, :now)""",
                                         ({"n": n, "now": now()} for n in range(500))))
            db.write(lambda: db.run("""UPDATE jobs SET state = 'dead', error = 'Timeout after ' || id || ' s', finished_at = :now
                                        WHERE queue = 'mails' AND id % 10 = 0""", now=now()))
    finally:
        storage.close_data()
    return int(run)


def enter(server: Server) -> str:
    """Log in; the cookie."""
    place = urlsplit(server.url).netloc
    connection = http.client.HTTPConnection(place, timeout=30)
    connection.request("POST", "/login", "email=looker%40example.com&password=correct+horse+battery",
                       {"Content-Type": "application/x-www-form-urlencoded", "Origin": server.url, "Host": place})
    return str(connection.getresponse().headers["Set-Cookie"]).partition(";")[0]


def looks(table, server: Server, cookie: str, many: int, run: int) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    for name, (path, most) in WANTED.items():
        path, took, size = path.replace("RUN", str(run)), [], 0
        before = server.busy() or 0.0
        for number in range(ASKED):
            began = time.perf_counter()
            connection.request("GET", f"{path}{'&' if '?' in path else '?'}assignee=&n={number}" if name not in ("tasks, a list",) else f"{path}&offset={number}",
                               headers={"Cookie": cookie, "Accept-Encoding": "gzip"})
            answer = connection.getresponse()
            body = answer.read()
            took.append((time.perf_counter() - began) * 1000)
            if answer.status != 200:
                raise RuntimeError(f"{path} answered {answer.status}: {body[:200]!r}")
            size = max(size, len(body))
        cpu = ((server.busy() or 0.0) - before) / ASKED * 1000
        table.add(f"page {name}, {many:,} tasks", "ms of CPU", cpu, must=f"≤ {most}" if most else "",
                  note=f"{statistics.median(took):.1f} ms, {size / 1024:.1f} KB gzipped")
    first(table, connection, cookie, many)
    connection.close()


def first(table, connection: http.client.HTTPConnection, cookie: str, many: int) -> None:
    """All that a browser asks for when it first opens the console."""
    connection.request("GET", "/", headers={"Cookie": cookie, "Accept-Encoding": "gzip"})
    page = connection.getresponse().read()
    paths = set()
    for part in gzip.decompress(page).decode().split('"'):
        if part.startswith("/console/"):
            paths.add(part)
    size = len(page)
    for path in sorted(paths):
        connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
        size += len(connection.getresponse().read())
    table.add(f"first load of Now, {many:,} tasks", "KB", size / 1024, must="≤ 30", note=f"{1 + len(paths)} requests")


# ── many at once ──


def crowd(table, server: Server, cookie: str, tokens, seconds: int) -> None:
    """Two hundred consoles that follow, while a hundred tasks a second change; what that takes, and how long a claim takes meanwhile.

    Claims are asked by a process of its own: in this one they would wait for two hundred threads, which is no time of the server's."""
    asking = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    alone = asking.submit(claims, server.url, tokens.worker, seconds).result()
    stop, refreshed = threading.Event(), [0]
    followers = [threading.Thread(target=follow, args=(server, cookie, stop, refreshed), daemon=True) for _ in range(OPEN)]
    for one in followers:
        one.start()
    changing = threading.Thread(target=change, args=(server, tokens, stop), daemon=True)
    changing.start()
    time.sleep(2)
    before, began = server.busy() or 0.0, time.monotonic()
    beside = asking.submit(claims, server.url, tokens.worker, seconds).result()
    cores = ((server.busy() or 0.0) - before) / (time.monotonic() - began)
    stop.set()
    changing.join(10)
    asking.shutdown()
    table.add(f"{OPEN} open consoles, {CHANGES} changes a second", "cores", cores, must="≤ 1", note=f"{refreshed[0]} pages")
    table.add("a claim beside them, as many times as alone", "×", beside / alone, must="≤ 1.2", note=f"p50 {beside:.2f} ms, alone {alone:.2f} ms")


def follow(server: Server, cookie: str, stop: threading.Event, refreshed: list[int]) -> None:
    """One console: a stream, and the page once a second at most."""
    place = urlsplit(server.url).netloc
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        stream = http.client.HTTPConnection(place, timeout=30)
        stream.request("GET", "/api/events?beat=true", headers={"Cookie": cookie})
        answer, page, last = stream.getresponse(), http.client.HTTPConnection(place, timeout=30), 0.0
        while not stop.is_set():
            line = answer.readline()
            if line.startswith(b"event: task") and time.monotonic() - last > 1:
                last = time.monotonic()
                page.request("GET", "/", headers={"Cookie": cookie, "X-Orkosi-Live": "follow", "Accept-Encoding": "gzip"})
                page.getresponse().read()
                refreshed[0] += 1


def change(server: Server, tokens, stop: threading.Event) -> None:
    connection, number = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30), 0
    began = time.monotonic()
    while not stop.is_set():
        number += 1
        connection.request("PATCH", f"/api/tasks/{100 + number % 5000}", json.dumps({"priority": f"P{number % 4}"}),
                           {"Authorization": tokens.worker, "Content-Type": "application/json"})
        connection.getresponse().read()
        time.sleep(max(0.0, began + number / CHANGES - time.monotonic()))


def claims(url: str, token: str, seconds: int) -> float:
    """The median of claims, one after the other, twenty a second."""
    connection, took, end = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30), [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        connection.request("POST", "/api/task-queue/claim", json.dumps({"worker_id": "bench", "queue_name": "mails"}),
                           {"Authorization": token, "Content-Type": "application/json"})
        connection.getresponse().read()
        took.append((time.perf_counter() - began) * 1000)
        time.sleep(0.05)
    return statistics.median(took)
