"""Measure Orkosi, beside peers where they are installed: `python3 bench/run.py [--quick]`.

Prints a table: what, how much, against what. Every number is of this run, on this machine; a
peer that is not there is named and skipped. Nothing here is a test: a number decides nothing.
"""
import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(HOME), str(HOME / "bench")]
ROWS = []


def row(what, value, unit, beside="", ratio=""):
    ROWS.append((what, value, unit, beside, ratio))
    print(f"| {what} | {value} {unit} | {beside} | {ratio} |", flush=True)


def rate(calls, threads, do):
    """Calls a second of `do(number)` from `threads` callers."""
    from orkosi import acting, system
    per = calls // threads

    def run():
        with acting(system()):
            for number in range(per):
                do(number)
    crew = [threading.Thread(target=run) for _ in range(threads)]
    began = time.perf_counter()
    for one in crew:
        one.start()
    for one in crew:
        one.join()
    return per * threads / (time.perf_counter() - began)


# ── the engine, in process ──


def bare(folder, sync, seconds):
    """SQLite's own limit: the same row into the same table, one commit each, one connection, no thread but this."""
    import apsw

    import orkosi
    con = apsw.Connection(str(folder / f"bare-{sync}.db"))
    con.execute("ATTACH ':memory:' AS logs")
    con.execute(f"PRAGMA main.journal_mode = wal; PRAGMA main.synchronous = {sync}").fetchall()
    con.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    con.execute((Path(orkosi.HOME) / "schema.sql").read_text())
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(50):
            con.execute("""INSERT INTO jobs (tenant_id, queue, task_type, payload, state, created_at)
                           VALUES (1, :queue, 't', :payload, 'waiting', :now)""",
                        {"queue": "bench", "payload": '{"n":1}', "now": "2026-01-01T00:00:00.000Z"}).fetchall()
        count += 50
    con.close()
    return count / (time.perf_counter() - began)


def engine(folder, quick):
    import orkosi
    from orkosi import settings
    orkosi.load()
    from peers import bullmq

    from plugins import queue, storage
    calls = 6_400 if quick else 32_000
    peer = bullmq(calls // 2, 32)
    for durability, sync in (("process", "NORMAL"), ("power", "FULL")):
        limit = bare(folder, sync, 0.5 if quick else 2)
        settings.load(data=folder / durability, durability=durability)
        storage.open_data()
        for callers in (1, 32):
            submit = rate(calls, callers, lambda number: queue.submit("bench", "t", {"n": number}))
            row(f"engine: submit, {callers} callers, {sync}", f"{submit:,.0f}", "/s", f"SQLite itself, one commit each: {limit:,.0f}/s", f"{submit / limit:.2f}")
        local = threading.local()

        def chain(_, local=local):
            job = getattr(local, "job", None) or queue.claim("bench", "w")[0]
            local.job = queue.complete(job.id, job.lease_token, claim_next=True)[1]
        done = rate(calls // 2, 32, chain)
        row(f"engine: complete and claim the next, 32 callers, {sync}", f"{done:,.0f}", "/s",
            f"BullMQ on Redis, not durable: {peer['work']:,.0f}/s" if peer else "BullMQ on Redis: not installed, skipped",
            f"{done / peer['work']:.2f}" if peer else "")
        if durability == "process":
            flat(queue, 5_000 if quick else 1_000_000)
        storage.close_data()


def flat(queue, many):
    """What a claim costs with a thousand jobs waiting, and with many more, and as many finished."""
    from orkosi import acting, db, now, system

    def p50():
        took = []
        for _ in range(300):
            began = time.perf_counter()
            job = queue.claim("flat", "w")[0]
            took.append(time.perf_counter() - began)
            queue.complete(job.id, job.lease_token)
        return sorted(took)[150]

    def fill(count, **columns):
        names = ", ".join(columns)
        step = 20_000
        for start in range(0, count, step):
            db.write(lambda start=start: db.run_many(
                f"INSERT INTO jobs (tenant_id, queue, task_type, created_at, {names}) VALUES (1, 'flat', 't', :now, {', '.join(':' + n for n in columns)})",
                ({"now": now(), **columns} for _ in range(start, min(start + step, count)))))
    with acting(system()):
        fill(1_000, state="waiting")
        few = p50()
        fill(many, state="waiting")
        fill(many, state="completed", finished_at=now())
        lots = p50()
    row(f"engine: claim, {many:,} waiting and {many:,} finished", f"{lots * 1e6:.0f}", "µs p50", f"with 1,000 waiting: {few * 1e6:.0f} µs", f"{lots / few:.2f}")


# ── the server, over HTTP ──


class Server:
    def __init__(self, folder, *program, **env):
        self.folder = folder
        began = time.perf_counter()
        self.process = subprocess.Popen([sys.executable, *(program or [str(HOME / "orkosi.py")]), "serve", "--port", "0", "--data", str(folder)],
                                        stdout=subprocess.DEVNULL, env=os.environ | {"ORKOSI_NO_INSTALL": "1", "ORKOSI_LIMIT_TASK_CREATE": "off"} | env)
        while True:
            with contextlib.suppress(OSError, ValueError):
                self.url = json.loads((folder / "server.json").read_text())["url"]
                urllib.request.urlopen(self.url + "/api/ready").read()
                break
            time.sleep(0.005)
        self.ready = time.perf_counter() - began

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def memory(self):
        return int(subprocess.run(["ps", "-o", "rss=", "-p", str(self.process.pid)], capture_output=True, text=True).stdout) / 1024


def key_of(folder):
    """An API key with every scope, made while no server runs."""
    from orkosi import acting, settings, system
    from plugins import keys, storage, users
    settings.load(data=folder)
    storage.open_data()
    with acting(system()):
        maker = users.add("bench", "bench@example.com", users.passwords.hashed(users.random_password()), "admin", 1)
        _, raw = keys.issue(1, "bench", keys.SCOPES, by=maker.id)
    storage.close_data()
    return raw


def fill(folder, count):
    from orkosi import acting, db, now, settings, system
    from plugins import storage
    settings.load(data=folder, durability="process")
    storage.open_data()
    with acting(system()):
        db.write(lambda: db.run_many(
            """INSERT INTO tasks (tenant_id, title, title_key, status, priority, assignee, created_by, created_at, updated_at)
               VALUES (1, :title, :title, 'todo', :priority, :who, 'bench', :now, :now)""",
            ({"title": f"Task number {n}", "priority": f"P{n % 4}", "who": f"agent{n % 10}", "now": now()} for n in range(count))))
    storage.close_data()


def wrk(url, key, seconds, body=None, connections=8):
    """Requests a second, and p99 in ms; None where wrk is not installed."""
    if not shutil.which("wrk"):
        return None
    script = tempfile.NamedTemporaryFile("w", suffix=".lua", delete=False)
    with script:
        script.write(f'wrk.headers["Authorization"] = "Bearer {key}"\n')
        if body:
            script.write('wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nlocal n = 0\n'
                         f"request = function() n = n + 1; return wrk.format(nil, nil, nil, ({json.dumps(body)}):gsub('@', tostring(n) .. tostring(math.random(1e9)))) end\n")
    out = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script.name, url], capture_output=True, text=True).stdout
    os.unlink(script.name)
    found = re.search(r"Requests/sec:\s+([\d.]+)", out)
    late = re.search(r"99%\s+([\d.]+)(us|ms|s)", out)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    assert found and late, out
    assert not bad, out
    return float(found[1]), float(late[1]) * {"us": 0.001, "ms": 1, "s": 1000}[late[2]]


