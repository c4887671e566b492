"""`work`: a worker as a program of its own, which runs an executable for each job of a queue.

Owns no table; it is a client of the HTTP API alone. So it runs on this Mac, or from a copy of this folder on another machine, with
nothing but an address and a key. The program of a job is `data/workers/<task_type>`; its payload comes on standard input, what it
prints is the result. Surprise: nothing is lost when worker or server die - a result is written down before it is sent, and a job
whose worker is gone is somebody else's when its lease runs out.
"""
import fcntl
import itertools
import os
import re
import shlex
import signal
import socket
from pathlib import Path
from typing import IO, Any

import click

from orkosi import DATA, Invalid, Plugin, settings
from plugins import folders
from plugins.runner.client import Client

from .shop import Shop

plugin = Plugin("Workers", layer="domain", needs=("runner", "supervisor", "folders"))

MAKE_A_KEY = "make one: python3 orkosi.py key create worker --scope queue:work | head -1 > data/keys/worker"


@plugin.command("work")
@click.option("--queue", "queues", multiple=True, default=("default",), show_default=True, help="Whose jobs; may be given several times")
@click.option("--url", help="Of a server on another machine; default: the one of the data folder")
@click.option("--key-file", type=click.Path(path_type=Path, dir_okay=False), help="With queue:work; default: keys/worker in the data folder")
@click.option("--slots", type=click.IntRange(1, 64), default=1, show_default=True, help="How many jobs at once")
@click.option("--exec", "argv", help="A command that every job is handed to, in place of workers/<task_type>")
@click.option("--timeout", type=click.FloatRange(min=1), default=3600, show_default=True, help="Seconds that a program may take")
@click.option("--drain", type=click.FloatRange(min=0), default=60, show_default=True, help="Seconds for what runs, once it is told to end")
@click.option("--name", help="What it is called; default: the machine's name and a number")
@DATA
def work(queues: tuple[str, ...], url: str | None, key_file: Path | None, slots: int, argv: str | None, timeout: float, drain: float,
         name: str | None, data: Path | None) -> None:
    """Run a program for each job of a queue: workers/<task_type> in the data folder, with the payload on standard input."""
    settings.load(data=data)
    key = key_file or settings.data / "keys" / "worker"
    if not key.is_file():
        raise Invalid(f"There is no key in {key}; name one with --key-file, or {MAKE_A_KEY}")
    label, lock = _place(name)
    with lock:
        shop = Shop(Client(settings.data, key, url), label, settings.data / "work" / label, queues, slots, programs=settings.data / "workers",
                    argv=shlex.split(argv) if argv else None, timeout=timeout, patience=drain)
        _obey(shop)
        shop.run()


def _obey(shop: Shop) -> None:
    """SIGTERM and Ctrl-C: begin nothing more, and end when what runs is done; the second time, give it back at once."""
    def told(number: int, _: Any) -> None:
        shop.drain(at_once=shop.draining.is_set())
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a program need not read what it is told
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, told)


def _place(name: str | None) -> tuple[str, IO[str]]:
    """A name that nobody here works under, and its lock: two of one name would deliver each other's results."""
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname().split(".")[0]) or "worker"
    if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", name):
        raise Invalid("name: Use letters, digits and . _ -")
    for label in [name] if name else (f"{host}-{number}" for number in itertools.count(1)):
        folder = settings.data / "work" / label
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.fdopen(folders.open_plain(folder / "lock", os.O_WRONLY | os.O_CREAT), "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return label, lock
        except BlockingIOError:
            lock.close()
    raise Invalid(f"name: {name} is at work already; choose another")
