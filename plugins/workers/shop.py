"""A shop: some slots, each of which claims a job, runs its program, and delivers what came of it.

Surprise: slots are threads that nobody waits for in vain. One that stands in a claim when the worker ends is cut off, and the server
gives back what it claimed for a client that is gone.
"""
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orkosi import clean, now
from plugins.folders import write_whole
from plugins.runner import LATER, Call, Lease
from plugins.runner.brain import Brain, Ending, Outcome
from plugins.runner.client import Client, Unreachable
from plugins.runner.output import Output
from plugins.runner.secrets import Blotter
from plugins.supervisor import trees

WAIT = 20.0   # seconds that a claim may wait for a job
BREATH = 1.0  # seconds between two looks at several queues, and after an error
MARK = "ORKOSI_WORK"
MOST = 64 << 20  # bytes that a program's output may take of the disk


class Shop:
    """One worker. `folder` is its own; `argv`: what each job is handed to, in place of `programs/<task_type>`."""

    def __init__(self, client: Client, label: str, folder: Path, queues: Sequence[str], slots: int, *, programs: Path, argv: list[str] | None,
                 timeout: float, patience: float):
        self.client, self.label, self.folder, self.queues, self.slots = client, label, folder, tuple(queues), slots
        self.programs, self.argv, self.timeout, self.patience = programs, argv, timeout, patience
        self.log = folder / "worker.log"
        self.draining, self.ending = threading.Event(), threading.Event()
        self.current: dict[str, tuple[str, float]] = {}  # job → its type, and since when
        self._told, self.began = 0.0, now()

    def run(self) -> None:
        """Work until told to end, and what ran then is done, or its time is over."""
        for slot in range(self.slots):
            left = trees.end_left(self.folder / f"{slot}.pid", mark_of(self.folder, slot), BREATH)
            if left:
                self.say(f"Ended what an earlier worker had left running: {clean(', '.join(left), 1000)}")
        (self.folder / "undelivered").mkdir(exist_ok=True, mode=0o700)
        self._look()  # before the first claim: whoever mourns an earlier worker knows by it which jobs are this one's
        threading.Thread(target=self._deliver_kept, daemon=True).start()
        hands = [threading.Thread(target=self._hand, args=(slot,), daemon=True) for slot in range(self.slots)]
        for hand in hands:
            hand.start()
        self.say(f"{self.label} works on {', '.join(self.queues)}, {self.slots} at once")
        while not self.draining.wait(0.5):
            self._look()
        end = time.monotonic() + self.patience
        while self.current and time.monotonic() < end and not self.ending.wait(0.1):
            self._look()
        self.ending.set()
        end = time.monotonic() + 10
        while self.current and time.monotonic() < end:  # their programs are being ended, and their jobs given back
            time.sleep(0.05)
        self.say(f"{self.label} has ended")

    def drain(self, at_once: bool = False, patience: float | None = None) -> None:
        """Begin nothing more; `at_once`: give back what runs, too. It may be called by a signal."""
        self.patience = self.patience if patience is None else patience
        self.draining.set()
        if at_once:
            self.ending.set()

    def say(self, text: str) -> None:
        print(f"{now()} {text}", file=sys.stderr, flush=True)

    def _look(self) -> None:
        """Write down what is going on, for whoever asks; and see whether a file asks for the end."""
        if time.monotonic() - self._told > 1.0:
            self._told = time.monotonic()
            write_whole(self.folder / "state.json", json.dumps({
                "pid": os.getpid(), "started_at": self.began, "seen_at": now(), "draining": self.draining.is_set(), "current": sorted(self.current)}))
            if not self.draining.is_set() and (self.folder / "drain").exists():
                self.drain(patience=60.0)

    # ── a slot ──

    def _hand(self, slot: int) -> None:
        while not self.draining.is_set():
            try:
                job = self._claim(slot)
                if job:
                    self._work(slot, job)
            except Unreachable as error:
                self.say(str(error))
                self.draining.wait(BREATH)
            except OSError as error:  # a full disk, a folder that is gone: said, and tried again
                self.say(f"{type(error).__name__}: {error}")
                self.draining.wait(BREATH)

    def _claim(self, slot: int) -> dict[str, Any] | None:
        """A job of the first queue that has one; else wait for one. What comes too late, as the worker ends, is given back."""
        several = len(self.queues) > 1
        for place in self.queues:
            wait = 0.0 if several else WAIT
            status, said = self.client.call("POST", "/task-queue/claim", {
                "queue_name": place, "worker_id": f"{self.label}/{slot}", "wait_seconds": wait}, timeout=wait + 10)
            if status != 200:
                raise Unreachable(f"claim from {place}: {status} {said['message']}")
            if said and self.draining.is_set():
                self.client.call("POST", f"/task-queue/{said['id']}/release", {"lease_token": said["lease_token"]})
                return None
            if said:
                return dict(said)
        if several:
            self.draining.wait(BREATH)
        return None

    def _work(self, slot: int, job: dict[str, Any]) -> None:
        lease = Lease(self.client, job)
        self.current[job["id"]] = job["task_type"], time.monotonic()
        try:
            argv = self.argv or self._program(job["task_type"])
            self._settle(lease, self._run(slot, lease, job, argv) if argv else ("POST", f"{lease.path}/fail", {
                "lease_token": lease.token, "retryable": False, "error": f"Worker {self.label} has no program for {job['task_type']!r}: put an "
                f"executable of that name into {self.programs}, or start it with --exec"}))
        finally:
            lease.close()
            self.current.pop(job["id"], None)

    def _program(self, task_type: str) -> list[str] | None:
        if task_type in (".", "..") or "/" in task_type or "\0" in task_type or len(os.fsencode(task_type)) > 200:
            return None
        path = self.programs / task_type
        return [str(path)] if path.is_file() and os.access(path, os.X_OK) else None

    def _run(self, slot: int, lease: Lease, job: dict[str, Any], argv: list[str]) -> Call | None:
        """Run a job's program; what to tell the server. None where the job is nobody's any more."""
        mark = f"{self.folder}/{slot}-{time.time_ns()}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ORKOSI_")} | {
            "ORKOSI_JOB_ID": job["id"], "ORKOSI_TASK_TYPE": job["task_type"], "ORKOSI_QUEUE": job["queue_name"],
            "ORKOSI_ATTEMPT": str(job["attempt"]), "ORKOSI_MAX_ATTEMPTS": str(job["max_attempts"]), MARK: mark}
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=f"{slot}-") as scratch:
            output = Output(Path(scratch), None, MOST, self.log, job["id"], Blotter({}))
            try:
                program = Brain(argv, Path(scratch), environment, MARK, self.folder / f"{slot}.pid", output)
            except OSError as error:
                output.finish()
                return "POST", f"{lease.path}/fail", {"lease_token": lease.token, "error": f"{argv[0]} cannot be run: {error.strerror}"}
            outcome = program.run(json.dumps(job["payload"]).encode(), self.timeout, lambda: "stopped" if self.ending.is_set() else lease.verdict)
        return self._told_of(lease, outcome)

    def _told_of(self, lease: Lease, outcome: Outcome) -> Call | None:
        if outcome.ended in ("cancelled", "lost"):
            self.say(f"{lease.job['id']} was {'cancelled' if outcome.ended == 'cancelled' else 'lost: its lease is over'}; its program is ended")
            return None
        if outcome.ended == "stopped":
            return "POST", f"{lease.path}/release", {"lease_token": lease.token}
        if outcome.ended is None and outcome.exit_code == 0:
            return "POST", f"{lease.path}/complete", {"lease_token": lease.token, "result": result_of(outcome)}
        said: dict[Ending | None, str] = {"timeout": f"It took longer than {self.timeout:g} s and was ended"}
        error = "\n".join(filter(None, (said.get(outcome.ended, f"It ended with {outcome.exit_code}"), outcome.tail)))
        if outcome.ended is None and outcome.exit_code == LATER:
            return "POST", f"{lease.path}/release", {"lease_token": lease.token, "reason": error[-8000:]}
        return "POST", f"{lease.path}/fail", {"lease_token": lease.token, "error": error}

    # ── delivering ──

    def _settle(self, lease: Lease, call: Call | None) -> None:
        """Write down what came of a job, and deliver it, however long the server is away; what is left at the end, the next worker delivers."""
        if call is None:
            return
        path = self.folder / "undelivered" / f"{lease.job['id']}-{time.time_ns()}.json"
        write_whole(path, json.dumps(call))
        pause = 0.1
        while not self._deliver(path) and not self.ending.wait(pause):
            pause = min(2 * pause, 5.0)

    def _deliver_kept(self) -> None:
        """What an earlier worker of this name could not deliver."""
        kept = sorted((self.folder / "undelivered").glob("*.json"))
        while kept and not self.ending.wait(0):
            kept = [path for path in kept if not self._deliver(path)]
            self.ending.wait(BREATH)

    def _deliver(self, path: Path) -> bool:
        """Send one result; True where nothing more is to be done: it is accepted, or the job is somebody else's."""
        try:
            method, where, body = json.loads(path.read_text())
            status, said = self.client.call(method, where, body)
        except Unreachable as error:
            self.say(str(error))
            return False
        except ValueError:
            status, said = 400, {"message": "it is no JSON"}
        if status in (401, 403):
            self.say(f"{path.name} is not accepted: {said['message']}")
            return False  # the key file may have a new one by the next time
        if status == 400 and body_of(path).get("result") is not None:
            write_whole(path, json.dumps([method, where.replace("/complete", "/fail"), {
                "lease_token": body["lease_token"], "retryable": False, "error": f"Its result was refused: {said['message']}"}]))
            return False
        if status not in (200, 404, 409):
            self.say(f"{path.name}: {status} {said['message']}; kept beside")
            path.replace(path.with_name(path.name + ".rejected"))
        path.unlink(missing_ok=True)
        return True


def mark_of(folder: Path, slot: int) -> str:
    """How a variable begins that all programs of a slot have in their environment, and nobody else's."""
    return f"{MARK}={folder}/{slot}-"


def body_of(path: Path) -> dict[str, Any]:
    """What a kept call says."""
    try:
        return dict(json.loads(path.read_text())[2])
    except (OSError, ValueError, IndexError, TypeError):
        return {}


def result_of(outcome: Outcome) -> Any:
    """What a program printed: as JSON, where it is that, else as text; None where it printed nothing."""
    if outcome.truncated:
        return {"text": outcome.resolution, "truncated": True, "bytes": outcome.stdout_bytes}
    try:
        return json.loads(outcome.resolution)
    except (ValueError, RecursionError):
        return outcome.resolution or None
