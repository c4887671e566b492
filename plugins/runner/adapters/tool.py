"""Running a tool: its prompt from a file, its output into files, with a clock and a watch over it.

Surprise: the tool's own end is the least of what is looked at. Where the watch has seen that it is of no use, or the time is up, the tool is
ended with all that it started, and what it wrote until then still counts: its tokens were spent.
"""
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from orkosi import Struct
from plugins.supervisor import processes, trees

from .watch import Fault, Watch
from .work import LATER, Ended, Work

PACE, GRACE = 0.05, 1.0  # seconds
MOST = 64 << 20          # bytes of a tool's output that are read


class Ran(Struct):
    """What a tool did: its exit code, what it wrote, and why it was ended, where it did not end by itself."""
    code: int
    out: str
    err: str
    stopped: Fault | None


def run(work: Work, argv: list[str], environment: dict[str, str], prompt: str, watch: Watch | None) -> Ran:
    """Run a tool to its end, or until that is of no use any more. What it writes to standard error is passed on while it comes."""
    if watch:
        signal.signal(signal.SIGTERM, functools.partial(_told_to_end, work, watch))
    told, out, err = (work.scratch / name for name in ("prompt", "tool.out", "tool.err"))
    told.write_text(prompt, newline="")
    try:
        with open(told, "rb") as given, open(out, "ab") as heard, open(err, "ab") as noise:
            child = subprocess.Popen(argv, stdin=given, stdout=heard, stderr=noise, env=environment, start_new_session=True)
    except OSError as error:
        work.end(Ended(error=f"{argv[0]} cannot be run: {error.strerror}; install it with: {work.tool.install or 'your package manager'}"))
    root, stopped, passed = processes.identify(child.pid), None, 0
    while child.poll() is None and stopped is None:
        stopped = (watch and watch.verdict) or (Fault("Its time was up", True) if time.monotonic() > work.until else None)
        passed = _pass_on(err, passed)
        time.sleep(PACE)
    trees.end(f"ORKOSI_REPORT={work.report_file}", GRACE, [root], child.poll)
    _pass_on(err, passed)
    return Ran(child.wait(), _read(out), _read(err), stopped)


def _told_to_end(work: Work, watch: Watch, number: int, frame: object) -> NoReturn:
    """What was spent until then is said all the same. Whoever tells it to end ends its tool, too."""
    work.report(watch.tokens_in, watch.tokens_out, 0)
    os._exit(LATER)


def _pass_on(err: Path, passed: int) -> int:
    with open(err, "rb") as file:
        file.seek(passed)
        raw = file.read(1 << 20)
    sys.stderr.buffer.write(raw)
    sys.stderr.buffer.flush()
    return passed + len(raw)


def _read(path: Path) -> str:
    with open(path, "rb") as file:
        return file.read(MOST).decode(errors="replace")


def key_or_end(work: Work) -> str:
    """The credential that the tool signs in with; without one, nothing is begun."""
    if not work.key:
        work.end(Ended(error=f"There is no {work.tool.key}. Grant it: POST /api/credentials {{\"key\": \"{work.tool.key}\", \"value\": …, "
                             f"\"grants\": [\"{work.name}\"]}}"))
    return work.key


def try_key(watch: Watch, path: str, headers: dict[str, str]) -> Fault | None:
    """Ask the model's server for something small, before the tool does: a wrong key is said at once, and not after its retries."""
    connection = watch.connect()
    connection.timeout = min(10.0, watch.patience)
    try:
        connection.request("GET", watch.base.path.rstrip("/") + path, headers=headers)
        answer = connection.getresponse()
        if answer.status in (401, 403):
            text = answer.read(300).decode(errors="replace")
            return Fault(f"The model's server refused the key with {answer.status}: {text}", False)
    except OSError as error:
        return Fault(f"The model at {watch.base.netloc} cannot be reached: {error}", True)
    finally:
        connection.close()
    return None


def guarded(work: Work, path: str, headers: Callable[[str], dict[str, str]]) -> Watch:
    """A watch before the tool's model, once its key is known to be good."""
    key = key_or_end(work)
    watch = Watch(work.base_url, work.patience, work.most_calls)
    if fault := try_key(watch, path, headers(key)):
        work.end(Ended(error=fault.message, later=fault.later))
    return watch


def conclude(work: Work, watch: Watch | None, ran: Ran, ended: Ended) -> NoReturn:
    """End as the tool's own words, and what the watch has seen, say. A tool that says it is done, is, unless it was ended."""
    if watch and not ended.tokens_in:
        ended.tokens_in, ended.tokens_out = watch.tokens_in, watch.tokens_out
    fault = ran.stopped or (watch.last if watch else None)
    if ran.stopped or ended.error or not ended.text.strip():
        said = ended.error or f"{work.adapter} ended with {ran.code}, without an answer"
        ended.error = f"{fault.message}{f' ({said})' if not ran.stopped else ''}" if fault else said
        ended.later, ended.retry_in = (fault.later, fault.retry_in) if fault else (ended.later, ended.retry_in)
    work.end(ended)


def lines(out: str) -> list[dict[str, Any]]:
    """JSON objects, one a line; whatever else stands there is left out."""
    found = []
    for line in out.splitlines():
        try:
            one = json.loads(line)
        except ValueError:
            continue
        if isinstance(one, dict):
            found.append(one)
    return found


def is_root() -> bool:
    """Whether this runs as root, which some tools refuse without a word that it is meant."""
    return os.geteuid() == 0
