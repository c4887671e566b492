"""`run-agent NAME`: one cycle of an agent - claim, think, report - as a client of the API.

What must not be lost is written down before it is sent: a result lies in `undelivered/` until the
server accepts it or says that the lease is lost. A runner that is told to end (SIGTERM) ends its brain
and gives the job back, at no cost of an attempt.
"""
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from orkosi import DATA, HOME, NotFound, Plugin, clean, now, seconds, settings
from plugins import folders
from plugins.agents import NAME, kept
from plugins.agents.paths import brain_mark
from plugins.supervisor import trees

from .brain import AGAIN, Brain, Ending, Outcome
from .client import Client, Unreachable
from .output import Output, append
from .report import Report, read_report
from .secrets import Blotter, Refused, Wallet

plugin = Plugin("Runner", layer="domain", needs=("agents",))

plugin.setting("brain_patience", int, 120, "For how many seconds the model of an adapter's tool may say nothing, before that counts as a fault")
plugin.setting("brain_most_calls", int, 200, "How many questions an adapter's tool may ask its model in one run")

PAGE = 200   # rules that are asked for at once
LISTEN = 20  # seconds for which a heartbeat may wait for what it has to tell
LATER = 75   # the exit code of a brain that asks to be tried again later
MARK = "ORKOSI_REPORT"
Call = tuple[str, str, dict[str, Any]]


