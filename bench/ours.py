"""Our server for the bench: a data folder that is filled, and the real program on it with services and watchers."""
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from peers import fetch, stop

HOME = Path(__file__).resolve().parent.parent
SETTINGS = {"ORKOSI_NO_INSTALL": "1", "ORKOSI_LIMIT_TASK_CREATE": "off", "ORKOSI_DURABILITY": "power"}
TICK = os.sysconf("SC_CLK_TCK")


class Tokens:
    """`reader` lists the tasks of a tenant of its own, so that they stay as many; `worker` does everything else in the host's."""

    def __init__(self, worker: str, reader: str):
        self.worker, self.reader = f"Bearer {worker}", f"Bearer {reader}"


def prepare(folder: Path, tasks: int, jobs: dict[str, int]) -> Tokens:
    """Fill a data folder: tasks for the reader, waiting jobs by queue. No server may run on it."""
    import orkosi
    from orkosi import acting, settings, system
    orkosi.load()
    from plugins import storage
    settings.load(data=folder, durability="process")
    storage.open_data()
    try:
        with acting(system()):
            found = keys()
            fill(tasks, jobs, found[1])
    finally:
        storage.close_data()
    return Tokens(found[0], found[2])


def keys() -> tuple[str, int, str]:
    """The worker's key, the reader's tenant, and the reader's key."""
    from plugins import keys, users
    password = users.passwords.hashed(users.random_password())
    worker = users.add("bench", "bench@example.com", password, "admin", 1)
    reader = users.add("reader", "reader@example.com", password, "admin")
    made = [keys.issue(one.tenant_id, "bench", keys.SCOPES, by=one.id)[1] for one in (worker, reader)]
    return made[0], reader.tenant_id, made[1]


def fill(tasks: int, jobs: dict[str, int], reader: int) -> None:
    from orkosi import db, now
    moment = now()
    db.write(lambda: db.run_many(
        """INSERT INTO tasks (tenant_id, title, title_key, status, priority, assignee, created_by, created_at, updated_at)
           VALUES (:reader, :title, :title, 'todo', :priority, :who, 'bench', :now, :now)""",
        ({"reader": reader, "title": f"Task number {n}", "priority": f"P{n % 4}", "who": f"agent{n % 10}", "now": moment} for n in range(tasks))))
    for queue, count in jobs.items():
        for start in range(0, count, 20_000):
            db.write(lambda queue=queue, size=min(20_000, count - start): db.run_many(
                """INSERT INTO jobs (tenant_id, queue, task_type, payload, state, timeout_seconds, created_at)
                   VALUES (1, :queue, 't', '{"n": 1}', 'waiting', 86400, :now)""", ({"queue": queue, "now": moment} for _ in range(size))))


class Server:
    """A running server: where it is, and what it takes."""

    def __init__(self, folder: Path, *program: object, **env: str):
        (folder / "server.json").unlink(missing_ok=True)
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, *map(str, program or [HOME / "orkosi.py"]), "serve", "--port", "0", "--data", str(folder)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            env={name: value for name, value in (os.environ | SETTINGS | env).items() if name != "PYTHONDONTWRITEBYTECODE"})  # as on a user's machine
        try:
            self.url = self._ready(folder, began + 60)
        except BaseException:
            self.stop()
            raise
        self.ready = time.perf_counter() - began

    def _ready(self, folder: Path, limit: float) -> str:
        while True:
            with contextlib.suppress(OSError, ValueError):
                url = json.loads((folder / "server.json").read_text())["url"]
                fetch(url + "/api/ready")
                return str(url)
            if self.process.poll() is not None or time.perf_counter() > limit:
                raise RuntimeError(f"the server did not start (exit {self.process.poll()})")
            time.sleep(0.005)

    def memory(self) -> float:
        """Resident, in MB."""
        shown = subprocess.run(["ps", "-o", "rss=", "-p", str(self.process.pid)], capture_output=True, text=True, timeout=10)
        return int(shown.stdout) / 1024

    def busy(self) -> float | None:
        """Seconds of processor time so far; None where /proc does not tell."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / TICK

    def stop(self) -> None:
        stop(self.process)


@contextlib.contextmanager
def serving(folder: Path, *program: object, **env: str) -> Iterator[Server]:
    server = Server(folder, *program, **env)
    try:
        yield server
    finally:
        server.stop()


def copied(folder: Path, to: Path) -> Path:
    """The same data for another server."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("orkosi.lock", "server.*"))
    return to
