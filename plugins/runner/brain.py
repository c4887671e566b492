"""One run of a brain: a program in a session of its own, fed, followed, timed and ended whole, with all that it started."""
import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Literal

from orkosi import Struct
from plugins.supervisor import processes, trees

from .output import RESOLUTION, Output

PACE = 0.05   # seconds between two looks at what it writes, and whether it goes on
GRACE = 1.5   # seconds from asking a brain to end to making it
LEFT = 0.5    # the same for what one that ended by itself left running
AGAIN = 1.0   # seconds after which one looks once more, where something was left

Ending = Literal["stopped", "cancelled", "lost", "timeout"]


class Outcome(Struct):
    """How a brain ended: by itself with a code, or because of `ended`; and what it left running, by name."""
    exit_code: int
    resolution: str
    tail: str
    ended: Ending | None
    seconds: float
    stdout_bytes: int
    stderr_bytes: int
    left: list[str]

    @property
    def truncated(self) -> bool:
        """Whether its resolution is but the beginning of what it said."""
        return self.stdout_bytes > RESOLUTION


def kept_awake(pid: int) -> "subprocess.Popen | None":
    """On a Mac, the program that keeps the machine from going to sleep by itself for as long as this process is there."""
    if program := shutil.which("caffeinate"):
        with contextlib.suppress(OSError):
            return subprocess.Popen([program, "-i", "-w", str(pid)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL)
    return None


class Brain:
    """A brain at work. `mark` is a variable of its environment, with a value that no other run has."""

    def __init__(self, argv: list[str], workspace: Path, environment: dict[str, str], mark: str, pid_file: Path, output: Output):
        self.output, self.mark, self.pid_file = output, f"{mark}={environment[mark]}", pid_file
        self.began = time.monotonic()
        self.child = subprocess.Popen(argv, cwd=workspace, env=environment, stdin=subprocess.PIPE, stdout=output.file, stderr=subprocess.PIPE,
                                      start_new_session=True)
        self.process = processes.identify(self.child.pid)
        processes.remember(pid_file, self.process)
        self.awake = kept_awake(self.child.pid)

    def run(self, told: bytes, limit: float, verdict: Callable[[], Ending | None]) -> Outcome:
        """Feed it, and wait for its end, the `limit` in seconds, or a verdict; nothing that it started is left after."""
        assert self.child.stdin and self.child.stderr
        threads = [threading.Thread(target=work, args=args, daemon=True) for work, args in (
            (self._feed, (self.child.stdin, told)), (self.output.drain, (self.child.stderr,)))]
        for thread in threads:
            thread.start()
        ended: Ending | None = None
        while self.child.poll() is None and ended is None:
            ended = verdict() or ("timeout" if time.monotonic() - self.began > limit else None)
            if not self.output.follow():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.child.wait(PACE)
        # Also after a good end: what it left running would go on unseen.
        seconds, left = time.monotonic() - self.began, trees.end(self.mark, GRACE if ended else LEFT, [self.process], self.child.poll)
        code = self.child.wait()
        if self.awake:
            self.awake.terminate()
            self.awake.wait()
        for thread in threads:
            thread.join(1.0)
        self.output.finish()
        self.pid_file.unlink(missing_ok=True)
        said = self.output.resolution.encode(errors="replace")[:RESOLUTION].decode(errors="ignore")
        return Outcome(code, said.replace("\0", "").rstrip(), self.output.tail, ended, seconds, self.output.out.size, self.output.err.size, left)

    def look_again(self) -> list[str]:
        """What has come to life since it was ended, and is ended now."""
        return trees.end(self.mark, LEFT)

    def _feed(self, pipe: IO[bytes], told: bytes) -> None:
        with contextlib.suppress(OSError), pipe:  # it need not want to read all of it
            pipe.write(told)
