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
sys.path.insert(0, str(HOME))
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
    """SQLite's own limit: one INSERT a commit, one connection, nothing else."""
    import apsw
    con = apsw.Connection(str(folder / f"bare-{sync}.db"))
    con.execute(f"PRAGMA journal_mode = wal; PRAGMA synchronous = {sync}; CREATE TABLE t (id INTEGER PRIMARY KEY, a, b, c)").fetchall()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(50):
            con.execute("INSERT INTO t (a, b, c) VALUES (:a, :b, :c)", {"a": "queue", "b": "{}", "c": "2026-01-01T00:00:00.000Z"})
        count += 50
    con.close()
    return count / (time.perf_counter() - began)


def engine(folder, quick):
    import orkosi
    from orkosi import settings
    orkosi.load()
    from plugins import queue
    calls = 6_400 if quick else 32_000
    for durability, sync in (("process", "NORMAL"), ("power", "FULL")):
        limit = bare(folder, sync, 0.5 if quick else 2)
        settings.load(data=folder / durability, durability=durability)
        orkosi.open_data()
        submit = rate(calls, 32, lambda number: queue.submit("bench", "t", {"n": number}))
        row(f"engine: submit, 32 callers, {sync}", f"{submit:,.0f}", "/s", f"SQLite, one commit each: {limit:,.0f}/s", f"{submit / limit:.2f}")
        local = threading.local()

        def chain(_, local=local):
            job = getattr(local, "job", None) or queue.claim("bench", "w")[0]
            local.job = queue.complete(job.id, job.lease_token, claim_next=True)[1]
        done = rate(calls // 2, 32, chain)
        row(f"engine: complete and claim the next, 32 callers, {sync}", f"{done:,.0f}", "/s")
        orkosi.close_data()


# ── the server, over HTTP ──


class Server:
    def __init__(self, folder, **env):
        self.folder = folder
        began = time.perf_counter()
        self.process = subprocess.Popen([sys.executable, str(HOME / "orkosi.py"), "serve", "--port", "0", "--data", str(folder)],
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
    import orkosi
    from orkosi import acting, settings, system
    settings.load(data=folder)
    orkosi.open_data()
    from plugins import keys
    with acting(system()):
        _, raw = keys.issue(1, "bench", keys.SCOPES)
    orkosi.close_data()
    return raw


def fill(folder, count):
    import orkosi
    from orkosi import acting, db, now, settings, system
    settings.load(data=folder, durability="process")
    orkosi.open_data()
    with acting(system()):
        db.write(lambda: db.run_many(
            """INSERT INTO tasks (tenant_id, title, title_key, status, priority, assignee, created_by, created_at, updated_at)
               VALUES (1, :title, :title, 'todo', :priority, :who, 'bench', :now, :now)""",
            ({"title": f"Task number {n}", "priority": f"P{n % 4}", "who": f"agent{n % 10}", "now": now()} for n in range(count))))
    orkosi.close_data()


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


def over_http(folder, quick):
    seconds = 2 if quick else 8
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
            row(f"HTTP: {what}, 8 connections, FULL", f"{found[0]:,.0f}", "/s", f"p99 {found[1]:.1f} ms")
        one = wrk(server.url + "/api/agent-runs/idle-check?agent_name=felix", key, seconds, None, 1)
        if one:
            row("HTTP: idle-check, one connection", f"{1000 / one[0]:.2f}", "ms each", f"p99 {one[1]:.2f} ms")
        row("resident memory, after that", f"{server.memory():.0f}", "MB")
    finally:
        server.stop()
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
