"""embedded: the driver that runs plists from a thread of this server.

It honours Label, ProgramArguments, StartInterval (from 1 s), KeepAlive, ThrottleInterval, RunAtLoad,
EnvironmentVariables, WorkingDirectory, StandardOutPath and StandardErrorPath, as launchd does: a
small environment, a session of its own for each child, never two copies at once.

Surprise: a server that was killed leaves its children running. `<label>.pid` beside the plist names
the child and when it was born; the next server adopts it and starts no second copy while it lives.
"""
import logging
import math
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import IO, Any

from orkosi import Unprocessable
from plugins import folders

from . import processes
from .plist import Status, read

log = logging.getLogger("orkosi")
THROTTLE = 10.0  # seconds between two starts of a job that is kept alive
GRACE = 7.0      # seconds from asking a group to end to making it; less than a server has for its own end
# Of the server's environment: no secrets; and the settings that a runner, which is a process of its own, goes by.
KEPT = ("HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "LANG", "LC_ALL", "TZ",
        "ORKOSI_RUN_OUTPUT_MB", "ORKOSI_BRAIN_PATIENCE", "ORKOSI_BRAIN_MOST_CALLS")


class Job:
    """One loaded plist."""

    def __init__(self, plist: Path, spec: dict[str, Any]):
        self.plist, self.spec = plist, spec
        self._lock = threading.Lock()  # the loop and requests both look whether it runs
        self.interval, self.throttle = _paces(spec)
        self.child: subprocess.Popen | None = None
        self.process = processes.remembered(self.pid_file)  # one that an earlier server left
        self.last_exit: int | None = None
        self.dropped = False  # taken out of care, perhaps while it was being started
        self.began = -math.inf
        at_once = spec.get("RunAtLoad") or self.stays_alive()
        self.due = time.monotonic() + (0.0 if at_once else self.interval)

    @property
    def pid_file(self) -> Path:
        return self.plist.with_suffix(".pid")

    def take(self, spec: dict[str, Any]) -> None:
        """Go by another plist, from the next start on."""
        self.interval, self.throttle = _paces(spec)
        self.spec = spec
        self.due = max(time.monotonic(), self.began + self.interval)

    def stays_alive(self) -> bool:
        """Whether it is to be started again when it ends as it last did."""
        keep = self.spec.get("KeepAlive", False)
        if isinstance(keep, dict):
            return (self.last_exit == 0) is bool(keep["SuccessfulExit"]) if "SuccessfulExit" in keep else True
        return bool(keep)

    def runs(self) -> bool:
        """Whether it runs now; notes its end when it does not any more."""
        with self._lock:
            return self.process is not None and self._still()

    def _still(self) -> bool:
        assert self.process
        if self.child is not None:
            code = self.child.poll()
            if code is None:
                return True
            self.last_exit = code
        elif processes.lives(self.process):
            return True
        self.child = self.process = None
        self.pid_file.unlink(missing_ok=True)
        if self.stays_alive():
            self.due = max(time.monotonic(), self.began + self.throttle)
        return False

    def start(self) -> None:
        """Start it, and know when it is due again; not where it was dropped meanwhile."""
        self.began = time.monotonic()
        self.due = self.began + self.interval
        try:
            self.child = self._spawn()
            self.process = processes.identify(self.child.pid)
            processes.remember(self.pid_file, self.process)
            if self.dropped:
                self.end()
        except (OSError, TypeError, ValueError) as error:  # a plist may say anything: a number where a text belongs
            log.error("job %s cannot be started: %s", self.plist.stem, error)
            self.last_exit = 78
            if self.stays_alive():
                self.due = self.began + self.throttle

    def _spawn(self) -> subprocess.Popen:
        spec = self.spec
        environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        environment |= {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"} | spec.get("EnvironmentVariables", {})
        out, err = _opened(spec.get("StandardOutPath")), _opened(spec.get("StandardErrorPath"))
        try:
            return subprocess.Popen(spec["ProgramArguments"], stdin=subprocess.DEVNULL, stdout=out or subprocess.DEVNULL,
                                    stderr=err or subprocess.DEVNULL, cwd=spec.get("WorkingDirectory", "/"),
                                    env=environment, start_new_session=True)
        finally:
            for file in (out, err):
                if file:
                    file.close()

    def drop(self) -> None:
        """Start it no more, and end it."""
        self.dropped = True
        self.end()

    def end(self, grace: float = GRACE) -> None:
        """End its whole process group."""
        process = self.process
        if process is not None and self.runs():
            processes.end_group(process.pid, grace, self.runs)
            self.runs()


class Embedded:
    """The loaded jobs, and the loop that starts them."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()

    def load(self, plist: Path, gently: bool = False) -> bool:
        try:
            job = Job(plist, read(plist))
        except (TypeError, ValueError) as error:
            raise Unprocessable(f"{plist.name}: {error}") from None
        with self._lock:
            old = self.jobs.get(plist.stem)
            if old and old.spec == job.spec:
                return False
            if old and gently and old.runs():
                old.take(job.spec)
                return True
            self.jobs[plist.stem] = job
        if old:
            old.drop()
        self._wake.set()
        return True

    def unload(self, plist: Path) -> None:
        with self._lock:
            job = self.jobs.pop(plist.stem, None)
        if job is None and (left := processes.remembered(plist.with_suffix(".pid"))):
            processes.end_group(left.pid, GRACE)
        if job:
            job.drop()
        plist.with_suffix(".pid").unlink(missing_ok=True)

    def end(self, plist: Path) -> None:
        self._loaded(plist).end()

    def start(self, plist: Path) -> None:
        self._loaded(plist).due = time.monotonic()
        self._wake.set()

    def hurry(self) -> None:
        """Let `run` look at once whether it is to end."""
        self._wake.set()

    def _loaded(self, plist: Path) -> Job:
        with self._lock:
            job = self.jobs.get(plist.stem)
        if job is None:
            raise Unprocessable(f"{plist.stem} is not loaded")
        return job

    def statuses(self, plists: list[Path]) -> list[Status]:
        return [self.status(plist) for plist in plists]

    def status(self, plist: Path) -> Status:
        with self._lock:
            job = self.jobs.get(plist.stem)
            if job is None:
                return Status()
            process = job.process
            return Status(True, process.pid if process and job.runs() else None, job.last_exit)

    def run(self, stop: threading.Event) -> None:
        """Start what is due until `stop`; then end every job, all at the same time."""
        while not stop.is_set():
            with self._lock:
                jobs = list(self.jobs.values())
            pause = min(map(self._look, jobs), default=1.0)  # without the lock: what a start opens or waits for is its own matter
            self._wake.wait(max(0.0, min(pause, 0.5)))
            self._wake.clear()
        with self._lock:
            ending = list(self.jobs.values())
        threads = [threading.Thread(target=job.end) for job in ending if job.process]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.jobs.clear()  # only now: whoever asks meanwhile hears what still runs

    def _look(self, job: Job) -> float:
        """Start a job that is due; seconds until it has to be looked at again."""
        moment = time.monotonic()
        if job.runs():
            if job.due <= moment < math.inf:  # it overran its turn, which is skipped
                job.due += job.interval * math.ceil((moment - job.due) / job.interval + 1e-9)
            return 0.1
        if job.due <= moment and not job.dropped:
            job.start()
            return 0.1
        return job.due - moment


def _paces(spec: dict[str, Any]) -> tuple[float, float]:
    """How often a job is started, and how soon again one that is kept alive."""
    interval = float(spec["StartInterval"]) if spec.get("StartInterval") else math.inf
    return max(1.0, interval), max(1.0, float(spec.get("ThrottleInterval", THROTTLE)))


def _opened(path: str | None) -> IO[bytes] | None:
    return os.fdopen(folders.open_plain(Path(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") if path else None


driver = Embedded()
