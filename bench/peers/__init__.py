"""The peers: other systems, measured in the same run where they are installed; see README.md beside this file.

Here is what they share: where they are installed, which versions they are, and how a process is started,
waited for and ended. One that is not there is None, and is skipped by name.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEER_HOME = Path(os.environ.get("PEER_HOME", HERE)).resolve()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def has_packages(*names: str) -> bool:
    """Whether node and these npm packages are there."""
    return bool(shutil.which("node")) and all((PEER_HOME / "node_modules" / name / "package.json").exists() for name in names)


def node(script: str, *arguments: object) -> list[str]:
    return ["node", str(HERE / script), *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"PEER_HOME": str(PEER_HOME), "NODE_ENV": "production"}


def postgres_folder() -> Path | None:
    """Where PostgreSQL's own programs are: Debian keeps them off PATH."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: int(one.parent.name) if one.parent.name.isdigit() else 0, default=None)


def pocketbase_program() -> str | None:
    return shutil.which("pocketbase") or next((str(one) for one in PEER_HOME.glob("**/bin/pocketbase") if os.access(one, os.X_OK)), None)


def versions() -> dict[str, str]:
    """The version of every peer that is installed; "not installed" of the others."""
    postgres = postgres_folder()
    found = {"PocketBase": _asked(pocketbase_program(), "--version"),
             "PostgreSQL": _asked(str(postgres / "postgres") if postgres else None, "--version"),
             "Redis": _asked(shutil.which("redis-server"), "--version"),
             "Node": _asked(shutil.which("node"), "--version"),
             "wrk": _asked(shutil.which("wrk"), "-v")}
    for title, package in (("Express", "express"), ("pg", "pg"), ("BullMQ", "bullmq"), ("plainjob", "plainjob"), ("better-sqlite3", "better-sqlite3")):
        file = PEER_HOME / "node_modules" / package / "package.json"
        found[title] = json.loads(file.read_text())["version"] if file.exists() else "not installed"
    return found


def _asked(program: str | None, option: str) -> str:
    if not program:
        return "not installed"
    done = subprocess.run([program, option], capture_output=True, text=True, timeout=20)
    number = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return number[0] if number else "unknown"


@contextlib.contextmanager
def running(program: list[str], ready: Callable[[], object], *, seconds: float = 30.0, end: int = signal.SIGTERM, **options: object) -> Iterator[subprocess.Popen]:
    """A process that is ready, and is ended at the end, whatever happens meanwhile. `ready` raises until it is."""
    process = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **{"stderr": subprocess.DEVNULL, **options})  # type: ignore[call-overload]
    try:
        limit = time.monotonic() + seconds
        while True:
            try:
                ready()
                break
            except (OSError, ValueError, subprocess.SubprocessError):
                if process.poll() is not None or time.monotonic() > limit:
                    raise RuntimeError(f"{Path(program[0]).name} did not start (exit {process.poll()})") from None
            time.sleep(0.01)
        yield process
    finally:
        stop(process, end)


def stop(process: subprocess.Popen, how: int = signal.SIGTERM) -> None:
    if process.poll() is None:
        process.send_signal(how)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def fetch(url: str, *, body: object = None, method: str | None = None, headers: dict[str, str] | None = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": "application/json", **(headers or {})})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())
