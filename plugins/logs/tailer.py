"""The tailer: follows `logs/*.log` and `agents/*/logs/*.log` through everything that happens to log files.

A file is known by device and inode, not by its name, so that a rotation is only a change of name: the rest of
the renamed file is read where it is now. A file that is shorter than what was read of it, or begins with other
bytes, was copied and truncated, or its inode was given to a new file: it is read from its start, and the rest
of the old lines from the copy, if there is one.
Surprise: half a line is left until its newline comes, across restarts. Only where the file has been renamed
and nobody writes to it any more is it taken as it is.
"""
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from orkosi import now, settings
from plugins import logs
from plugins.folders import Bell, entries, opened, plain, regular
from plugins.logs import BATCH, Mark, plugin
from plugins.logs.line import parse
from plugins.vault import canaries

BLOCK = 1 << 18   # bytes read at once; a line longer than this is cut before its end has come
FLOOD = 1 << 20   # so far behind, in bytes, batches are doubled: a fourth faster, at the price of longer waits for others
TURN = 64         # blocks of one file before the others have theirs
HEAD = 128        # bytes by which a file is known again
RESCAN = 3.0      # seconds between two looks that no observer asked for
SETTLE = 0.1      # seconds after a change before it is looked at: more is usually coming
QUIET = 1.0       # seconds after which nobody writes to a renamed file any more

_NAME = re.compile(r"(.+?\.log)(?:[.-].+)?")   # x.log, and what a rotation makes of it: x.log.1, x.log-20261123
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_AGENT = re.compile(r"agents/([^/]+)/")
# The server's own file has every request; those that went well would bury the rest.
_SERVER, _ANSWERED = "logs/orkosi.log", b" INFO access "

Key = tuple[int, int]
Found = dict[str, os.stat_result]


@plugin.service
def follow(stop: threading.Event) -> None:
    """Take in what is written to log files, a moment after it is written."""
    (settings.data / "logs").mkdir(exist_ok=True)
    tailer, bell = Tailer(settings.data), Bell(recursive=False)
    try:
        while not stop.is_set():
            bell.watch([settings.data / "agents", *(settings.data / name for name in names(settings.data))])
            if not tailer.look(stop):
                bell.wait(stop, RESCAN, SETTLE)
    finally:
        bell.close()


def names(data: Path) -> list[str]:
    """The folders of log files, relative to the data folder."""
    with opened(data, "agents") as agents:
        return ["logs", *(f"agents/{name}/logs" for name, _ in sorted(entries(agents)))] if agents is not None else ["logs"]


