"""Server: listening, the log file, and an orderly end.

Owns no table. Surprise: access lines are collected in memory and written every half second;
they stay in the file, and only the ones that failed are taken into the searchable logs.
"""
import contextlib
import ctypes
import json
import logging
import logging.handlers
import os
import resource
import signal
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import click

import orkosi
from orkosi import DATA, Plugin, Problem, Request, Unavailable, acting, clean, db, emit, now, settings, system
from plugins import storage
from plugins.vault import canaries

from . import gauges

SHORT, ENOUGH = 200, 500  # characters of a path that the access log shows; answers that it takes at once

plugin = Plugin("Server", layer="ground", needs=("storage", "fields", "folders", "once", "vault", "lists"))
plugin.setting("host", str, "127.0.0.1", "The address to listen on; other machines reach it only on 0.0.0.0 or ::")
plugin.setting("port", int, 3001, "The port to listen on")
plugin.setting("public_url", str, "", "Where others reach this server, for links in mail; default: the address it listens on")
plugin.setting("hosts", str, "", "Further names that this server answers to, with commas between; its addresses and public_url need no mention")
plugin.setting("tunnel_port", int, 0, "The port of a second listener, on 127.0.0.1, for a tunnel: the public API and webhooks alone; 0: none")
plugin.setting("tunnel_address_header", str, "CF-Connecting-IP", "The header in which the tunnel, and nobody else, says its client's address")
plugin.setting("limit_tunnel", str, "300/minute", "Requests of one address that come through the tunnel")
plugin.setting("log_level", str, "INFO", "What goes to logs/orkosi.log: DEBUG, INFO, WARNING or ERROR")

log = logging.getLogger("orkosi")
_answered: deque[tuple] = deque(maxlen=50_000)
_enough = threading.Event()  # so many are written at once: what a busy half second leaves are megabytes


def url() -> str:
    """Where this server is reached."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return settings.public_url.rstrip("/") or f"http://{host}:{settings.port}"


def local_url() -> str:
    """Where programs on this machine reach this server, whatever its public address is."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


@plugin.command("serve")
@click.option("--host", help="The address to listen on; default 127.0.0.1")
@click.option("--port", type=int, help="The port to listen on; default 3001")
@click.option("--demo", is_flag=True, help="On an empty data folder: seed a small company and run it")
@DATA
def serve(host: str | None, port: int | None, demo: bool, data: Path | None) -> None:
    """Run Orkosi: the API, the queue, the supervisor of the agents."""
    settings.load(host=host, port=port, data=data)
    began = time.monotonic()
    changed = storage.open_data(exclusive=True)
    try:
        _one_heap()
        _log_to(settings.data / "logs")
        listener = _bind()
        for change in changed:
            log.info("schema: %s", change)
        links: list[str] = []
        said: list[str] = []
        with acting(system()):
            db.write(lambda: emit("serving", settings.data, demo=demo, link=links.append, say=said.append))
        _run(listener, began, links, said)
    finally:
        for name in ("server.json", "server.url"):
            (settings.data / name).unlink(missing_ok=True)
        storage.close_data()


@plugin.command("settings")
@DATA
def show_settings(data: Path | None) -> None:
    """List every setting: its value, where that comes from, and what it does."""
    settings.load(data=data)
    for one in sorted(settings.known.values(), key=lambda one: one.name):
        value = "(hidden)" if one.secret and settings.values[one.name] else settings.values[one.name]
        click.echo(f"{one.name} = {value}  [{settings.origins[one.name]}]\n    {one.sentence}")


def _one_heap() -> None:
    """Have all threads share a heap: glibc gives each its own, of which our thirty leave 7 MB unused, and few of them allocate at once."""
    with contextlib.suppress(AttributeError, OSError):  # a Mac has none to be told
        ctypes.CDLL(None).mallopt(-8, 1)  # M_ARENA_MAX


