"""Apart: making and proving a backup in a process of its own, which gives way to everybody else.

In the server's own process, what packs a gigabyte and reads it through would hold the interpreter, and claims would wait for
it. Surprise: it is the command that an operator types, and so nothing goes over but a name; keys are read by each for itself.
"""
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from orkosi import HOME, Unavailable, settings, stopping

LOOK = 0.5  # seconds from one look at the process to the next
LEAST = 15  # of 0 to 19: how much it gives way


def run(*words: str) -> None:
    """Run `backup WORDS` on this data folder, and wait for it. Unavailable in its words; also where the server ends meanwhile."""
    argv = [sys.executable, str(Path(HOME, "orkosi.py")), "backup", *words, "--gently", "--data", str(settings.data)]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          env=os.environ | {"ORKOSI_NO_INSTALL": "1"}) as child:
        try:
            said = _waited(child)
        finally:
            if child.poll() is None:
                child.kill()
    if child.returncode:
        lines = said.strip().splitlines() or [f"it ended with {child.returncode}"]
        raise Unavailable(lines[-1].removeprefix("orkosi: "))


def _waited(child: subprocess.Popen[str]) -> str:
    """What it says, once it has ended."""
    while not stopping.is_set():
        with suppress(subprocess.TimeoutExpired):
            return child.communicate(timeout=LOOK)[1]
    raise Unavailable("The server ended meanwhile")


def give_way() -> None:
    """In the process itself: have everybody else go first."""
    os.nice(LEAST)