def files(data: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every log file there is, rotated ones included: path and state."""
    for name in sorted(names(data)):
        with opened(data, name) as folder:
            if folder is not None:
                yield from ((f"{name}/{one}", info) for one, info in sorted(_logs(folder).items()))


def _logs(folder: int) -> Found:
    return {name: info for name, info in entries(folder)
            if _NAME.fullmatch(name) and not name.endswith(_PACKED) and plain(info)}


def base(path: str) -> str:
    """The name under which a file was written, whatever a rotation calls it now."""
    folder, slash, file = path.rpartition("/")
    found = _NAME.fullmatch(file)
    return folder + slash + (found[1] if found else file)


class Tailer:
    """What is known of every file; it begins with what the last one wrote down."""

    def __init__(self, data: Path):
        self.data = data
        self.marks: dict[str, dict[Key, Mark]] = {}
        self.seen: dict[Key, tuple[int, int]] = {}   # size and time of change at the last look
        self.old: dict[str, set[Key]] = {}           # by folder: renamed before anybody followed it, and not read
        for mark in logs.marks():
            self.marks.setdefault(mark.path.rpartition("/")[0], {})[mark.device, mark.inode] = mark

    def look(self, stop: threading.Event | None = None) -> bool:
        """Read what is new in every file; whether there is more than had its turn now."""
        more = False
        for name in sorted({*names(self.data), *self.marks}):
            with opened(self.data, name) as folder:
                if folder is None and _there(self.data / name):
                    continue  # it cannot be opened now; to forget it would mean to read it again
                found = _logs(folder) if folder is not None else {}
                self._meet(name, folder, found)
                for file in sorted(found, key=lambda file: (found[file].st_mtime_ns, file == base(file))):
                    if stop and stop.is_set():
                        return False
                    assert folder is not None
                    more = self._read(name, file, folder, found) or more
        return more

    def _meet(self, name: str, folder: int | None, found: Found) -> None:
        """Recognise the renamed files of a folder, forget the vanished ones, and begin with new ones."""
        if folder is not None and name in self.marks and name not in self.old:
            self._know_again(name, folder, found)
        known = self.marks.get(name, {})
        path_of = {_key(info): f"{name}/{file}" for file, info in found.items()}
        left = [mark.path for key, mark in known.items() if path_of.get(key) != mark.path]
        moved = {key: replace(mark, path=path_of[key]) for key, mark in known.items() if path_of.get(key, mark.path) != mark.path}
        fresh = {_key(info): Mark(f"{name}/{file}", *_key(info)) for file, info in found.items()
                 if _key(info) not in known and (file == base(file) or self._turned_over(name, file, folder, found, moved))}
        # An inode whose file is gone may come back as another file, which is then not old.
        self.old[name] = self.old.get(name, path_of.keys() - known.keys() - fresh.keys()) & path_of.keys()
        if left or fresh:
            logs.settle(left, [*moved.values(), *fresh.values()])
            self.marks[name] = {key: mark for key, mark in known.items() if key in path_of} | moved | fresh
            self.seen = {key: state for key, state in self.seen.items() if key not in known or key in path_of}

    def _know_again(self, name: str, folder: int, found: Found) -> None:
        """At the first look after a start: what is the same file by its place and its first bytes, though it has another number.

        A Mac's disks are numbered anew at each start of the machine, and a folder that was unzipped has all its files anew.
        """
        known, file_of = self.marks[name], {_key(info): file for file, info in found.items()}
        again = {}
        for key, mark in known.items():
            file = mark.path.rpartition("/")[2]
            same = file in found and mark.head and found[file].st_size >= mark.offset and self._begins(file, folder, mark.head)
            there = file_of.get(key)
            if same and there != file and not (there and self._begins(there, folder, mark.head)):
                again[key] = replace(mark, device=found[file].st_dev, inode=found[file].st_ino)
        if again:
            logs.settle([], [*again.values()])
            kept = {key: mark for key, mark in known.items() if key not in again}
            self.marks[name] = kept | {(mark.device, mark.inode): mark for mark in again.values()}

    def _turned_over(self, name: str, file: str, folder: int | None, found: Found, moved: dict[Key, Mark]) -> bool:
        """Whether this renamed file was written since the last look, and so nobody saw it under its first name."""
        live = f"{name}/{base(file)}"
        if name in self.old:
            assert folder is not None
            heads = {mark.head for mark in self.marks.get(name, {}).values() if base(mark.path) == live and mark.head}
            return _key(found[file]) not in self.old[name] and not any(self._begins(file, folder, head) for head in heads)
        # The first look after a start: it came later than the one that had the name when the last tailer ended.
        return any(self.marks[name][key].path == live and
                   found[file].st_mtime_ns >= found[mark.path.rpartition("/")[2]].st_mtime_ns for key, mark in moved.items())

    def _read(self, name: str, file: str, folder: int, found: Found) -> bool:
        """Read what is new in one file; whether there is more than its turn."""
        key, known = _key(found[file]), self.marks.get(name, {})
        before = set(known)
        if key not in known:
            return False  # turned over before anybody followed it
        ended = file != base(file) and time.time() - found[file].st_mtime > QUIET
        if self.seen.get(key) == _state(found[file]) and not (ended and found[file].st_size > known[key].offset):
            return False
        with regular(file, folder) as opened_file:
            if opened_file is None or _key(opened_file[1]) != key:
                return False
            fd, info = opened_file
            mark = known[key]
            if info.st_size < mark.offset or os.pread(fd, len(mark.head), 0) != mark.head:
                known[key] = self._again(known, mark, folder, found)
            more = self._drain(fd, info.st_size, key, known, ended) or known.keys() > before
            self.seen[key] = _state(info)
            if more:
                del self.seen[key]
        return more

    def _again(self, known: dict[Key, Mark], mark: Mark, folder: int, found: Found) -> Mark:
        """Begin anew with a truncated file; what was not read yet may stand in the copy that was made before."""
        copies = {info.st_size: Mark(f"{mark.path.rpartition('/')[0]}/{file}", *_key(info), min(mark.offset, info.st_size),
                                     mark.head[:info.st_size])
                  for file, info in found.items()
                  if _key(info) not in known and mark.path.endswith("/" + base(file)) and mark.head
                  and self._begins(file, folder, mark.head)}
        half = self.seen.get((mark.device, mark.inode), (0, 0))[0] > mark.offset
        lost = mark.lost + (half and max(copies, default=0) <= mark.offset)
        fresh = Mark(mark.path, mark.device, mark.inode, lost=lost)
        logs.settle([], [fresh, *copies.values()])
        known |= {(copy.device, copy.inode): copy for copy in copies.values()}
        return fresh

    @staticmethod
    def _begins(file: str, folder: int, head: bytes) -> bool:
        """Whether a file is a copy of one that begins with `head`, or may become one: copying takes its time."""
        with regular(file, folder) as opened_file:
            return opened_file is not None and head.startswith(os.pread(opened_file[0], len(head), 0))

    @staticmethod
    def _drain(fd: int, size: int, key: Key, known: dict[Key, Mark], ended: bool) -> bool:
        """Take in whole lines up to the file's present end; whether the turn was over before that."""
        first = known[key]
        file, head = base(first.path), canaries.up_to_any(os.pread(fd, HEAD, 0))
        agent = (found := _AGENT.match(file)) and found[1]
        for _ in range(TURN):
            start, used, moment = known[key].offset, 0, now()
            most = BATCH * 2 if size - start > FLOOD else BATCH
            for lines, used, midline in batches(os.pread(fd, BLOCK, start), known[key].midline, ended, most):
                rows = [row for line in lines if not (file == _SERVER and line[24:37] == _ANSWERED)
                        and (row := parse(canaries.blotted(line), moment, file, agent))]
                mark = replace(known[key], offset=start + used, midline=midline, head=head[:start + used])
                logs.take(rows, mark)
                known[key] = mark  # only now: what was not kept will be read again
            if not used:
                return False
        return True


def batches(block: bytes, midline: bool, ended: bool, most: int = BATCH) -> Iterator[tuple[list[bytes], int, bool]]:
    """The whole lines of a block, at most `most` at once: (lines, bytes used up to there, whether the last was cut).

    `midline`: the block begins within a line that was cut. `ended`: what stands after the last newline is a line, too.
    """
    used = 0
    if midline:
        used = block.find(b"\n") + 1
        if not used:
            yield [], len(block), True
            return
    *whole, rest = block[used:].split(b"\n")
    if used and not whole:
        yield [], used, False
    for at in range(0, len(whole), most):
        lines = whole[at:at + most]
        used += sum(map(len, lines)) + len(lines)
        yield lines, used, False
    if len(rest) == BLOCK:
        yield [rest], used + len(rest), True
    elif rest and ended and len(block) < BLOCK:
        yield [rest], used + len(rest), False


def _there(folder: Path) -> bool:
    try:
        return bool(folder.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return True


def _key(info: os.stat_result) -> Key:
    return info.st_dev, info.st_ino


def _state(info: os.stat_result) -> tuple[int, int]:
    return info.st_size, info.st_mtime_ns
