"""The queue in process, without HTTP: one round in a process of its own, `engine.py FOLDER CALLS MANY`, that prints its numbers as JSON.

SQLite alone is measured beside it in the same process: the same row into the same table, one commit each, one
connection and no thread. MANY above 0 also asks what a claim costs with that many jobs waiting, and as many finished.
"""
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(HOME), str(HOME / "bench")]
CALLERS = 32


def measure(table, rounds: int, calls: int, many: int) -> None:
    """All rounds; the claim beside many jobs only in the first, since it takes as long as all the rest."""
    from peers import queues
    for number in range(rounds):
        peers = {}
        for name, ask in (("BullMQ", lambda: queues.bullmq(calls // 2, CALLERS)), ("plainjob", lambda: queues.plainjob(calls // 2)),
                          ("huey", lambda: queues.python("huey", calls // 8)), ("litequeue", lambda: queues.python("litequeue", calls // 8))):
            with table.guard(name):
                peers[name] = ask()
                if peers[name] is None:
                    table.skip(name, "not installed")
        with table.guard("engine"), tempfile.TemporaryDirectory() as folder:
            program = [sys.executable, __file__, folder, str(calls), "0" if number else str(many)]
            done = subprocess.run(program, capture_output=True, text=True, timeout=600)
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            tell(table, json.loads(done.stdout.splitlines()[-1]), peers, many)


def tell(table, found: dict, peers: dict, many: int) -> None:
    bull, plain = peers.get("BullMQ") or {}, peers.get("plainjob") or {}
    for sync, must in (("NORMAL", "≥ 1.0×"), ("FULL", "≥ 4.0×")):
        table.add(f"engine: submit, {CALLERS} callers, {sync}", "/s", found[f"submit {sync}"], "SQLite alone, one commit each",
                  found[f"bare {sync}"], must=must)
    table.add(f"engine: submit, {CALLERS} callers, NORMAL", "/s", found["submit NORMAL"], "BullMQ on Redis, not durable", bull.get("submit"))
    table.add(f"engine: submit, {CALLERS} callers, NORMAL", "/s", found["submit NORMAL"], "plainjob, NORMAL", plain.get("submit"))
    for name in ("huey", "litequeue"):
        of = peers.get(name) or {}
        table.add(f"engine: submit, {CALLERS} callers, NORMAL", "/s", found["submit NORMAL"], f"{name}, one caller", of.get("submit"))
        table.add(f"engine: complete and claim the next, {CALLERS} callers, NORMAL", "/s", found["chain NORMAL"], f"{name}, one caller", of.get("work"))
    for sync, peer, rate, must in (("NORMAL", "BullMQ on Redis, not durable", bull, "≥ 1.0×"), ("NORMAL", "plainjob, NORMAL", plain, ""),
                                   ("FULL", "BullMQ on Redis, not durable", bull, "")):
        table.add(f"engine: complete and claim the next, {CALLERS} callers, {sync}", "/s", found[f"chain {sync}"], peer, rate.get("work"), must=must)
    if found["hundreds"] is None:
        table.skip("engine: claim and complete in hundreds", "queue.complete_many does not exist")
    else:
        table.add("engine: claim and complete in hundreds, FULL", "/s", found["hundreds"], must="≥ 50,000")
    if "flat" in found:
        few, lots = found["flat"]
        table.add(f"engine: claim, {many:,} waiting and {many:,} finished", "µs p50", lots, "with 1,000 waiting", few, must="≤ 1.3×")


# ── one round, in its own process ──


def rate(calls: int, threads: int, do: Callable[[int], object]) -> float:
    """Calls a second of `do(number)` from `threads` callers. A caller that fails fails the round."""
    from orkosi import acting, system
    per, broken = calls // threads, []

    def run() -> None:
        try:
            with acting(system()):
                for number in range(per):
                    do(number)
        except BaseException as error:
            broken.append(error)
    crew = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
    began = time.perf_counter()
    for one in crew:
        one.start()
    for one in crew:
        one.join()
    took = time.perf_counter() - began
    if broken:
        raise broken[0]
    return per * threads / took


def bare(folder: Path, sync: str, seconds: float) -> float:
    """SQLite's own limit."""
    import apsw
    con = apsw.Connection(str(folder / f"bare-{sync}.db"))
    con.execute("ATTACH ':memory:' AS logs")
    con.execute(f"PRAGMA main.journal_mode = wal; PRAGMA main.synchronous = {sync}").fetchall()
    con.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    con.execute((HOME / "schema.sql").read_text())
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(50):
            con.execute("""INSERT INTO jobs (tenant_id, queue, task_type, payload, state, created_at)
                           VALUES (1, :queue, 't', :payload, 'waiting', :now)""",
                        {"queue": "bench", "payload": '{"n":1}', "now": "2026-01-01T00:00:00.000Z"}).fetchall()
        count += 50
    took = time.perf_counter() - began
    con.close()
    return count / took


def jobs(count: int, **columns: object) -> None:
    """So many jobs, at once."""
    from orkosi import db, now
    names = ["tenant_id", "task_type", "created_at", "timeout_seconds", *columns]
    sql = f"INSERT INTO jobs ({', '.join(names)}) VALUES (1, 't', :now, 86400, {', '.join(':' + name for name in columns)})"
    for start in range(0, count, 20_000):
        db.write(lambda size=min(20_000, count - start): db.run_many(sql, ({"now": now(), **columns} for _ in range(size))))


def hundreds(queue, count: int) -> float | None:
    """Jobs a second that are claimed and completed a hundred at a time; None where nothing completes in bulk."""
    if not hasattr(queue, "complete_many"):
        return None
    jobs(count, queue="hundreds", state="waiting")
    began, done = time.perf_counter(), 0
    while found := queue.claim("hundreds", "w", batch=100):
        queue.complete_many([(job.id, job.lease_token, None) for job in found])
        done += len(found)
    took = time.perf_counter() - began
    if done != count:
        raise RuntimeError(f"{done} of {count} jobs were claimed")
    return done / took


def flat(queue, many: int) -> tuple[float, float]:
    """µs that a claim takes with a thousand jobs waiting, and with many more, and as many finished."""
    from orkosi import now

    def p50() -> float:
        took = []
        for _ in range(300):
            began = time.perf_counter()
            job = queue.claim("flat", "w")[0]
            took.append(time.perf_counter() - began)
            queue.complete(job.id, job.lease_token)
        return sorted(took)[150] * 1e6
    jobs(1_000, queue="flat", state="waiting")
    few = p50()
    jobs(many, queue="flat", state="waiting")
    jobs(many, queue="flat", state="completed", finished_at=now())
    return few, p50()


def one_round(folder: Path, calls: int, many: int) -> dict:
    import orkosi
    from orkosi import acting, settings, system
    orkosi.load()
    from plugins import queue, storage
    found: dict = {}
    for durability, sync in (("process", "NORMAL"), ("power", "FULL")):
        found[f"bare {sync}"] = bare(folder, sync, min(2.0, calls / 16_000))
        settings.load(data=folder / durability, durability=durability)
        storage.open_data()
        found[f"submit {sync}"] = rate(calls, CALLERS, lambda number: queue.submit("bench", "t", {"n": number}))
        mine = threading.local()

        def chain(_: int, mine=mine) -> None:
            job = getattr(mine, "job", None) or queue.claim("bench", "w")[0]
            mine.job = queue.complete(job.id, job.lease_token, claim_next=True)[1]
        found[f"chain {sync}"] = rate(calls // 2, CALLERS, chain)
        with acting(system()):
            if sync == "FULL":
                found["hundreds"] = hundreds(queue, calls)
            elif many:
                found["flat"] = flat(queue, many)
        storage.close_data()
    return found


if __name__ == "__main__":
    print(json.dumps(one_round(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
