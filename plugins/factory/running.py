"""Running: the processes of the factory, brought to what their rows want, once a second.

Surprise: a worker that must go is asked by a file, `drain` in its folder, for the supervisor's own way to end a process is too short for
its jobs. It ends by itself, with 0, which the supervisor takes for a good end and does not start it again.
"""
import json
import logging
import os
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from orkosi import HOME, HOST_TENANT, VERSION, Conflict, Problem, Struct, clean, db, now, seconds, settings
from plugins import folders, keys, notifications, queue, supervisor
from plugins.agents.paths import search_path
from plugins.supervisor import trees
from plugins.workers.shop import mark_of

from . import DRAIN, Alert, State, Worker, config, fill, forget, note_death, plugin, put, workers

log = logging.getLogger("orkosi")
SCOPES = ("queue:work",)
DEATHS, MINUTE = 5, 60.0
THROTTLE = 5   # seconds between two starts
SLOW = 15.0    # seconds in which one that is wanted should be there
SILENT = 30.0  # seconds without a word of a process that lives
LOG = 10 << 20  # bytes after which a worker's log is turned over
GRACE = 6      # seconds that its jobs have when the server ends
_pids: dict[int, int] = {}
_deaths: dict[int, deque[float]] = {}


class Live(Struct):
    """What the supervisor and its own file say of a worker. `told`: the file, where it is of the process that runs; `at`: a moment between
    the two."""
    status: supervisor.Status
    told: dict[str, Any]
    at: str | None = None


def folder_of(one: Worker) -> Path:
    """Where it keeps what is its own."""
    return settings.data / "work" / one.name


def key_file() -> Path:
    """With the key that all of them work with."""
    return settings.data / "work" / "factory.key"


def look(found: list[Worker]) -> list[Live]:
    """What is true of these workers. Unavailable where the supervisor does not answer."""
    said = supervisor.statuses([supervisor.plist_of(one.label) for one in found]) if found else []
    at = now()
    return [Live(status, _told(one, status.pid), at) for one, status in zip(found, said, strict=True)]


def _told(one: Worker, pid: int | None) -> dict[str, Any]:
    try:
        told = json.loads(folders.read_plain(folder_of(one) / "state.json", 65536))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) and pid and told.get("pid") == pid else {}


def state_of(one: Worker, live: Live, busy: bool) -> State:
    """One word for all of it."""
    if one.wanted == "held":
        return "held"
    if live.status.pid is None:
        return "stopped" if one.wanted == "draining" else "starting"
    if one.wanted == "draining" or live.told.get("draining"):
        return "draining"
    return "busy" if busy else "idle" if live.told else "starting"


def alerts_of(one: Worker, live: Live) -> list[Alert]:
    """What is not as it should be with a worker."""
    if one.wanted == "held":
        return [Alert("worker_held", one.number, f"{one.name} died {DEATHS} times within a minute and is not started again: {one.last_error}. "
                      f"See to that, then PATCH /api/factory-workers/config with the worker_count", one.since)]
    if one.wanted == "running" and live.status.pid is None and seconds(one.since) < time.time() - SLOW:
        why = f": {one.last_error}" if one.last_error else ""
        return [Alert("worker_down", one.number, f"{one.name} is wanted and does not run{why}", one.since)]
    heard = live.told.get("seen_at")
    if live.status.pid and isinstance(heard, str) and seconds(heard) < time.time() - SILENT:
        return [Alert("worker_silent", one.number, f"{one.name} lives, and has said nothing for {time.time() - seconds(heard):.0f} s; "
                      f"its log is {folder_of(one) / 'worker.out'}", heard)]
    return []


# ── the loop ──


@plugin.service
def run(stop: threading.Event) -> None:
    """Bring the processes to what is wanted, until the server ends; where they end with it, give back what they had in hand."""
    _pids.clear()
    _deaths.clear()
    for step in (_drop_strangers, replace_old):
        try:
            step()
        except (Problem, OSError) as error:
            log.warning("what another place or version of this folder left: %s", error)
    while not stop.wait(1.0):
        try:
            bring_about()
        except (Problem, OSError) as error:
            log.error("the factory: %s", error)
    if supervisor.driver() is supervisor.embedded.driver:
        _give_back()


