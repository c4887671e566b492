"""Seeing: the search, the dashboards and the metrics beside a million tasks and a million runs, and log lines that come in meanwhile.

Surprise: what is asked for varies, for a question that is repeated would be answered from what lies in memory.
"""
import statistics
import threading
import time
from pathlib import Path

import load
from ours import Server, Tokens, prepare, serving

WORDS = ("harbour", "tide", "lamp", "rope", "anchor", "sail", "keel", "mast", "deck", "crane", "buoy", "gull", "storm", "chart", "port", "wharf")
ASKED = 200
LINES = 50_000  # a second


def measure(table, folder: Path, rounds: int, seconds: int, quick: bool) -> None:
    many = 20_000 if quick else 1_000_000
    tokens = prepare(folder / "seeing", 10, {})
    grow(folder / "seeing", many)
    with serving(folder / "seeing") as server:
        for _ in range(rounds):
            with table.guard("seeing"):
                looks(table, server, tokens, many)
        with table.guard("log lines"):
            lines(table, folder / "seeing", server, tokens, 2 if quick else 10)


def grow(folder: Path, many: int) -> None:
    """So many tasks and runs, with the sums that they would have; no server may run."""
    import orkosi
    from orkosi import db, now, settings
    orkosi.load()
    from plugins import storage
    settings.load(data=folder, durability="process")
    storage.open_data()
    moment = now()
    for start in range(0, many, 20_000):
        size = min(20_000, many - start)
        db.write(lambda start=start, size=size: db.run_many(
            """INSERT INTO tasks (tenant_id, title, title_key, status, priority, assignee, product_slug, created_by, created_at, updated_at, finished_at)
               VALUES (1, :title, :title, :status, :priority, :who, :product, 'bench', :now, :now, :over)""",
            ({"title": f"{WORDS[n % 16]} {WORDS[n // 16 % 16]} number {n}", "status": "done" if n % 20 else "todo", "priority": f"P{n % 4}", "who": f"agent{n % 10}",
              "product": f"product{n % 5}", "now": moment, "over": now(-0.05 * (many - n)) if n % 20 and n % 10 == 1 else None} for n in range(start, start + size))))
        db.write(lambda start=start, size=size: db.run_many(
            """INSERT INTO agent_runs (tenant_id, agent, task_id, status, tokens_in, tokens_out, cost_micros, started_at, finished_at, counted)
               VALUES (1, :who, :task, 'done', 100, 10, 50, :now, :now, 1)""", ({"who": f"agent{n % 10}", "task": n, "now": moment} for n in range(start, start + size))))
    db.write(lambda: db.run_many(
        """INSERT INTO agents (tenant_id, name, display_name, wanted, created_at, updated_at) VALUES (1, :name, :name, 'stopped', :now, :now)""",
        ({"name": f"agent{n}", "now": moment} for n in range(10))))
    db.write(lambda: db.run_many(
        """INSERT INTO cost_sums (tenant_id, agent, day, product, model, runs, done, wasted, tokens_in, tokens_out, cost_micros, ms)
           VALUES (1, :who, :day, :product, '', :n, :n, 0, :n, :n, :n, 0)""",
        ({"who": f"agent{n % 10}", "day": f"2026-{n // 280 + 1:02d}-{n // 10 % 28 + 1:02d}", "product": f"product{n % 5}", "n": many // 1000} for n in range(1000))))
    storage.close_data()


def looks(table, server: Server, tokens: Tokens, many: int) -> None:
    client = load.Client(server.url, tokens.worker)
    said = f"{many:,} tasks, {many:,} runs"
    rows = [("search", [f"/api/search?q={WORDS[n % 16]}+{WORDS[n // 16 % 16]}" if n % 2 else f"/api/search?q={n * 37}" for n in range(ASKED)], "≤ 50 ms"),
            ("/dashboard", ["/api/dashboard"] * ASKED, "≤ 100 ms"), ("/dashboard/stats", ["/api/dashboard/stats"] * ASKED, "≤ 100 ms"),
            ("/dashboard/agent-efficiency", ["/api/dashboard/agent-efficiency"] * (ASKED // 2), "≤ 100 ms"),
            ("/dashboard/agent-queue-health", ["/api/dashboard/agent-queue-health"] * ASKED, "≤ 100 ms"),
            ("/dashboard/overview", ["/api/dashboard/overview"] * (ASKED // 2), "≤ 100 ms"), ("/metrics", ["/api/metrics"] * ASKED, "≤ 20 ms")]
    for name, paths, must in rows:
        took = []
        for path in paths:
            began = time.perf_counter()
            client.send(path)
            status = client.status()
            took.append((time.perf_counter() - began) * 1000)
            if status != 200:
                raise RuntimeError(f"{path} answered {status}")
        table.add(f"{name}, {said}", "ms p95", sorted(took)[int(len(took) * 0.95)], must=must, note=f"p50 {statistics.median(took):.1f} ms")
    client.close()


def lines(table, data: Path, server: Server, tokens: Tokens, seconds: int) -> None:
    """Write lines at a steady pace, turn the file over in the middle, and ask everything once a second; then count."""
    logs = data / "agents" / "agent0" / "logs"
    logs.mkdir(parents=True)
    total, over = LINES * seconds, threading.Event()
    client = load.Client(server.url, tokens.worker)
    asker = threading.Thread(target=ask, args=(client, over), daemon=True)
    asker.start()
    began, written = time.perf_counter(), 0
    file = open(logs / "brain.log", "a")
    while written < total:
        until = min(total, int((time.perf_counter() - began) * LINES) + 1)
        file.write("".join(f"2026-11-27T00:00:00.000Z INFO line {n} of the bench\n" for n in range(written, until)))
        file.flush()
        if written < total // 2 <= until:
            file.close()
            (logs / "brain.log").rename(logs / "brain.log.1")
            file = open(logs / "brain.log", "a")
        written = until
        time.sleep(0.02)
    file.close()
    took = time.perf_counter() - began
    late = settled(data, total)
    over.set()
    asker.join()
    client.close()
    found, different = counted(data)
    table.add(f"log lines written at {total / took:,.0f} a second that are kept, each once", "%", 100 * different / total, must="≥ 100 %",
              note=f"{found:,} of {total:,} rows, {different:,} different ones; the last was there {late:.1f} s after it was written")


def ask(client: load.Client, over: threading.Event) -> None:
    while not over.wait(1.0):
        for path in ("/api/dashboard/stats", "/api/dashboard/overview", "/api/search?q=harbour", "/api/metrics"):
            client.send(path)
            client.status()


def counted(data: Path) -> tuple[int, int]:
    """How many lines of ours are kept, and how many different ones."""
    import apsw
    con = apsw.Connection(str(data / "logs.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return con.execute("SELECT count(*), count(DISTINCT message) FROM log_lines WHERE message LIKE '%of the bench'").fetchone()
    finally:
        con.close()


def settled(data: Path, total: int) -> float:
    began = time.perf_counter()
    while time.perf_counter() - began < 60 and counted(data)[0] < total:
        time.sleep(0.2)
    return time.perf_counter() - began


