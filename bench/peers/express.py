"""Express 5 with `pg` on a PostgreSQL of its own: a private cluster in a temporary folder, flushing every commit.

The cluster is reached by a socket in that folder, which is faster than TCP, and has 256 MB of shared buffers;
fsync and synchronous_commit are on, and only the pool that claims turns the latter off. PostgreSQL does not
run as root: where the bench does, it runs as `postgres`.
"""
import contextlib
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import HERE, environment, fetch, free_port, has_packages, node, postgres_folder, running

POOL = 8
SETTINGS = {"listen_addresses": "", "fsync": "on", "synchronous_commit": "on", "shared_buffers": "256MB", "max_wal_size": "2GB", "max_connections": "50"}


class Express:
    """A running Express: `url`, and the tokens of who lists, and of who works."""

    def __init__(self, url: str, psql: list[str], options: dict):
        self.url, self._psql, self._options = url, psql, options
        self.reader, self.worker = "reader-token", "worker-token"

    def value(self, sql: str) -> str:
        return run_sql(self._psql, sql, self._options)


def run_sql(psql: list[str], sql: str, options: dict) -> str:
    return subprocess.run(psql, input=sql, check=True, capture_output=True, text=True, timeout=300, **options).stdout.strip()


def fill(psql: list[str], tasks: int, jobs: int, options: dict) -> None:
    run_sql(psql, (HERE / "express.sql").read_text(), options)
    for id, tenant, token in (("key_w", 1, "worker-token"), ("key_r", 2, "reader-token")):
        run_sql(psql, f"""INSERT INTO api_keys (id, tenant_id, hash, name, scopes)
                          VALUES ('{id}', {tenant}, '\\x{hashlib.sha256(token.encode()).hexdigest()}', 'bench', '["tasks:read", "queue:work", "queue:submit"]')""", options)
    run_sql(psql, f"""
        INSERT INTO tasks (tenant_id, title, title_key, status, priority, assignee, created_by)
        SELECT 2, 'Task number ' || n, 'task number ' || n, 'todo', 'P' || n % 4, 'agent' || n % 10, 'bench' FROM generate_series(0, {tasks - 1}) n;
        INSERT INTO jobs (tenant_id, queue, task_type, payload, state, timeout_seconds)
        SELECT 1, 'default', 't', '{{"n": 1}}', 'waiting', 86400 FROM generate_series(1, {jobs}) n;
        VACUUM ANALYZE;
        CHECKPOINT;""", options)


@contextlib.contextmanager
def postgres(programs: Path) -> Iterator[tuple[str, list[str], dict]]:
    """(folder of the socket, the command psql, how to run it): a cluster that ends with the block."""
    options: dict = {}
    folder = tempfile.mkdtemp()
    try:
        if os.geteuid() == 0:
            who = pwd.getpwnam("postgres")
            os.chown(folder, who.pw_uid, who.pw_gid)
            options = {"user": "postgres", "group": who.pw_gid, "extra_groups": []}
        options["cwd"] = folder
        subprocess.run([programs / "initdb", "-D", folder + "/data", "-U", "bench", "-A", "trust", "--encoding=UTF8", "--no-locale"],
                       check=True, capture_output=True, timeout=120, **options)
        given = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        psql = [str(programs / "psql"), "-h", folder, "-U", "bench", "-d", "postgres", "-qAt", "-v", "ON_ERROR_STOP=1"]
        server = [str(programs / "postgres"), "-D", folder + "/data", "-k", folder, *given]
        with running(server, lambda: run_sql(psql, "SELECT 1", options), end=signal.SIGINT, **options):
            yield folder, psql, options
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def express(tasks: int, jobs: int) -> Iterator[Express | None]:
    """It, with `tasks` tasks of the tenant that lists, and `jobs` waiting jobs; None where a part is not installed."""
    programs = postgres_folder()
    if programs is None or not has_packages("express", "pg"):
        yield None
        return
    with postgres(programs) as (folder, psql, options):
        fill(psql, tasks, jobs, options)
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        with running(node("express.mjs", port, folder, POOL), lambda: fetch(url + "/api/health"), env=environment()):
            yield Express(url, psql, options)
