"""PocketBase, with a collection `tasks` like ours to list, and another, `created`, to create records in.

Its own durability is NORMAL. A hook gives it one more route, by which the bench sets `PRAGMA synchronous` on the
one connection that it writes with, and reads back what is in force: so it can create at FULL, as ours does.
"""
import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import fetch, free_port, pocketbase_program, running

HOOK = """
routerAdd("POST", "/bench/synchronous/{level}", (e) => {
  const level = e.request.pathValue("level") === "full" ? "FULL" : "NORMAL"
  $app.nonconcurrentDB().newQuery("PRAGMA synchronous = " + level).execute()
  const found = new DynamicModel({synchronous: 0})
  $app.nonconcurrentDB().newQuery("PRAGMA synchronous").one(found)
  return e.json(200, found)
})
"""
TEXTS = ("title", "description", "type", "status", "priority", "assignee", "product_slug", "category", "tags", "due_date",
         "resolution", "last_error", "job_id", "created_by", "finished_at")
NUMBERS = ("estimated_minutes", "max_duration_seconds")


class PocketBase:
    """A running PocketBase: `url`, `token`."""

    def __init__(self, url: str):
        self.url, self.token = url, ""
        self.token = self.ask("/api/collections/_superusers/auth-with-password", identity="a@example.com", password="correct horse")["token"]

    def ask(self, path: str, method: str = "POST", **body: object) -> dict:
        return json.loads(fetch(self.url + path, body=body, method=method, headers={"Authorization": self.token} if self.token else {}))

    def synchronous(self, level: str) -> None:
        """Set the durability of its writes. It may have opened its connection anew, so this comes before every measurement."""
        found = self.ask(f"/bench/synchronous/{level}")["synchronous"]
        if found != {"normal": 1, "full": 2}[level]:
            raise RuntimeError(f"PocketBase's synchronous is {found}, not {level}")

    def fill(self, count: int) -> None:
        fields = [*({"name": name, "type": "text"} for name in TEXTS), *({"name": name, "type": "number"} for name in NUMBERS),
                  {"name": "created_at", "type": "autodate", "onCreate": True}, {"name": "updated_at", "type": "autodate", "onCreate": True, "onUpdate": True}]
        for name in ("tasks", "created"):
            self.ask("/api/collections", name=name, type="base", fields=fields)
        self.ask("/api/settings", method="PATCH", batch={"enabled": True, "maxRequests": 1000, "timeout": 30})
        for start in range(0, count, 1000):
            self.ask("/api/batch", requests=[
                {"method": "POST", "url": "/api/collections/tasks/records", "body": task(n)} for n in range(start, min(start + 1000, count))])


def task(number: int) -> dict:
    return {"title": f"Task number {number}", "type": "other", "status": "todo", "priority": f"P{number % 4}", "assignee": f"agent{number % 10}",
            "created_by": "bench", "max_duration_seconds": 3600}


@contextlib.contextmanager
def pocketbase(count: int) -> Iterator[PocketBase | None]:
    """It, with `count` tasks; None where it is not installed."""
    program = pocketbase_program()
    if program is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "hooks").mkdir()
        Path(folder, "hooks", "synchronous.pb.js").write_text(HOOK)
        where = ["--dir", folder + "/data", "--hooksDir", folder + "/hooks", "--migrationsDir", folder + "/migrations"]
        subprocess.run([program, "superuser", "upsert", "a@example.com", "correct horse", *where], check=True, capture_output=True, timeout=60)
        url = f"http://127.0.0.1:{free_port()}"
        with running([program, "serve", "--http", url.removeprefix("http://"), *where], lambda: fetch(url + "/api/health")):
            peer = PocketBase(url)
            peer.fill(count)
            yield peer