def beside(quick):
    """What PocketBase does with the same, in this run; {} where it is not installed."""
    from peers import PocketBase
    peer = PocketBase.start(10_000)
    if peer is None:
        return {}
    seconds = 2 if quick else 8
    try:
        records = peer.url + "/api/collections/tasks/records"
        return {"list 20 of 10,000 tasks, with total": wrk(records + "?perPage=20&sort=-@rowid", peer.token, seconds)[0],
                "create a task": wrk(records, peer.token, seconds, '{"title": "Task @", "status": "todo"}')[0]}
    finally:
        peer.stop()


def slow_flush(folder, key, quick):
    """Thirty-two clients submit on a disk that flushes as slowly as the Mac's."""
    seconds = 2 if quick else 8
    plain = wrk_once(folder, key, seconds, HOME / "orkosi.py")
    slow = wrk_once(folder, key, seconds, HOME / "bench" / "slow_disk.py", "18")
    if slow:
        row("HTTP: submit, 32 connections, FULL, a flush of 18 ms", f"{slow[0]:,.0f}", "/s", f"p99 {slow[1]:.0f} ms; this disk: {plain[0]:,.0f}/s", f"{slow[0] / plain[0]:.2f}")


def wrk_once(folder, key, seconds, *program):
    server = Server(folder, *map(str, program))
    try:
        return wrk(server.url + "/api/task-queue/submit", key, seconds, '{"task_type": "t", "queue_name": "slow"}', 32)
    finally:
        server.stop()


def over_http(folder, quick):
    seconds = 2 if quick else 8
    peers = beside(quick)
    data = folder / "http"
    key = key_of(data)
    fill(data, 10_000)
    server = Server(data)
    try:
        time.sleep(1)
        row("resident memory, idle", f"{server.memory():.0f}", "MB")
        for what, path, body in (
                ("health", "/api/health", None),
                ("idle-check", "/api/agent-runs/idle-check?agent_name=felix", None),
                ("list 20 of 10,000 tasks, with total", "/api/tasks?limit=20", None),
                ("submit a job", "/api/task-queue/submit", '{"task_type": "t", "payload": {"n": 1}}'),
                ("claim a job", "/api/task-queue/claim", '{"worker_id": "w"}'),
                ("create a task", "/api/tasks", '{"title": "Task @"}')):
            found = wrk(server.url + path, key, seconds, body)
            if found is None:
                row(what, "skipped:", "wrk is not installed")
                continue
            other = peers.get(what)
            row(f"HTTP: {what}, 8 connections, FULL", f"{found[0]:,.0f}", "/s",
                f"p99 {found[1]:.1f} ms" + (f"; PocketBase: {other:,.0f}/s" if other else ""), f"{found[0] / other:.2f}" if other else "")
        one = wrk(server.url + "/api/agent-runs/idle-check?agent_name=felix", key, seconds, None, 1)
        if one:
            row("HTTP: idle-check, one connection", f"{1000 / one[0]:.2f}", "ms each", f"p99 {one[1]:.2f} ms")
        row("resident memory, after that", f"{server.memory():.0f}", "MB")
    finally:
        server.stop()
    slow_flush(data, key, quick)
    again = Server(data)
    row("start to ready, this database", f"{again.ready * 1000:.0f}", "ms", f"{(data / 'orkosi.db').stat().st_size >> 20} MB")
    again.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds: whether the bench runs, not how fast Orkosi is")
    quick = parser.parse_args().quick
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}\n")
    print("| what | here | beside | ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        engine(Path(folder), quick)
        over_http(Path(folder), quick)


if __name__ == "__main__":
    venv = HOME / ".venv" / "bin" / "python"
    try:
        import apsw  # noqa: F401
    except ImportError:
        if not venv.exists():
            sys.exit("Run 'python3 orkosi.py settings' once first: it installs what this needs")
        os.execv(venv, [str(venv), *sys.argv])
    main()
