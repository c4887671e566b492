"""One run of a brain: a program in a process group of its own, fed, drained, timed and ended whole.

Surprise: both pipes are drained to their ends whatever is in them, for a full pipe would stop the
brain; what is kept of them is bounded.
"""
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Annotated, Literal

import msgspec

from orkosi import Meta, Struct, clean, now
from plugins import folders
from plugins.supervisor import processes

from .secrets import Blotter

RESOLUTION = 64 << 10  # bytes of stdout that are kept
TAIL = 4096            # characters of stderr that an error shows
LOG = 10 << 20         # bytes after which a log is turned over
GRACE = 3.0            # seconds from asking a brain to end to making it

Count = Annotated[int, Meta(ge=0, le=2**53)]
Ending = Literal["stopped", "cancelled", "lost", "timeout"]


class Report(Struct):
    """What a brain may say of its run, as JSON in $ORKOSI_REPORT."""
    tokens_in: Count = 0
    tokens_out: Count = 0
    cost_micros: Count = 0
    status: Literal["done", "review", "blocked"] = "done"
    note: Annotated[str, Meta(max_length=4000)] | None = None


class Outcome(Struct):
    """How a brain ended: by itself with a code, or because of `ended`."""
    exit_code: int
    resolution: str
    tail: str
    ended: Ending | None
    seconds: float


class Brain:
    """A brain at work."""

    def __init__(self, argv: list[str], workspace: Path, environment: dict[str, str], pid_file: Path, log: Path, mark: str, blot: Blotter):
        self.log, self.mark, self.pid_file, self.blot = log, mark, pid_file, blot
        self._kept, self._tail = bytearray(), deque[str](maxlen=60)
        self.began = time.monotonic()
        self.child = subprocess.Popen(argv, cwd=workspace, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, start_new_session=True)
        processes.remember(pid_file, processes.identify(self.child.pid))

    def run(self, told: bytes, limit: float, verdict: Callable[[], Ending | None]) -> Outcome:
        """Feed it, and wait for its end, the `limit` in seconds, or a verdict; nothing of its group is left after."""
        assert self.child.stdin and self.child.stdout and self.child.stderr
        threads = [threading.Thread(target=work, args=args, daemon=True) for work, args in (
            (self._feed, (self.child.stdin, told)), (self._keep, (self.child.stdout,)), (self._write_down, (self.child.stderr,)))]
        for thread in threads:
            thread.start()
        ended: Ending | None = None
        while self.child.poll() is None and ended is None:
            ended = verdict() or ("timeout" if time.monotonic() - self.began > limit else None)
            try:
                self.child.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        # Also after a good end: what it left running would go on unseen.
        processes.end_group(self.child.pid, GRACE if ended else 0.5, self.child.poll)
        code = self.child.wait()
        for thread in threads:
            thread.join(1.0)  # a grandchild that left the group may hold a pipe open: it is not waited for
        self.pid_file.unlink(missing_ok=True)
        said = self.blot(self._kept.decode(errors="replace"))
        if len(self._kept) >= self._most():
            said = said[:max(0, len(said) - self.blot.longest)]  # the end may be the beginning of a value
        said = said.encode()[:RESOLUTION].decode(errors="ignore")
        return Outcome(code, said.replace("\0", "").rstrip(), "\n".join(self._tail)[-TAIL:], ended, time.monotonic() - self.began)

    def _feed(self, pipe: IO[bytes], told: bytes) -> None:
        try:
            with pipe:
                pipe.write(told)
        except OSError:
            pass  # it did not want to read all of it

    def _keep(self, pipe: IO[bytes]) -> None:
        while chunk := os.read(pipe.fileno(), 65536):
            self._kept += chunk[:self._most() - len(self._kept)]

    def _most(self) -> int:
        return RESOLUTION + 4 * self.blot.longest  # a value that is cut is not found

    def _write_down(self, pipe: IO[bytes]) -> None:
        for line in self.blot.lines(pipe, 8192):
            text = clean(line, 8192)
            self._tail.append(text)
            append(self.log, f"{now()} [{self.mark}] {text}\n")


def append(log: Path, text: str) -> None:
    """Add to a log, turned over at 10 MB; a full disk costs the line, never the run."""
    try:
        if log.exists() and log.stat().st_size > LOG:
            log.replace(log.with_name(log.name + ".1"))
        with os.fdopen(folders.open_plain(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        pass


def read_report(path: Path) -> tuple[Report, str | None]:
    """The report a brain wrote, and what was wrong with it; an empty one where it wrote none."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            raw = file.read(65536)
        return (msgspec.json.decode(raw, type=Report) if raw.strip() else Report()), None
    except FileNotFoundError:
        return Report(), None
    except (OSError, msgspec.DecodeError) as error:
        return Report(), f"The report is not usable: {error}"
