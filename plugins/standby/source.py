"""Source: the folder that a standby copies - at its own machine, where it is asked by ssh, or at this one.

Both are asked by the same command, `orkosi.py standby ASK`, which prints what it has; so neither needs more than Orkosi and ssh.
Surprise: a database on another machine's disk that is mounted here is refused. SQLite's locks and its shared memory do not reach across,
and whoever reads it so may destroy it.
"""
import contextlib
import itertools
import json
import os
import shlex
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from orkosi import HOME, VERSION, Invalid, Struct, Unavailable, now, settings
from plugins.backups import epochs, making

from . import PULLED, note

ANSWER, COPY = 60.0, 3600.0  # seconds that the other side may take for an answer, and for a database
LOOSE = (*making.FILES, "erasures.jsonl")


class Offer(Struct):
    """What there is to copy. `files`: kind (d, f, l), permissions, size, time of the change in ns, target of a link. `stamps`: of each database,
    size and time of its two files: where they are what they were, nothing was committed."""
    data: str
    rsync: str
    epoch: int
    version: str
    stamps: dict[str, list[int]]
    files: dict[str, list[Any]]


def rsync_program() -> str:
    """SQLite's own copier, as apsw brings it. It loads a library beside itself, and so stays where it is."""
    import apsw
    return str(Path(apsw.__file__).with_name("sqlite_extra_binaries") / "sqlite3_rsync")


# ── at the source ──


def offer() -> Offer:
    """What this data folder has."""
    data: Path = settings.data
    return Offer(str(data), rsync_program(), epochs.of(data), VERSION, {name: stamp(data / name) for name in making.DATABASES}, listing(data))


def stamp(path: Path) -> list[int]:
    """Size and time of a database's file and of its log's. They are asked, not opened."""
    found = []
    for name in (path, path.with_name(f"{path.name}-wal")):
        try:
            state = name.stat()
            found += [state.st_size, state.st_mtime_ns] if state.st_size else [0, 0]  # an empty log comes and goes with whoever looks
        except OSError:
            found += [0, 0]
    return found


def listing(data: Path) -> dict[str, list[Any]]:
    """Everything of a data folder that a standby has besides the databases, by its name; links not followed."""
    found = {}
    loose: list[tuple[str, Path | str, int | None]] = [(name, data / name, None) for name in LOOSE]
    for known, path, parent in itertools.chain(loose, *(making.walk(data, name) for name in making.FOLDERS)):
        with contextlib.suppress(OSError):  # it is gone, or never was
            state = os.stat(path, dir_fd=parent, follow_symlinks=False)
            kind = {stat.S_IFDIR: "d", stat.S_IFREG: "f", stat.S_IFLNK: "l"}.get(stat.S_IFMT(state.st_mode))
            if kind:
                size, changed = (state.st_size, state.st_mtime_ns) if kind == "f" else (0, 0)
                mode = {"d": 0o700, "f": state.st_mode & 0o100 | 0o600}.get(kind, 0)  # what a backup keeps of it, too
                found[known] = [kind, mode, size, changed, os.readlink(path, dir_fd=parent) if kind == "l" else ""]
    return found


