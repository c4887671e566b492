"""Output: what a brain writes, kept with its run and told to the log while it is written.

The brain writes its standard output into a file without a name: tools that write megabytes and exit lose them in a pipe, and
what a secret may stand in has no name to be found by. From there it is followed, blotted, and added to `runs/<run>/stdout`. Its
standard error is a pipe, which is drained as it comes. Surprise: a script that says `> /dev/stdout` empties that file on Linux;
what was written before, and not followed yet, is lost then.
"""
import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from orkosi import clean, now
from plugins import folders

from .secrets import Blotted, Blotter

RESOLUTION = 64 << 10  # bytes of stdout that become a task's resolution
TAIL = 4096            # characters of stderr that an error shows
LOG = 10 << 20         # bytes after which a log is turned over
TOLD = 1 << 20         # bytes of stdout that the log shows of one run
WIDTH = 8192           # characters of a line, before it is cut in two
BLOCK = 4 << 20        # bytes that are followed before anything else is looked at


class Kept:
    """One stream of a run, in a file of its own: its beginning, up to so many bytes."""

    def __init__(self, path: Path | None, most: int):
        self.size, self.most = 0, most
        self._file: IO[bytes] | None = None
        with contextlib.suppress(OSError):  # a full disk, or a trap in the way, costs what is kept, never the run
            self._file = os.fdopen(folders.open_plain(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0) if path else None

    def add(self, text: str) -> None:
        raw = text.encode(errors="replace")
        if self._file and self.size < self.most:
            try:
                self._file.write(raw[:self.most - self.size])
            except OSError:
                self.close()
        self.size += len(raw)

    def close(self) -> None:
        if self._file:
            self._file.close()
        self._file = None


class Output:
    """What one brain writes."""

    def __init__(self, scratch: Path, kept: Path | None, most: int, log: Path, mark: str, blot: Blotter):
        self.log, self.mark, self.most = log, mark, most
        self.out, self.err = (Kept(kept and kept / name, most) for name in ("stdout", "stderr"))
        self.resolution, self._tail = "", deque[str](maxlen=60)
        self.file = os.open(scratch / "stdout", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.unlink(scratch / "stdout")
        self._at = self._taken = self._dropped = self._changed = self._odd = 0
        self._out, self._err = Blotted(blot, WIDTH), Blotted(blot, WIDTH)
        self._line, self._told = "", 0
        self._writing = threading.Lock()

    @property
    def tail(self) -> str:
        """The end of its standard error."""
        return "\n".join(self._tail)[-TAIL:]

    def drain(self, pipe: IO[bytes]) -> None:
        """Read its standard error to the end, whatever is in it: a full pipe would stop the brain."""
        while raw := os.read(pipe.fileno(), 65536):
            self._note(self._err.take(raw))
        self._note(self._err.rest())

    def _note(self, lines: Iterable[str]) -> None:
        told = []
        for text in lines:
            self.err.add(text)
            told.append(clean(text.rstrip("\r\n"), WIDTH))
        self._tail.extend(told)
        self._tell("", told)

    def follow(self) -> bool:
        """Take up what stands on its standard output by now, or a large part of that; whether there was any."""
        info = os.fstat(self.file)
        size, changed, self._changed = info.st_size, info.st_mtime_ns != self._changed, info.st_mtime_ns
        again, self._odd = self._odd == info.st_mtime_ns, 0
        if size == self._at and changed:
            self._odd = info.st_mtime_ns  # emptied and as long again, or a write that is under way: the next look says which
        if size < self._at or (size == self._at and again and size):
            self._at = 0  # somebody emptied it
        whole = self._at + max(0, self.most - self._taken)
        if size > whole:  # what is not kept must not fill the disk
            os.ftruncate(self.file, whole)
            self._changed = os.fstat(self.file).st_mtime_ns  # that was us
            self._dropped, size = self._dropped + size - whole, whole
        raw = os.pread(self.file, min(BLOCK, size - self._at), self._at)
        self._at, self._taken = self._at + len(raw), self._taken + len(raw)
        self._keep(self._out.take(raw))
        return bool(raw)

    def finish(self) -> None:
        """Take up all that is left, and close what is open."""
        while self.follow() or self._odd:
            pass
        self._keep(self._out.rest())
        self._tell("out: ", [clean(self._line, WIDTH)] if self._line else [])
        self.out.size += self._dropped
        self.out.close()
        self.err.close()
        os.close(self.file)

    def _keep(self, pieces: Iterable[str]) -> None:
        told = []
        for text in pieces:
            self.out.add(text)
            if len(self.resolution) < RESOLUTION:
                self.resolution += text
            if self._told < TOLD:
                self._told += len(text) + 40  # and the time before it
                self._line += text
                if text.endswith("\n") or len(self._line) > WIDTH:
                    told.append(clean(self._line.rstrip("\r\n"), WIDTH))
                    self._line = ""
                if self._told >= TOLD:
                    told.append("… the rest is not told here; it is kept with the run")
                    self._line = ""
        self._tell("out: ", told)

    def _tell(self, stream: str, lines: list[str]) -> None:
        if lines:
            with self._writing:
                append(self.log, "".join(f"{now()} [{self.mark}] {stream}{line}\n" for line in lines))


def append(log: Path, text: str) -> None:
    """Add to a log, turned over at 10 MB; a full disk costs the line, never the run."""
    try:
        if log.exists() and log.stat().st_size > LOG:
            log.replace(log.with_name(log.name + ".1"))
        with os.fdopen(folders.open_plain(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        pass