def _bind() -> Any:
    from .application import Application
    from .door import Door
    from .loop import listen
    application = Application()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    try:
        listener = listen(application, settings.host, settings.port)
    except OSError as error:
        raise Unavailable(f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another with --port") from None
    if settings.tunnel_port:
        try:
            listener.tunnel = Door(listener, settings.tunnel_port)
        except (OSError, OverflowError) as error:
            raise Unavailable(f"Cannot listen on 127.0.0.1:{settings.tunnel_port} for the tunnel: {error}; choose another tunnel_port") from None
    return listener


def _run(listener: Any, began: float, links: list[str], said: list[str]) -> None:
    """Serve until a signal; then answer what is under way, stop the services, and close the files."""
    def stop(number: int, _: Any) -> None:
        # Only flags and a wake-up: whatever this interrupts goes on, so that no commit stays without its answer.
        orkosi.stopping.set()  # long-polls and brains hear it at once
        listener.finish()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a client that hangs up must not end the server
    sys.setswitchinterval(0.001)  # loop and writer hand the interpreter to each other: with Python's 5 ms, one waits for the other
    settings.values["port"] = listener.effective_port
    (settings.data / "server.url").write_text(local_url() + "\n")  # before the services: what they start reads it with `read`
    orkosi.start_services()
    _announce(began, links, said)
    try:
        listener.run()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        log.info("stopping")
        orkosi.stopping.set()
        emit("stopping", settings.data)  # whoever waits for something else than that hears of it
        _enough.set()
        listener.shutdown()
        orkosi.stop_services(10)
        with acting(system()), contextlib.suppress(Problem):  # a full disk must not keep the files from being closed
            db.write(lambda: emit("closing", settings.data))
        flush()


def _announce(began: float, links: list[str], said: list[str]) -> None:
    file = settings.data / "server.json"
    file.write_text(json.dumps({"url": url(), "pid": os.getpid(), "started_at": now(), "version": orkosi.VERSION}))
    log.info("ready at %s in %.0f ms", url(), (time.monotonic() - began) * 1000)
    print(f"Orkosi {orkosi.VERSION} is ready at {url()}  (API: {url()}/api/docs, data: {settings.data})", flush=True)
    for path in links:
        print(f"Nobody has an account yet. Make the first administrator (once, within a day): {url()}{path}", flush=True)
    if settings.tunnel_port:
        print(f"The public API alone, for a tunnel: http://127.0.0.1:{settings.tunnel_port}", flush=True)
    for line in said:
        print(line, flush=True)


def _log_to(folder: Path) -> None:
    """Send the log to `orkosi.log`, turned over at 20 MB, and warnings to the terminal as well."""
    folder.mkdir(exist_ok=True)
    file = logging.handlers.RotatingFileHandler(folder / "orkosi.log", maxBytes=20 << 20, backupCount=5, encoding="utf-8")
    file.setFormatter(_Line())
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(_Line())
    terminal.setLevel(logging.WARNING)
    root = logging.getLogger()
    root.handlers[:] = [file, terminal]
    root.setLevel(settings.log_level.upper())
    logging.raiseExceptions = False


class _Line(logging.Formatter):
    """`time LEVEL message`, one line a record whatever is in it; a traceback follows indented."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name == "orkosi.access":
            return canaries.blotted_text(record.getMessage())
        text = f"{now()} {record.levelname} {clean(record.getMessage(), 8000)}"
        if record.exc_info:
            text += "".join(f"\n    {clean(line, 500)}" for line in self.formatException(record.exc_info).splitlines())
        return canaries.blotted_text(text)


@plugin.service
def mend_modes(stop: threading.Event) -> None:
    """Take from everybody else what they may still do with anything in the data folder, once at every start."""
    mended = 0
    for _, folders, files, folder in os.fwalk(settings.data, follow_symlinks=False):
        for name in [*folders, *files]:
            with contextlib.suppress(OSError):
                info = os.stat(name, dir_fd=folder, follow_symlinks=False)
                single = stat.S_ISDIR(info.st_mode) or (stat.S_ISREG(info.st_mode) and info.st_nlink == 1)
                if single and info.st_mode & 0o077:
                    os.chmod(name, stat.S_IMODE(info.st_mode) & ~0o077, dir_fd=folder)
                    mended += 1
        if stop.is_set():
            return
    if mended:
        log.info("%d files and folders could be read by others; mended", mended)


@plugin.watch
def remember(request: Request, status: int, took: float, size: int) -> None:
    """Note one answer for the access log."""
    gauges.answered[f"{status // 100}xx"] += 1
    _answered.append((now(), status, request.method, request.path, request.actor.ref, request.id, took, size))
    if len(_answered) == ENOUGH:
        _enough.set()


@plugin.service
def write_access_log(stop: threading.Event) -> None:
    """Write the access log in batches, twice a second and whenever enough was answered."""
    while not stop.is_set():
        _enough.wait(0.5)
        _enough.clear()
        flush()


def flush() -> None:
    """Write what was answered since the last time."""
    while _answered:
        logging.getLogger("orkosi.access").info("\n".join(_lines(ENOUGH)))


def _lines(most: int) -> Iterator[str]:
    while _answered and most:
        most -= 1
        when, status, method, path, who, id, took, size = _answered.popleft()
        # 409 is how those who work at once learn of each other: nothing to look into.
        level = "ERROR" if status >= 500 else "WARN" if status >= 400 and status != 409 else "INFO"
        path = _shown(path) if len(path) <= SHORT else clean(_without_secrets(canaries.blotted_text(_utf8(path))), SHORT)
        yield (f"{when} {level} access {method if len(method) < 8 and method.isalpha() else clean(method, 10)} {path} {status} "
               f"{took * 1000:.1f}ms {size}B {who} {id}")


@lru_cache(maxsize=256)
def _shown(path: str) -> str:
    """A short path as the log has it: the same few are asked for again and again. What is cut must be searched for secrets before; all else is,
    line by line."""
    return clean(_without_secrets(_utf8(path)), SHORT)


def _utf8(path: str) -> str:
    return path.encode("latin-1", "replace").decode(errors="replace")  # WSGI hands bytes over as Latin-1


def _without_secrets(path: str) -> str:
    """`path` with tokens taken out: an invitation's link is a key."""
    return "/".join(part[:8] + "…" if part.startswith("ork_") else part for part in path.split("/"))