def bring_about() -> None:
    """One look at every worker."""
    found = workers()
    if len(found) < config().worker_count:
        fill()
        found = workers()
    for one, live in zip(found, look(found), strict=True):
        if one.wanted == "running":
            _keep_running(one, live)
        elif one.wanted == "draining":
            _let_drain(one, live)
        elif live.status.loaded:
            supervisor.unload(supervisor.plist_of(one.label))
    if any(one.wanted == "running" for one in found):
        give_key()  # it may have been revoked, or its maker be gone, while they work; they read it anew for each call


def _keep_running(one: Worker, live: Live) -> None:
    """See whether it lives, whether it has died since the last look - though it may have come and gone in between - and load it, if need be."""
    before, pid = _pids.get(one.number), live.status.pid
    # Of one that an earlier server started nobody hears how it ended: that it was there must do.
    died = pid is None and before != 0 and (before is not None or live.status.last_exit is not None)
    if before is None and pid and not live.told:
        return  # it is on its way: whose the jobs of its name are, is seen once it says when it began
    _pids[one.number] = pid or 0
    if died or (before and pid and before != pid) or (before is None and _holds_of_earlier(one, live)):
        _mourn(one, live)
    elif not live.status.loaded:
        load(one)
        _pids.pop(one.number, None)
    elif not pid and live.status.last_exit == 0:  # somebody told it to end: to the supervisor, that was a good one
        supervisor.start(supervisor.plist_of(one.label))


def _holds_of_earlier(one: Worker, live: Live) -> bool:
    """Whether jobs are held in its name that a process before this one claimed, which died while nobody looked."""
    held = db.all(tuple, """SELECT id FROM jobs WHERE tenant_id = :tenant AND state = 'active' AND lease_expires_at > '' AND claimed_at < :began
                               AND substr(worker_id, 1, length(:worker)) = :worker""", worker=f"{one.name}/", began=live.told.get("started_at", ""))
    return bool({id for id, in held} - _finished(one))


def _mourn(one: Worker, live: Live) -> None:
    """It died; the supervisor starts it again, unless that is no use."""
    end = "was killed" if live.status.last_exit is None else f"ended with {live.status.last_exit}"
    error = clean(f"The process {end}: {_last_words(one)}".rstrip(": "), 500)
    log.warning("%s %s", one.name, error)
    note_death(one.number, error)
    deaths = _deaths.setdefault(one.number, deque(maxlen=DEATHS))
    deaths.append(time.monotonic())
    # Looked at anew, for it may be there by now: a new process has done so at its start, and what runs is its own.
    if live.status.pid is None and supervisor.status(supervisor.plist_of(one.label)).pid is None:
        for slot in range(one.slots):
            trees.end_left(folder_of(one) / f"{slot}.pid", mark_of(folder_of(one), slot), 1.0)
    # A process says when it began before it claims anything: what was claimed since then is not the dead one's.
    queue.lose_of(f"{one.name}/", f"Its worker {one.name} died", but=_finished(one), before=live.told.get("started_at") or live.at)
    if len(deaths) == DEATHS and deaths[-1] - deaths[0] <= MINUTE:
        put(one.number, "held", error)
        supervisor.unload(supervisor.plist_of(one.label))
        _pids.pop(one.number, None)
        deaths.clear()
        notifications.notify(f"{one.name} is held", f"It died {DEATHS} times within a minute, and is not started again. {error}", type="error",
                             source="factory", link="/api/factory-workers/health-summary")


def _last_words(one: Worker) -> str:
    try:
        said = folders.read_plain(folder_of(one) / "worker.out", 4 << 20)[-2000:].decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return said[-1][:300] if said else ""


def load(one: Worker) -> None:
    """Write a worker's plist and hand it to the supervisor."""
    folder = folder_of(one)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "drain").unlink(missing_ok=True)
    (folder / "state.json").unlink(missing_ok=True)
    give_key()
    out = str(folder / "worker.out")
    if os.path.exists(out) and os.path.getsize(out) > LOG:
        os.replace(out, f"{out}.1")
    supervisor.load(supervisor.write(one.label, _spec(one)))