def send(names: list[str], out: IO[bytes]) -> None:
    """Write these files as one tar; those that are gone are left out."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            above, _, inner = name.rpartition("/")
            with contextlib.suppress(OSError), making.reached(settings.data, above) as parent:
                if parent is not None:
                    making.add(tar, inner, name, parent)


def note_pull(by: str, last: str, into: str) -> None:
    """Remember who copies this folder, since when, and when it was done last."""
    since = epochs.facts(settings.data, PULLED).get("since", now())
    note(settings.data, PULLED, {"by": by, "at": last, "into": into, "since": since})


# ── asked from the standby ──


class Source:
    """`[USER@]HOST:FOLDER`, or a folder of this machine; Orkosi's own folder, or its data folder."""

    def __init__(self, place: str, ssh: str = "ssh"):
        host, colon, path = place.partition(":")
        self.host, self.path, self.ssh = (host, path, ssh) if colon and "/" not in host else ("", place, ssh)
        if not self.path or "\0" in place or "\n" in place or place.startswith("-"):
            raise Invalid(f"{place[:200]!r} is no folder; write HOST:orkosi, or the path of a folder that is mounted here")
        self.name = place if self.host else str(Path(place).absolute())
        if not self.host:
            self._require_near()

    def _require_near(self) -> None:
        """Invalid where a folder is on another machine's disk."""
        said = subprocess.run(["df", "-P", self.name], capture_output=True, text=True)
        device = said.stdout.splitlines()[-1].split()[0] if said.returncode == 0 and len(said.stdout.splitlines()) > 1 else ""
        if device.startswith("//") or ":" in device:
            raise Invalid(f"{self.name} is on another machine ({device}), where SQLite cannot be read safely from here. "
                          "Name it HOST:FOLDER, to go by ssh; or pull on that machine, with --data in a folder that is mounted there")

    def _command(self, asked: str, *arguments: str) -> list[str]:
        if self.host:
            words = shlex.join(["standby", asked, *arguments])
            where = f"~/{shlex.quote(self.path[2:])}" if self.path.startswith("~/") else shlex.quote(self.path)
            line = (f"cd {where} && if [ -f orkosi.py ]; then exec .venv/bin/python orkosi.py {words}; "
                    f"else exec ../.venv/bin/python ../orkosi.py {words} --data .; fi")
            return [self.ssh, "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15", "--", self.host, line]
        folder = Path(self.name)
        data = folder / "data" if (folder / "orkosi.py").exists() else folder
        if not (data / "orkosi.db").exists():
            raise Unavailable(f"There is no data folder of Orkosi at {data}")
        return [sys.executable, str(Path(HOME, "orkosi.py")), "standby", asked, *arguments, "--data", str(data)]

    def ask(self, asked: str, *arguments: str, patience: float = ANSWER) -> str:
        """The last line that the other side prints. Unavailable in its words."""
        try:
            done = subprocess.run(self._command(asked, *arguments), stdin=subprocess.DEVNULL, capture_output=True, timeout=patience,
                                  env=_environment())
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{self.name} did not answer within {patience:.0f} s") from None
        except OSError as error:
            raise Unavailable(f"{self.ssh}: {error.strerror}") from None
        if done.returncode:
            raise Unavailable(f"{self.name}: {done.stderr.decode(errors='replace').strip()[-500:] or f'ended with {done.returncode}'}")
        return (done.stdout.decode(errors="replace").strip().splitlines() or [""])[-1]

    def offer(self, by: str, last: str, into: Path) -> Offer:
        """What it has; it remembers who asked. Unavailable."""
        import msgspec
        said = self.ask("offer", "--by", by, "--last", last, *(() if self.host else ("--into", str(into))))
        try:
            return msgspec.convert(json.loads(said), Offer)
        except (ValueError, msgspec.ValidationError) as error:
            raise Unavailable(f"{self.name} answered with something else than an offer: {error}") from None

    @contextlib.contextmanager
    def sent(self, names: list[str]) -> Iterator[IO[bytes]]:
        """The stream of files that were asked for. Unavailable where the other side ends badly."""
        with subprocess.Popen(self._command("send"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()) as asked:
            assert asked.stdin and asked.stdout
            asked.stdin.write(b"\0".join(os.fsencode(name) for name in names))  # it reads all of them before it writes
            asked.stdin.close()
            yield asked.stdout
            while asked.stdout.read(1 << 16):  # what pads the end of a tar
                pass
        if asked.returncode:
            raise Unavailable(f"{self.name} ended with {asked.returncode} while it sent files")

    def copy_database(self, offered: Offer, name: str, data: Path) -> None:
        """Bring a database of ours to where the other one is: what differs is sent, and either all of it is here or nothing. Unavailable."""
        there = f"{offered.data}/{name}"
        far = [f"{self.host}:{there}", "--exe", offered.rsync, "--ssh", self.ssh] if self.host else [there]
        try:
            done = subprocess.run([rsync_program(), far[0], str(data / name), *far[1:]], stdin=subprocess.DEVNULL, capture_output=True,
                                  env=_environment(), timeout=COPY)
        except subprocess.TimeoutExpired:  # it goes by ssh itself, and nobody tells it how long to wait for a network that is gone
            raise Unavailable(f"{name} was not copied within {COPY / 60:.0f} minutes") from None
        if done.returncode:
            raise Unavailable(f"{name} was not copied: {(done.stderr or done.stdout).decode(errors='replace').strip()[-500:]}")


def _environment() -> dict[str, str]:
    """Ours, without what says which data folder and which settings are this one's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ORKOSI_")} | {"ORKOSI_NO_INSTALL": "1"}
