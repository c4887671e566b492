"""launchd: the driver for macOS, which speaks to `launchctl`.

Argument lists only, one absolute `launchctl`, ten seconds at most. Surprise: a restart is
`kickstart -k`, never bootout and bootstrap, between which launchd may refuse for seconds;
a changed plist does take both, for launchd reads the file only at bootstrap.
"""
import hashlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from orkosi import Unavailable
from plugins import folders

from .plist import Status, read

PATIENCE = 10.0     # seconds for one launchctl
GONE = (3, 36, 113)  # no such process, in progress, could not find service


class Launchd:
    """Jobs in the domain of the signed-in user."""

    def load(self, plist: Path) -> bool:
        read(plist)
        mark = hashlib.sha256(plist.read_bytes()).hexdigest()
        if self.status(plist).loaded:
            if _told(plist) in (mark, None):
                return False
            self.unload(plist)
        self._must("bootstrap", domain(), str(plist))
        if not self.status(plist).loaded:
            raise Unavailable(f"launchd accepted {plist.stem} but does not list it; look into the system log")
        folders.write_whole(_mark(plist), mark)
        return True

    def unload(self, plist: Path) -> None:
        done = self._call("bootout", f"{domain()}/{plist.stem}")
        if done.returncode not in (0, *GONE):
            raise Unavailable(f"launchctl bootout {plist.stem}: {said(done)}")
        end = time.monotonic() + PATIENCE
        while self.status(plist).loaded:  # bootout answers before the job is gone
            if time.monotonic() > end:
                raise Unavailable(f"launchd still lists {plist.stem} {PATIENCE:.0f} s after its bootout")
            time.sleep(0.05)
        _mark(plist).unlink(missing_ok=True)

    def kickstart(self, plist: Path) -> None:
        self._must("kickstart", "-k", f"{domain()}/{plist.stem}")

    def status(self, plist: Path) -> Status:
        done = self._call("print", f"{domain()}/{plist.stem}")
        if done.returncode:
            return Status()
        pid = re.search(r"^\s*pid = (\d+)", done.stdout, re.M)
        code = re.search(r"^\s*last exit code = (-?\d+)", done.stdout, re.M)
        return Status(True, int(pid[1]) if pid else None, int(code[1]) if code else None)

    def _must(self, *arguments: str) -> None:
        done = self._call(*arguments)
        if done.returncode:
            raise Unavailable(f"launchctl {' '.join(arguments)}: {said(done)}")

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = shutil.which("launchctl", path=f"/bin:/usr/bin:{os.environ.get('PATH', '')}")
        if program is None:
            raise Unavailable("There is no launchctl here; set ORKOSI_SUPERVISOR=embedded")
        try:
            return subprocess.run([os.path.abspath(program), *arguments], capture_output=True, text=True, errors="replace",
                                  timeout=PATIENCE, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"launchctl {arguments[0]} did not answer within {PATIENCE:.0f} s") from None


def _mark(plist: Path) -> Path:
    """Where the hash of what launchd was told stands: it outlives this server, as the job does."""
    return plist.with_suffix(".loaded")


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
