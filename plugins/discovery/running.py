"""Running an engine: its look is taken outside of any write, and all that comes of it is filed in one.

Surprise: a command is a program that may print anything. What it prints goes to a file with an end, is read line by line as JSON, and a line
that is no finding fails the run without costing the others.
"""
import itertools
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from orkosi import Problem, Struct, Unavailable, clean, db, emit, now, settings, stopping, writes
from plugins import queue, tasks
from plugins.agents.paths import search_path
from plugins.findings import Finding, looks
from plugins.runner.brain import Brain
from plugins.runner.output import Output
from plugins.runner.report import Report, read_report
from plugins.runner.secrets import Blotter
from plugins.supervisor import trees
from plugins.tasks import NewTask

from . import COMMAND, RUNS, Row, plugin

log = logging.getLogger("orkosi")
MOST = 200          # findings of one run
PRINTED = 1 << 20   # bytes of a command's output that are read
MARK = "ORKOSI_DISCOVERY"
AGAIN = 2.0         # seconds after which a run looks again whether it is its turn
KEPT = ("HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "LANG", "LC_ALL", "TZ")
_turn = threading.Lock()


class Order(Struct):
    """Which run a job is about."""
    run: int


class Seen(Struct):
    """What a look has turned up, what it cost, and what was wrong with it."""
    findings: list[Finding]
    report: Report
    error: str | None


@plugin.job(RUNS)
def run(order: Order) -> str:
    """Do one run. One that finds another under way is put off; what fails is told by the run, and is not tried again."""
    if not _turn.acquire(blocking=False):
        return _put_off(order.run)
    try:
        engine = _begin(order.run)
        if engine is None:
            return "gone"
        began = time.monotonic()
        try:
            seen = look(engine)
        except Unavailable:
            raise  # the server ends: the next one does it
        except (Problem, OSError, ValueError) as problem:
            seen = Seen([], Report(), clean(getattr(problem, "message", None) or f"{type(problem).__name__}: {problem}", 2000))
        return _file(order.run, engine, seen, round(time.monotonic() - began, 3))
    finally:
        _turn.release()


@writes
def _put_off(run: int) -> str:
    job = queue.later(RUNS, {"run": run}, attempts=3, delay=AGAIN)
    db.run("UPDATE discovery_runs SET job_id = :job WHERE tenant_id = :tenant AND id = :run", job=job.id, run=run)
    return "another engine runs; put off"


@writes
def _begin(run: int) -> Row | None:
    """The engine of a run that begins; None where either is gone, or it was done already."""
    engine = db.one(Row, """SELECT discovery_engines.* FROM discovery_runs JOIN discovery_engines ON discovery_engines.id = engine_id
                             WHERE discovery_runs.tenant_id = :tenant AND discovery_runs.id = :run AND status IN ('queued', 'running')""", run=run)
    if engine:
        db.run("UPDATE discovery_runs SET status = 'running', started_at = :now WHERE tenant_id = :tenant AND id = :run", run=run, now=now())
        db.run("UPDATE discovery_engines SET last_status = 'running', last_run_at = :now WHERE tenant_id = :tenant AND id = :id",
               id=engine.id, now=now())
    return engine


def look(engine: Row) -> Seen:
    """What an engine finds now."""
    if engine.layer == COMMAND:
        return _asked(engine)
    if engine.layer not in looks:
        return Seen([], Report(), f"This version knows no layer {engine.layer!r}")
    found = list(itertools.islice(looks[engine.layer](), MOST + 1))
    return Seen(found[:MOST], Report(), f"There were more than {MOST} findings; the rest comes with the next run" if len(found) > MOST else None)


# ── commands ──


def _asked(engine: Row) -> Seen:
    """Run an engine's command, and read what it prints."""
    folder = settings.data / "work" / "discovery"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    trees.end_left(folder / "command.pid", f"{MARK}={folder}/", 1.0)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        report, here, kept = (Path(scratch, name) for name in ("report.json", "here", "kept"))
        here.mkdir()
        kept.mkdir()
        environment = {name: os.environ[name] for name in KEPT if name in os.environ} | {
            "PATH": search_path(), "ORKOSI_MODEL": engine.model or "", "ORKOSI_ENGINE": engine.slug, "ORKOSI_REPORT": str(report),
            "ORKOSI_DATA": str(settings.data), MARK: f"{folder}/{time.time_ns()}"}
        output = Output(Path(scratch), kept, PRINTED, folder / "discovery.log", engine.slug, Blotter({}))
        try:
            program = Brain(engine.command or [], here, environment, MARK, folder / "command.pid", output)
        except OSError as error:
            output.finish()
            return Seen([], Report(), f"{(engine.command or [''])[0]} cannot be run: {error.strerror}")
        limit = float(settings.discovery_seconds)
        outcome = program.run(b"", limit, lambda: "stopped" if stopping.is_set() else None)
        if outcome.ended == "stopped":
            raise Unavailable("The server ends")
        told, wrong = read_report(report)
        lines = list(_lines(kept / "stdout"))
    findings, bad = read(lines)
    said = [f"It took longer than {limit:g} s and was ended"] if outcome.ended == "timeout" else []
    said += [f"It ended with {outcome.exit_code}: {outcome.tail[-1000:]}".rstrip(": ")] if outcome.ended is None and outcome.exit_code else []
    said += [f"It printed more than {PRINTED:,} bytes; the rest was not read"] if outcome.stdout_bytes > PRINTED else []
    said += [f"There were {len(findings)} findings; those beyond {MOST} are left out"] if len(findings) > MOST else []
    return Seen(findings[:MOST], told, clean("; ".join([*said, *bad[:3], *([wrong] if wrong else [])]), 2000) or None)


def _lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a file that is no larger than what is read; one that was cut off is none."""
    raw = path.read_bytes() if path.exists() else b""
    lines = raw.split(b"\n")
    yield from lines[:-1] if len(raw) >= PRINTED else lines


def read(lines: list[bytes]) -> tuple[list[Finding], list[str]]:
    """The findings among lines of JSON, and what is wrong with the others."""
    found, bad = [], []
    for number, text in enumerate(lines, 1):
        if text.strip():
            try:
                found.append(msgspec.json.decode(text, type=Finding))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                bad.append(f"Line {number} is no finding: {error}")
    return found, bad


# ── filing ──


@writes
def _file(run: int, engine: Row, seen: Seen, took: float) -> str:
    """All that comes of a run, at once: tasks, counts, its end."""
    counts, wrong, files = {"new": 0, "repeated": 0, "dismissed": 0}, [], set[str]()
    for finding in seen.findings:
        print_ = finding.fingerprint or f"{engine.layer}: {finding.title}"
        if print_ in files:
            counts["repeated"] += 1
            continue
        files.add(print_)
        try:
            counts[_take(run, engine, finding, print_)] += 1
        except Problem as problem:
            wrong.append(f"{clean(finding.title, 60)}: {problem.message}")
    error = clean("; ".join(filter(None, (seen.error, *wrong[:3]))), 2000) or None
    status = "failed" if error else "done"
    wasted = int(not error and not counts["new"])
    cost, tokens = seen.report.cost_micros, seen.report.tokens_in + seen.report.tokens_out
    if not db.run("""UPDATE discovery_runs SET status = :status, finished_at = :now, seconds = :took, findings = :findings, new = :new,
                            repeated = :repeated, dismissed = :dismissed, cost_micros = :cost, tokens = :tokens, error = :error
                      WHERE tenant_id = :tenant AND id = :run""",
                  status=status, now=now(), took=took, findings=len(seen.findings), cost=cost, tokens=tokens, error=error, run=run, **counts):
        raise Unavailable("The run is gone")
    db.run("""UPDATE discovery_engines SET last_status = :status, total = total + 1, failed = failed + :bad, wasted = wasted + :wasted,
                     findings = findings + :findings, cost_micros = cost_micros + :cost WHERE tenant_id = :tenant AND id = :id""",
           status=status, bad=int(error is not None), wasted=wasted, findings=len(seen.findings), cost=cost, id=engine.id)
    emit("discovery_run.failed" if error else "discovery_run.finished", engine, run=run)
    return f"{counts['new']} new, {counts['repeated']} repeated, {counts['dismissed']} dismissed"


def _take(run: int, engine: Row, finding: Finding, fingerprint: str) -> str:
    """File a finding, unless it is open, or somebody does not want it: what it counts as."""
    before = db.all(tuple, """SELECT task_id, dismissed_at, tasks.status, tasks.finished_at FROM discovery_tasks
                               LEFT JOIN tasks ON tasks.id = task_id AND tasks.tenant_id = discovery_tasks.tenant_id
                              WHERE discovery_tasks.tenant_id = :tenant AND fingerprint = :print
                              ORDER BY discovery_tasks.id DESC LIMIT 1""", print=fingerprint)
    came_back = ""
    if before:
        task, dismissed, status, done_at = before[0]
        if dismissed or status is None:  # archived by a person, or deleted for good
            return "dismissed"
        if status not in ("done", "archived"):
            return "repeated"
        came_back = f"\n\nIt came back: task {task} was {status} at {done_at}."
    new, _ = tasks.create(NewTask(title=finding.title, description=(finding.description + came_back).strip(), priority=finding.priority, dedupe=False,
                                  assignee=finding.assignee, product_slug=finding.product_slug, type="ops", category="discovery", tags=engine.slug))
    db.run("""INSERT INTO discovery_tasks (tenant_id, engine_id, run_id, fingerprint, task_id, previous_task_id, filed_at)
              VALUES (:tenant, :engine, :run, :print, :task, :before, :now)""",
           engine=engine.id, run=run, print=fingerprint, task=new.id, before=before[0][0] if before else None, now=now())
    return "new"


@plugin.on("job.failed")
def lost(event: str, job: queue.Job) -> None:
    """A run whose job is dead - the server died in it, again and again - is over."""
    if job.queue == queue.OWN and job.task_type == RUNS:
        run = job.payload["payload"]["run"]
        engine = db.value("SELECT engine_id FROM discovery_runs WHERE tenant_id = :tenant AND id = :run AND status IN ('queued', 'running')", run=run)
        if engine:
            db.run("UPDATE discovery_runs SET status = 'failed', finished_at = :now, error = :error WHERE tenant_id = :tenant AND id = :run",
                   run=run, error=job.error, now=now())
            db.run("""UPDATE discovery_engines SET last_status = 'failed', total = total + 1, failed = failed + 1
                       WHERE tenant_id = :tenant AND id = :id""", id=engine)


