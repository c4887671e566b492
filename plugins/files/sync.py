"""Sync: keeps the rows of files as the agents' workspaces are on the disk.

An observer says that something changed, and then every workspace is walked; only a file whose size or times
differ is opened. Surprise: a workspace belongs to its agent, who may put anything into it while it is being
read. So links, hard links and pipes are passed over, a file that changed during the reading is read again in
the next round, what is too large gets a row without its content, and what looks like a secret gets none.
"""
import hashlib
import logging
import os
import stat
import threading
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from orkosi import settings
from plugins import files, folders
from plugins.files import KEPT, Seen, plugin

log = logging.getLogger("orkosi")

READ = 8 << 20     # larger files are not read at all
DEEPEST, MOST = 32, 20_000
RESCAN, GLANCE = 30.0, 2.0   # seconds between two walks, and two looks for new workspaces, that no observer asked for
SETTLE = 0.2       # seconds after a change before it is looked at
BATCH, WEIGHT = 50, 1 << 20  # files and bytes a transaction

IGNORED = {".git", "__pycache__", "node_modules", ".venv", "venv", ".mypy_cache", ".ruff_cache", ".pytest_cache",
           ".Spotlight-V100", ".Trashes", ".fseventsd"}

State = tuple[int, int, int, int]  # size, time of change, of the inode's change, inode


@plugin.service
def follow(stop: threading.Event) -> None:
    """Keep the rows as the disk is, a moment after it changes."""
    sync, bell = Sync(settings.data), folders.Bell(recursive=True)
    before: list[str] = []
    walked = settle = 0.0
    rung = False
    try:
        while not stop.is_set():
            places = workspaces(settings.data)
            bell.watch(settings.data / place for place in places)
            if rung or places != before or time.monotonic() - walked > RESCAN:
                began = time.monotonic()
                sync.round(stop)
                before, walked = places, time.monotonic()
                settle = max(SETTLE, 4 * (walked - began))  # a busy workspace must not take more than a fifth of a core
            rung = bell.wait(stop, GLANCE, settle)
    finally:
        bell.close()


def workspaces(data: Path) -> list[str]:
    """The workspaces there are, relative to the data folder."""
    with folders.opened(data, "agents") as agents:
        found = sorted(folders.entries(agents)) if agents is not None else []
    return [f"agents/{name}/workspace" for name, info in found if stat.S_ISDIR(info.st_mode)]


class Sync:
    """What is known of the disk; it begins with what the table has."""

    def __init__(self, data: Path):
        self.data = data
        self.rows = files.known()
        self.states: dict[str, State] = {}

    def round(self, stop: threading.Event | None = None) -> None:
        """Walk every workspace once, and write down what differs."""
        there: set[str] = set()
        changed: list[Seen] = []
        for file in self._changed(there):
            changed.append(file)
            if len(changed) >= BATCH or sum(len(one.content or "") for one in changed) >= WEIGHT:
                self._keep(changed)
                changed = []
            if stop and stop.is_set():
                return
        self._keep(changed)
        gone = sorted(self.rows.keys() - there)
        for at in range(0, len(gone), BATCH):
            files.keep([], gone[at:at + BATCH])
        for path in gone:
            del self.rows[path]
            self.states.pop(path, None)

    def _keep(self, changed: list[Seen]) -> None:
        if changed:
            files.keep(changed, [])
            self.rows |= {file.path: (file.size, file.modified_at) for file in changed}

    def _changed(self, there: set[str]) -> Iterator[Seen]:
        """Files that are not as they were; what is there at all is added to `there`."""
        for place in workspaces(self.data):
            with folders.opened(self.data, place) as folder:
                for count, (path, name, parent, info) in enumerate(walk(folder, place) if folder is not None else ()):
                    if count >= MOST:
                        log.warning("%s has more than %d files; the others are left out", place, MOST)
                        break
                    there.add(path)
                    state, known = _state(info), self.states.get(path)
                    if known == state or (known is None and self.rows.get(path) == (info.st_size, folders.modified(info))):
                        self.states[path] = state
                    elif (file := look(path, name, parent)) is not None:
                        self.states[path] = state
                        yield file
                    elif path not in self.rows:
                        there.discard(path)  # it went away or is no plain file: the next round knows more


def walk(folder: int, path: str, depth: int = 0) -> Iterator[tuple[str, str, int, os.stat_result]]:
    """Every plain file below a folder: (path, name, descriptor of its folder, state)."""
    for name, info in sorted(folders.entries(folder)):
        inner = f"{path}/{name}"
        if secret(name) or name == ".DS_Store" or name.startswith("._"):  # what the Finder writes down for itself
            continue
        if stat.S_ISDIR(info.st_mode):
            if name not in IGNORED and depth < DEEPEST:
                with folders.directory(name, folder) as below:
                    if below is not None:
                        yield from walk(below, inner, depth + 1)
        elif folders.plain(info) and not name.endswith(folders.NEVER) and len(inner) <= 1024:
            yield inner, name, folder, info


def secret(name: str) -> bool:
    """Whether a file or folder of this name is left out, by the setting `sync_leave_out`."""
    return any(fnmatchcase(name.lower(), pattern.strip().lower()) for pattern in settings.sync_leave_out.split(","))


def look(path: str, name: str, parent: int) -> Seen | None:
    """Read one file; None where it is none any more, or changes while it is read."""
    with folders.regular(name, parent) as opened:
        if opened is None:
            return None
        fd, info = opened
        if info.st_size > READ:
            return Seen(path, None, info.st_size, None, folders.modified(info))
        digest, kept, size = hashlib.sha256(), b"", 0
        while block := os.read(fd, 1 << 18):
            digest.update(block)
            size += len(block)
            kept = kept + block if size <= KEPT else b""
            if size > READ:
                return None
        if _state(os.fstat(fd)) != _state(info):
            return None
        content = None if size > KEPT else text(kept)
        return Seen(path, content, size, digest.hexdigest(), folders.modified(info))


def text(raw: bytes) -> str | None:
    """`raw` as text; None where it is none."""
    if b"\0" in raw:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _state(info: os.stat_result) -> State:
    return info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino

