"""The queues that are no servers: BullMQ on a Redis that keeps nothing on disk, plainjob on better-sqlite3 at NORMAL, huey and litequeue."""
import json
import shutil
import socket
import subprocess
import tempfile

from . import HERE, PEER_HOME, environment, free_port, has_packages, node, running


def bullmq(calls: int, callers: int) -> dict[str, float] | None:
    """{"submit", "work"} a second; None where it is not installed."""
    if not (shutil.which("redis-server") and has_packages("bullmq", "ioredis")):
        return None
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        redis = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
        with running(redis, lambda: socket.create_connection(("127.0.0.1", port), 1).close()):
            return answered(node("bullmq.mjs", port, calls, callers))


def plainjob(calls: int) -> dict[str, float] | None:
    """{"submit", "work"} a second; None where it is not installed."""
    if not has_packages("plainjob", "better-sqlite3"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        return answered(node("plainjob.mjs", folder + "/jobs.db", calls))


def python(kind: str, calls: int) -> dict[str, float] | None:
    """The same of huey or litequeue; None where it is not installed in the folder's Python."""
    if not list(PEER_HOME.glob(f"venv/lib/python3*/site-packages/{kind}*")):
        return None
    with tempfile.TemporaryDirectory() as folder:
        return answered([str(PEER_HOME / "venv/bin/python"), str(HERE / "pyqueues.py"), kind, folder + "/jobs.db", str(calls)])


def answered(program: list[str]) -> dict[str, float]:
    done = subprocess.run(program, capture_output=True, text=True, env=environment(), timeout=180)
    if done.returncode:
        raise RuntimeError(f"{program[1]} ended with {done.returncode}: {done.stderr[-500:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