@plugin.command("run-agent")
@click.argument("name")
@DATA
def run_agent(name: str, data: Path | None) -> None:
    """Let an agent do what waits in its queue, once; its run script calls this."""
    settings.load(data=data)
    folder = settings.data / "agents" / name
    if not re.match(NAME, name) or not (folder / "agent.json").exists():
        raise NotFound(f"There is no agent {name!r} in {settings.data}")
    with os.fdopen(folders.open_plain(folder / "run.lock", os.O_WRONLY | os.O_CREAT), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another cycle is under way
        Runner(name, folder).cycle()


class Lease:
    """A job under lease, kept alive by a thread until it is closed."""

    def __init__(self, client: Client, job: dict[str, Any]):
        self.client, self.job, self.token = client, job, job["lease_token"]
        self.path = f"/task-queue/{job['id']}"
        self.width = max(0.5, float(job.get("timeout_seconds") or seconds(job["lease_expires_at"]) - time.time()))  # clocks differ, widths do not
        self.until = time.monotonic() + self.width
        self.verdict: Ending | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        """Beat three times in a lease, and listen in between; what is done within half a second needs none."""
        refused, wait = 0, min(LISTEN, self.width / 3)
        rest = min(0.5, wait / 2)
        while not self._closed.wait(rest) and self.verdict is None:
            began = time.monotonic()
            try:
                status, said = self.client.call("POST", f"{self.path}/heartbeat", {"lease_token": self.token, "wait_seconds": wait}, timeout=wait + 5)
            except OSError:
                rest = min(1.0, wait)
                continue
            refused = refused + 1 if status in (401, 403) else 0  # a new key may be in its file by the next time
            if status in (404, 409) or refused > 2:
                self.verdict = "lost"
            elif status == 200:
                self.until = began + self.width
                self.verdict = "cancelled" if said["cancel"] else None
            paused = status == 200 and said["pause"]  # that is told at once, each time
            rest = wait if paused else max(0.0, wait - (time.monotonic() - began)) if status == 200 else 0.4

    def close(self) -> None:
        self._closed.set()


class Runner:
    """One agent's cycle."""

    def __init__(self, name: str, folder: Path):
        self.name, self.folder = name, folder
        self.config = json.loads((folder / "agent.json").read_text())
        self.workspace = folder / "workspace"
        self.key_file = settings.data / "keys" / name
        self.client = Client(settings.data, self.key_file)
        self.wallet = Wallet(self.client)
        self.log = folder / "logs" / "brain.log"
        self.scratch = folder / "scratch"
        self.told_to_end = False
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a brain need not read what it is told
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._end)

    def _end(self, number: int, _: Any) -> None:
        self.told_to_end = True

    def cycle(self) -> None:
        """Deliver what was kept; then work on what waits, until nothing does or the interval is over."""
        # Of a runner that was killed; its job is, or will be, somebody's again.
        self._note("brain", "left running before", trees.end_left(self.folder / "brain.pid", brain_mark(self.name), 1.0))
        shutil.rmtree(self.scratch, ignore_errors=True)  # likewise
        self.scratch.mkdir(mode=0o700)
        end = time.monotonic() + self.config["interval_sec"]
        try:
            self._deliver_kept()
            while not self.told_to_end and (job := self._claim()):
                if not self._work(job) or time.monotonic() > end:
                    break
        except Unreachable as error:
            print(f"{now()} {error}", file=sys.stderr)

    def _claim(self) -> dict[str, Any] | None:
        status, said = self.client.call("POST", "/task-queue/claim", {
            "queue_name": f"agent:{self.name}", "worker_id": f"{self.name}:{os.getpid()}"})
        if status != 200:
            raise Unreachable(f"claim: {status} {said['message']}")
        return said

    # ── one job ──

    def _work(self, job: dict[str, Any]) -> bool:
        """Do one job; whether it went well, and the next may follow."""
        lease = Lease(self.client, job)
        run: int | None = None
        try:
            payload = job["payload"] if isinstance(job["payload"], dict) else {}
            if job["task_type"] == kept.REPLAY:
                return self._replay(lease, payload)
            task_id = payload.get("task_id")
            run = self._begin(job, task_id)
            told = self._gather(task_id)
            if task_id and told["task"] is None:
                self._settle(lease, run, self._failure(lease, f"Task {task_id} is gone", retryable=False), {"status": "failed"})
                return True
            return self._think(lease, run, told | {"job": {name: value for name, value in job.items() if name != "lease_token"}})
        except Unreachable:
            self._release(lease, run, "the server was not reachable")
            raise
        finally:
            lease.close()

    def _replay(self, lease: Lease, payload: dict[str, Any]) -> bool:
        """Do a run again with what it was told then. Its task does not move: this job is not the task's."""
        number = payload.get("run_id")
        try:
            told = kept.input_of(self.name, int(number or 0))["told"]
        except (OSError, ValueError, KeyError, TypeError):
            self._settle(lease, None, self._failure(lease, f"What run {number} was told is not kept any more", retryable=False), {})
            return True
        return self._think(lease, self._begin(lease.job, (told.get("task") or {}).get("id"), replay_of=number), told)

    def _begin(self, job: dict[str, Any], task_id: int | None, **more: Any) -> int | None:
        status, said = self.client.call("POST", "/agent-runs", {
            "agent": self.name, "task_id": task_id, "job_id": job["id"], "mode": "replay" if more else "task", **more})
        return said["id"] if status == 201 else None

    def _gather(self, task_id: int | None) -> dict[str, Any]:
        """The task, every rule this agent must keep to, and, where it may delegate, the others it may delegate to."""
        status, task = self.client.call("GET", f"/tasks/{task_id}") if task_id else (404, None)
        told = {"task": task if status == 200 else None, "rules": self._all(f"/rules?agent={self.name}&")}
        if self.config.get("delegates"):
            others = [one for one in self._all("/agents?") if one["name"] != self.name]
            told["agents"] = [{field: one[field] for field in ("name", "role", "status")} for one in others]
        return told

    def _all(self, path: str) -> list[Any]:
        """Every row of a list, however many there are."""
        found: list[Any] = []
        while True:
            status, page = self.client.call("GET", f"{path}limit={PAGE}&offset={len(found)}")
            if status != 200:
                return found
            found += page
            if len(page) < PAGE:
                return found

    def _think(self, lease: Lease, run: int | None, told: dict[str, Any]) -> bool:
        task = told["task"]
        mark = f"task {task['id']}" if task else lease.job["id"]
        try:
            granted = self.wallet.open()
        except Refused as refused:
            return self._settle(lease, run, self._put_off(lease, str(refused), task), {"status": "retry", "error": str(refused)})
        limit = float(task.get("max_duration_seconds") or 3600) if task else 3600.0
        blot = Blotter(granted | {"ORKOSI_MCP_TOKEN": self.key_file.read_text().strip()})  # which its tool has in its environment
        with tempfile.TemporaryDirectory(dir=self.scratch) as scratch:
            report_file = Path(scratch, "report.json")
            environment = granted | self._environment(task, run, report_file) | self._for_adapter(limit)
            folder = kept.keep_input(self.name, run, told, environment, frozenset(granted)) if run else None
            output = Output(Path(scratch), folder, settings.run_output_mb << 20, self.log, mark, blot)
            argv = self._brain()
            try:
                self.workspace.mkdir(exist_ok=True, mode=0o700)  # the brain before may have taken it away
                brain = Brain(argv, self.workspace, environment, MARK, self.folder / "brain.pid", output)
            except OSError as error:
                output.finish()
                problem = f"The brain {argv[0]} cannot be run: {error.strerror}. Put an executable there, or give the agent a command"
                append(self.log, f"{now()} [{mark}] {problem}\n")
                return self._settle(lease, run, self._failure(lease, problem), {"status": "failed", "error": problem})
            outcome = brain.run(json.dumps(told).encode(), limit, lambda: "stopped" if self.told_to_end else lease.verdict)
            report, wrong = read_report(report_file)
        report.note, wrong = report.note and blot(report.note)[:4000], wrong and clean(blot(wrong), 1000)
        if wrong:
            append(self.log, f"{now()} WARNING [{mark}] {wrong}\n")
        self._note(mark, "what it had started", outcome.left)
        well = self._conclude(lease, run, task, outcome, report, wrong, limit)
        if outcome.left:
            time.sleep(max(0.0, brain.began + outcome.seconds + AGAIN - time.monotonic()))  # one more look, a second after the end
            self._note(mark, "what had come to life since", brain.look_again())
        return well

    def _note(self, mark: str, what: str, ended: list[str]) -> None:
        if ended:
            append(self.log, f"{now()} [{mark}] Ended {what}: {clean(', '.join(ended), 1000)}\n")

    def _conclude(self, lease: Lease, run: int | None, task: dict[str, Any] | None, outcome: Outcome, report: Report, wrong: str | None,
                  limit: float) -> bool:
        record = {"exit_code": outcome.exit_code, "tokens_in": report.tokens_in, "tokens_out": report.tokens_out,
                  "cost_micros": report.cost_micros, "duration_ms": round(outcome.seconds * 1000), "note": report.note,
                  "stdout_bytes": outcome.stdout_bytes, "stderr_bytes": outcome.stderr_bytes, "truncated": outcome.truncated}
        if outcome.ended == "stopped":
            return self._release(lease, run, "the agent was told to stop", record)
        if outcome.ended in ("cancelled", "lost"):
            why = "the job was cancelled" if outcome.ended == "cancelled" else "the lease was lost"
            return self._record(run, record | {"status": "stopped" if outcome.ended == "cancelled" else "lost", "error": why})
        if outcome.ended is None and outcome.exit_code == 0:
            result = {"resolution": outcome.resolution, "status": report.status, "truncated": outcome.truncated}
            result |= ({"note": report.note} if report.note else {}) | ({"unusable": wrong} if wrong else {})
            call: Call = ("POST", f"{lease.path}/complete", {"lease_token": lease.token, "result": result})
            self._settle(lease, run, call, record | {"status": "done", "error": wrong})
            return True
        said = {"timeout": f"It took longer than {limit:g} s and was ended", None: f"The brain ended with {outcome.exit_code}"}[outcome.ended]
        again = outcome.ended is None and outcome.exit_code == LATER
        error = "\n".join(filter(None, ("The brain asked to be tried again" if again else said, report.note if again else None, wrong, outcome.tail)))
        call = self._put_off(lease, error, task, report.retry_in_seconds) if again else self._failure(lease, error)
        return self._settle(lease, run, call, record | {"status": "retry" if again else outcome.ended or "failed", "error": error})

    def _brain(self) -> list[str]:
        if self.config.get("adapter"):
            return [sys.executable, "-P", "-m", "plugins.runner.adapters", self.config["adapter"]]
        return self.config["command"] or [str(self.workspace / "brain")]

    def _environment(self, task: dict[str, Any] | None, run: int | None, report: Path) -> dict[str, str]:
        own = {"PWD": str(self.workspace), "ORKOSI_URL": self.client.url, "ORKOSI_KEY_FILE": str(self.key_file), "ORKOSI_AGENT": self.name,
               "ORKOSI_ROLE": self.config.get("role") or "", "ORKOSI_MODEL": self.config.get("model") or "",
               "ORKOSI_TASK_ID": str(task["id"]) if task else "", "ORKOSI_RUN_ID": str(run or ""), "ORKOSI_REPORT": str(report)}
        return {name: value for name, value in os.environ.items() if not name.startswith("ORKOSI_")} | own

    def _for_adapter(self, limit: float) -> dict[str, str]:
        """What an adapter is told beside: a home of its own, which its tool keeps its sessions in, and its bounds."""
        if not self.config.get("adapter"):
            return {}
        home = self.folder / "home"
        home.mkdir(exist_ok=True, mode=0o700)
        return {"HOME": str(home), "PYTHONPATH": str(HOME), "ORKOSI_BASE_URL": self.config.get("base_url") or "", "ORKOSI_SECONDS": f"{limit:g}",
                "ORKOSI_COMMAND": json.dumps(self.config["command"] or []), "ORKOSI_PATIENCE": f"{settings.brain_patience:g}",
                "ORKOSI_MOST_CALLS": str(settings.brain_most_calls)}

    def _failure(self, lease: Lease, error: str, **more: Any) -> Call:
        return "POST", f"{lease.path}/fail", {"lease_token": lease.token, "error": error, "retryable": True} | more

    def _put_off(self, lease: Lease, reason: str, task: dict[str, Any] | None, after: float | None = None) -> Call:
        due = task and task.get("due_date")
        try:
            datetime.fromisoformat(due or "")
        except ValueError:  # none, or a day that there is not, which earlier versions took: no waiting ends there
            due = None
        return "POST", f"{lease.path}/release", {"lease_token": lease.token, "reason": reason[-8000:]} | (
            {} if after is None else {"retry_in_seconds": after}) | ({"give_up_at": due} if due else {})

    # ── reporting ──

    def _settle(self, lease: Lease, run: int | None, call: Call, record: dict[str, Any]) -> bool:
        """Keep a result, and deliver it as long as the lease may hold; False, so that a failure ends the cycle."""
        kept = self._keep(lease.job["id"], [call, ("PATCH", f"/agent-runs/{run}", record)] if run else [call])
        pause = 0.2
        while not self._deliver(kept) and time.monotonic() + pause < lease.until and not self.told_to_end:
            time.sleep(pause)
            pause = min(2 * pause, 5.0)
        return False

    def _release(self, lease: Lease, run: int | None, why: str, record: dict[str, Any] | None = None) -> bool:
        with contextlib.suppress(Unreachable):  # then whoever ended us gives the job back, or else the end of the lease does
            self.client.call("POST", f"{lease.path}/release", {"lease_token": lease.token}, timeout=2)
        return self._record(run, (record or {}) | {"status": "stopped", "error": why})

    def _record(self, run: int | None, record: dict[str, Any]) -> bool:
        """Tell what a run was without a result: now, or the next time; whoever ends us does not wait for long."""
        if run:
            self._deliver(self._keep(f"run_{run}", [("PATCH", f"/agent-runs/{run}", record)]), timeout=2)
        return False

    def _keep(self, name: str, calls: list[Call]) -> Path:
        path = self.folder / "undelivered" / f"{name}-{time.time_ns()}.json"
        path.parent.mkdir(exist_ok=True, mode=0o700)
        with open(path.with_suffix(".new"), "w") as file:
            json.dump(calls, file)
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".new").replace(path)
        return path

    def _deliver_kept(self) -> None:
        for path in sorted((self.folder / "undelivered").glob("*.json")):
            self._deliver(path)

    def _deliver(self, path: Path, timeout: float = 10.0) -> bool:
        """Send a kept result, and what it cost; True where nothing more is to be done: they are accepted, or the lease is lost."""
        first, *records = json.loads(path.read_text())
        told = self._send(path, first, timeout)
        if told is None:
            return False
        if told[0] != 200:  # what was spent is spent, whosever the job is by now
            records = [(method, where, body | {"status": "lost", "error": told[1]}) for method, where, body in records]
        for number, record in enumerate(records):
            if self._send(path, record, timeout) is None:
                self._keep(f"run_{record[1].rpartition('/')[2]}", records[number:])  # without the first, which was accepted
                break
        path.unlink(missing_ok=True)
        return True

    def _send(self, path: Path, call: Call, timeout: float) -> tuple[int, str] | None:
        """The status of one call of those kept in a file, and what was said; None where it is to be sent again."""
        try:
            status, said = self.client.call(*call, timeout=timeout)
        except Unreachable:
            return None
        if status in (401, 403):
            return None  # the key changed: the next one may
        if status in (200, 404, 409):
            return status, "" if status == 200 else said["message"]
        append(self.log, f"{now()} [undelivered] {status} {clean(said['message'])}: kept as {path.name}.rejected\n")
        shutil.copy(path, path.with_name(path.name + ".rejected"))
        if call[0] == "POST":
            self._hand_back(call, f"What came of it was refused: {clean(said['message'])}. It is kept as {path.name}.rejected")
        return status, said["message"]

    def _hand_back(self, call: Call, error: str) -> None:
        """Have a person look at once: the same work again would be refused again."""
        with contextlib.suppress(Unreachable):  # then its lease runs out
            self.client.call("POST", f"{call[1].rpartition('/')[0]}/fail",
                             {"lease_token": call[2].get("lease_token"), "error": error[:8000], "retryable": False})
