"""launchd: the driver for macOS, which speaks to `launchctl`.

Argument lists only, one absolute `launchctl`, fifteen seconds at most, one call at a time. Surprise: what launchctl answers is not
yet so. A bootout returns before the job is gone, and for seconds afterwards a bootstrap of the same label fails with 5 or 37; a job
that is listed may never be started. So each step is looked at until it is done. `kickstart -k` is never used: it is a SIGKILL, of
which the brain of an agent, in a session of its own, hears nothing.
"""
import hashlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from orkosi import Unavailable, settings
from plugins import folders

from .plist import Status, read

PATIENCE = 15.0      # seconds for one launchctl, and for what it began; longer than any ExitTimeOut of ours
PACE = 0.1
GONE = (3, 36, 113)  # no such process, in progress, could not find service
SOON = (5, 37)       # input/output error, operation already in progress: said while the label before is on its way out
NOBODY = (112, 125)  # the domain is not there: nobody is logged in at the screen


class NobodyLoggedIn(Unavailable):
    """launchd has no session of this user: log in at the screen, or set ORKOSI_SUPERVISOR=embedded."""
    code = "no_launchd_session"


class Launchd:
    """Jobs in the domain of the signed-in user."""

    def __init__(self) -> None:
        self._turn = threading.RLock()  # two who bootstrap one label at once both fail
        self._later: set[Path] = set()  # changed plists of what runs: launchd takes them in by a bootout alone, which ends that

    def there(self) -> bool:
        """Whether launchd has a session of this user; over ssh, or before log-in, there may be none."""
        return self._call("print", domain()).returncode == 0

    def load(self, plist: Path, gently: bool = False) -> bool:
        spec = read(plist)
        mark = hashlib.sha256(plist.read_bytes()).hexdigest()
        with self._turn:
            self._later.discard(plist)
            there = self.status(plist)
            if there.loaded:
                if _told(plist) in (mark, None):
                    return False
                if gently and there.pid:
                    self._later.add(plist)
                    return True
                self.unload(plist)
            self._bootstrap(plist)
            _mark(plist).parent.mkdir(exist_ok=True, mode=0o700)
            folders.write_whole(_mark(plist), mark)
            if spec.get("RunAtLoad"):
                self.start(plist)  # launchd may hold back what it was to start at load; whoever is asked for by name is started
        return True

    def take_in(self) -> None:
        """Load the plists that waited for an end that has come since."""
        for plist in list(self._later):
            with self._turn:
                try:
                    if plist in self._later and plist.exists() and not self.status(plist).pid:
                        self.load(plist)
                except Unavailable:
                    self._later.add(plist)  # it is tried again

    def _bootstrap(self, plist: Path) -> None:
        end = time.monotonic() + PATIENCE
        while (done := self._call("bootstrap", domain(), str(plist))).returncode and not self.status(plist).loaded:
            if done.returncode not in SOON or time.monotonic() > end:
                raise Unavailable(f"launchctl bootstrap {plist.stem}: {said(done)}")
            time.sleep(5 * PACE)
        if not self.status(plist).loaded:
            raise Unavailable(f"launchd accepted {plist.stem} but does not list it; look into the system log")

    def unload(self, plist: Path) -> None:
        with self._turn:
            self._later.discard(plist)
            done = self._call("bootout", f"{domain()}/{plist.stem}")
            if done.returncode not in (0, *GONE):
                raise Unavailable(f"launchctl bootout {plist.stem}: {said(done)}")
            if not _until(lambda: not self.status(plist).loaded):
                raise Unavailable(f"launchd still lists {plist.stem} {PATIENCE:.0f} s after its bootout")
            _mark(plist).unlink(missing_ok=True)

    def end(self, plist: Path) -> None:
        with self._turn:
            pid = self.status(plist).pid
            for name in ("SIGTERM", "SIGKILL") if pid else ():
                done = self._call("kill", name, f"{domain()}/{plist.stem}")
                if done.returncode not in (0, *GONE):
                    raise Unavailable(f"launchctl kill {plist.stem}: {said(done)}")
                if _until(lambda: self.status(plist).pid != pid):
                    return
            if pid:
                raise Unavailable(f"{plist.stem} does not end: process {pid} is still there")

    def start(self, plist: Path) -> None:
        self._must("kickstart", f"{domain()}/{plist.stem}")

    def status(self, plist: Path) -> Status:
        done = self._call("print", f"{domain()}/{plist.stem}")
        if done.returncode in NOBODY:
            raise NobodyLoggedIn(f"launchd has no session of this user ({said(done)}); log in at the screen, or set ORKOSI_SUPERVISOR=embedded")
        if done.returncode:
            return Status()
        pid = re.search(r"^\s*pid = (\d+)", done.stdout, re.M)
        code = re.search(r"^\s*last exit code = (-?\d+)", done.stdout, re.M)
        name = re.search(r"^\s*last terminating signal = .*?(\d+)", done.stdout, re.M)
        return Status(True, int(pid[1]) if pid else None, int(code[1]) if code else -int(name[1]) if name else None)

    def runs(self, plist: Path) -> int:
        """How often a job was started since it was loaded; 0 where launchd does not say."""
        found = re.search(r"^\s*runs = (\d+)", self._call("print", f"{domain()}/{plist.stem}").stdout, re.M)
        return int(found[1]) if found else 0

    def statuses(self, plists: list[Path]) -> list[Status]:
        done = self._call("list")  # one call for all of them; print would be one each
        if done.returncode:
            return [self.status(plist) for plist in plists]
        known = {parts[2]: parts for line in done.stdout.splitlines() if len(parts := line.split("\t")) == 3}
        return [_listed(known[plist.stem]) if plist.stem in known else self.status(plist) for plist in plists]  # over ssh, it lists another domain

    def _must(self, *arguments: str) -> None:
        done = self._call(*arguments)
        if done.returncode:
            raise Unavailable(f"launchctl {' '.join(arguments)}: {said(done)}")

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = shutil.which("launchctl", path=f"/bin:/usr/bin:{os.environ.get('PATH', '')}")
        if program is None:
            raise Unavailable("There is no launchctl here; set ORKOSI_SUPERVISOR=embedded")
        try:
            with self._turn:
                return subprocess.run([os.path.abspath(program), *arguments], capture_output=True, text=True, errors="replace",
                                      timeout=PATIENCE, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"launchctl {arguments[0]} did not answer within {PATIENCE:.0f} s") from None


def _until(true: Callable[[], bool]) -> bool:
    """Whether something becomes true in time."""
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(PACE)
    return True


def _listed(parts: list[str]) -> Status:
    """A line of `launchctl list`: its pid or -, how it last ended, its label."""
    pid, ended, _ = parts
    return Status(True, int(pid) if pid.isdigit() else None, int(ended) if re.fullmatch(r"-?\d+", ended) else None)


def _mark(plist: Path) -> Path:
    """Where the hash of what launchd was told stands: it outlives this server, as the job does."""
    return settings.data / "jobs" / f"{plist.stem}.loaded"


def _told(plist: Path) -> str | None:
    try:
        return folders.read_plain(_mark(plist), 100).decode()
    except (OSError, UnicodeDecodeError):
        return None


def domain() -> str:
    return f"gui/{os.getuid()}"


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What a launchctl that failed had to say."""
    return (done.stderr or done.stdout).strip()[:300] or f"exit {done.returncode}"


driver = Launchd()