def _spec(one: Worker) -> dict[str, Any]:
    """What its plist says here and now; also of which version it is, for it goes on with the code that it began with."""
    out = str(folder_of(one) / "worker.out")
    queues = [word for name in one.queues for word in ("--queue", name)]
    return {"ProgramArguments": [sys.executable, str(Path(HOME, "orkosi.py")), "work", "--data", str(settings.data), "--name", one.name, "--key-file",
                                 str(key_file()), "--slots", str(one.slots), "--drain", str(GRACE - 1), *queues],
            "RunAtLoad": True, "KeepAlive": {"SuccessfulExit": False}, "ThrottleInterval": THROTTLE, "StandardOutPath": out,
            "StandardErrorPath": out, "WorkingDirectory": str(settings.data),
            "EnvironmentVariables": {"PATH": search_path(), "ORKOSI_NO_INSTALL": "1", "WORKER_OF": VERSION}}


def replace_old() -> None:
    """Have those drain that launchd kept running while another version, or other settings, came: new ones take their place."""
    found = [one for one in workers() if one.wanted == "running"]
    for one, live in zip(found, look(found), strict=True):
        path = supervisor.plist_of(one.label)
        if live.status.loaded and (not path.exists() or supervisor.read(path) != {"Label": one.label, **_spec(one)}):
            log.info("%s was started by another version, or with other settings: it drains, and a new one takes its place", one.name)
            put(one.number, "draining")


def give_key() -> None:
    """Have a key in the key file that is good: its maker may have left, or have another role. Conflict where no administrator can make one."""
    try:
        held = folders.read_plain(key_file(), 1000).decode().strip()
    except (OSError, UnicodeDecodeError):
        held = ""
    actor = keys.of(held) if held else None
    if actor and actor.scopes and set(SCOPES) <= actor.scopes:
        return
    maker = db.value("SELECT id FROM users WHERE tenant_id = :tenant AND role = 'admin' ORDER BY id LIMIT 1")
    if maker is None:
        raise Conflict("The workers need a key, and there is no administrator who makes one")
    _, raw = keys.issue(HOST_TENANT, "factory workers", SCOPES, by=maker, description="Of the worker processes on this machine")
    folders.write_whole(key_file(), raw)


def _let_drain(one: Worker, live: Live) -> None:
    """Wait for its end, and see to it when its time is over."""
    _pids.pop(one.number, None)
    flag = folder_of(one) / "drain"
    if live.status.pid and seconds(one.since) > time.time() - DRAIN - 10:
        if not flag.exists():
            folders.write_whole(flag, f"{DRAIN:g}")
        return
    supervisor.unload(supervisor.plist_of(one.label))
    release(one)
    supervisor.plist_of(one.label).unlink(missing_ok=True)
    flag.unlink(missing_ok=True)
    forget(one)
    fill()


def release(one: Worker) -> None:
    """Give back what a worker that is gone had in hand, but for what it had finished, and whoever comes next delivers."""
    queue.release_of(f"{one.name}/", but=_finished(one))


def _finished(one: Worker) -> set[int]:
    """The jobs whose result lies in its folder."""
    return {int(path.name.partition("-")[0].removeprefix("job_")) for path in (folder_of(one) / "undelivered").glob("job_*-*.json")}


def _give_back() -> None:
    """The embedded supervisor ends its children now, and they cannot reach a server that is going."""
    found = [one for one in workers() if one.wanted != "held"]
    for _ in range(80):
        if not any(live.status.pid for live in look(found)):
            break
        time.sleep(0.1)
    for one in found:
        release(one)


def _drop_strangers() -> None:
    """Remove workers' plists that another place of this folder left; where that is gone, what launchd has of them, too."""
    ours = f"com.orkosi.{supervisor.folder_hash()}."
    for path in (settings.data / "jobs").glob("com.orkosi.*.worker.*"):
        if not path.name.startswith(ours):
            if path.suffix == ".plist" and not supervisor.lives_elsewhere(path):
                supervisor.unload(path)
            path.unlink(missing_ok=True)
