"""The ten steps that make an agent, each of which may be taken again.

Surprise: the run script is the same text for every agent. What differs - name, folders, interpreter -
stands in `run.env` beside it, quoted for the shell, and in `agent.json` for the runner; no text that a
client sent ever becomes part of a script.
"""
import hashlib
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orkosi
from orkosi import HOST_TENANT, UNSET, Conflict, Problem, current, now, settings
from plugins import automations, folders, keys, logs, queue, supervisor
from plugins.automations import LAUNCHED

from . import templates
from .loading import load
from .paths import drop_flag, folder_of, key_file, label_of, plist_of, search_path, stop_flag, write_file
from .rows import Agent, AgentFields, NewAgent, Step, change, has_key, log, note_steps, register, seek
from .turns import turn_of

RUN_SH = r"""#!/bin/sh
# One cycle of an agent; the same text for every agent. What differs is in run.env beside it.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd -P) || exit 78
. "$here/run.env" || exit 78
export PATH ORKOSI_NO_INSTALL

# Told to stop: a plain file, and our own - anybody may put one into /tmp.
if [ -f "$STOP_FLAG" ] && [ ! -L "$STOP_FLAG" ] && [ -O "$STOP_FLAG" ]; then exit 0; fi

# Nothing to do, no result kept that could not be delivered, and no brain left by a runner that was killed: one question, no Python.
set -- "$here"/undelivered/*.json
if [ ! -e "$1" ] && [ ! -e "$here/brain.pid" ] && command -v curl >/dev/null 2>&1; then
  [ -r "$DATA/server.url" ] && read -r url < "$DATA/server.url" || exit 0
  answer=$(curl -fsS --noproxy '*' --max-time 10 "$url/api/agent-runs/idle-check?agent_name=$AGENT&run_mode=task" 2>/dev/null) || exit 0
  case $answer in *'"skip":false'*) ;; *) exit 0 ;; esac
fi
exec "$PYTHON" "$ORKOSI" run-agent "$AGENT" --data "$DATA"
"""
STEPS = ("row", "workspace", "soul", "run script", "automations", "plist", "key", "load", "heartbeat", "log")


def make(new: NewAgent) -> tuple[Agent, str | None]:
    """Take every step that has not succeeded yet; the agent, and in another tenant its key. Conflict where all ten have."""
    name, made_from = new.name, templates.find_slug(new.template) if new.template is not None else None
    fields = {field: value for field in AgentFields.__struct_fields__ if (value := getattr(new, field)) is not UNSET}
    if made_from:
        fields = templates.settings_of(made_from) | fields
    with turn_of(name):
        agent = seek(name)
        here = current().tenant == HOST_TENANT
        if agent and (all(step.ok for step in agent.steps) and len(agent.steps) == 10 if here else agent.steps):
            raise Conflict(f"Agent {name} exists already; change it with PATCH, or delete it first")
        if here and agent and not agent.steps and not new.adopt:
            raise Conflict(f"Agent {name} is driven from outside, through /v1/public; send \"adopt\": true to run it on this machine from now on")
        if here and agent and not agent.steps:
            fields["reported"] = "idle"  # what was said of it from outside is over
            queue.resume(agent.queue)
        agent = change(name, **fields) if agent else register(name, **fields)
        if not here:
            return _row_only(agent)
        taken = [Step(1, "row", True, f"agent {agent.id}")]
        if not agent.steps:
            note_steps(name, taken)  # at once: by its steps it is known as this machine's, wherever the rest ends
        for number, (title, take) in enumerate(zip(STEPS[1:], HOST_STEPS, strict=True), 2):
            taken.append(_take(number, title, take, agent, skip=not taken[-1].ok))
        return note_steps(name, taken), None


def _take(number: int, title: str, take: Callable[[Agent], str], agent: Agent, skip: bool) -> Step:
    if skip:
        return Step(number, title, False, "skipped: an earlier step failed")
    try:
        return Step(number, title, True, take(agent))
    except Problem as problem:
        return Step(number, title, False, problem.message)
    except OSError as error:
        return Step(number, title, False, f"{error.strerror}: {error.filename}")


def _row_only(agent: Agent) -> tuple[Agent, str]:
    """In another tenant an agent is a row and a key; it is driven from outside."""
    _, raw = keys.issue(agent.tenant_id, f"agent {agent.name}", keys.scopes_of_agent(agent.delegates), agent=agent.name)
    done = {1: f"agent {agent.id}", 7: "shown once in `key`"}
    steps = [Step(number, title, number in done, done.get(number, "not on this machine")) for number, title in enumerate(STEPS, 1)]
    return note_steps(agent.name, steps), raw


# ── the steps ──


def _workspace(agent: Agent) -> str:
    folder = folder_of(agent.name)
    for one in (folder / "workspace", folder / "logs", folder / "undelivered"):
        one.mkdir(parents=True, exist_ok=True, mode=0o700)
    change(agent.name, workspace_path=f"agents/{agent.name}/workspace")
    return str(folder / "workspace")


def _soul(agent: Agent) -> str:
    path = folder_of(agent.name) / "workspace" / "SOUL.md"
    if path.exists():
        return "stands"
    made_from = templates.seek_slug(agent.template) if agent.template else None
    if made_from and made_from.identity:
        folders.write_whole(path, templates.soul_of(made_from))
        return f"{path}, from the template {made_from.slug}"
    folders.write_whole(path, f"# {agent.display_name}\n\nRole: {agent.role}\n\nWrite here who this agent is, what it does well, and what "
                    "it never does.\n" + (f"Its brain is the adapter {agent.adapter}, which gets this file with every task.\n" if agent.adapter else
                       "Its program is the executable `brain` beside this file: the task comes as JSON on stdin, what it\n"
                       "prints is the resolution, exit 0 is done, 75 is try again later, anything else a failed attempt.\n"))
    return str(path)


def _run_script(agent: Agent) -> str:
    folder = folder_of(agent.name)
    for name, text in _texts(agent).items():
        folders.write_whole(folder / name, text, 0o700 if name == "run.sh" else 0o600)
    return str(folder / "run.sh")


def _texts(agent: Agent) -> dict[str, str]:
    """What an agent's files say here and now, by their names. Of its plist, a mark: an operator may have changed that by hand."""
    facts = {"AGENT": agent.name, "DATA": str(settings.data), "PYTHON": sys.executable, "ORKOSI": str(Path(orkosi.HOME, "orkosi.py")),
             "PATH": search_path(), "STOP_FLAG": str(stop_flag(agent.name)), "ORKOSI_NO_INSTALL": "1",
             "PLIST": hashlib.sha256(json.dumps(_spec(agent), sort_keys=True).encode()).hexdigest()[:16]}
    return {"agent.json": _for_its_runner(agent), "run.env": "".join(f"{name}={shlex.quote(value)}\n" for name, value in facts.items()),
            "run.sh": RUN_SH}


def _for_its_runner(agent: Agent) -> str:
    """What `agent.json` says: what its runner, and the brain through it, must know."""
    return json.dumps({name: getattr(agent, name) for name in (
        "name", "display_name", "role", "model", "command", "adapter", "base_url", "interval_sec", "delegates")})


def _automations(agent: Agent) -> str:
    label = label_of(agent.name)
    automations.record(agent.name, "script", f"{agent.name} run script", str(folder_of(agent.name) / "run.sh"), label)
    automations.record(agent.name, LAUNCHED, f"{agent.name} launch agent", str(plist_of(agent.name)), label)
    automations.forget_elsewhere(agent.name, f"{settings.data}/")
    return "run script and launch agent"


def _plist(agent: Agent) -> str:
    return str(supervisor.write(label_of(agent.name), _spec(agent)))


def _spec(agent: Agent) -> dict[str, Any]:
    folder = folder_of(agent.name)
    out = str(folder / "logs" / "agent.log")
    return {"ProgramArguments": ["/bin/sh", str(folder / "run.sh")], "StartInterval": agent.interval_sec, "RunAtLoad": True,
            "WorkingDirectory": str(folder), "StandardOutPath": out, "StandardErrorPath": out, "ProcessType": "Standard",
            "ExitTimeOut": 10, "ThrottleInterval": min(10, agent.interval_sec), "Umask": 0o077, "SoftResourceLimits": {"NumberOfFiles": 4096},
            "EnvironmentVariables": {"PATH": search_path(), "LANG": "en_US.UTF-8"}}


def _key(agent: Agent) -> str:
    path = key_file(agent.name)
    if path.exists() and has_key(agent.name):
        return "stands"
    path.parent.mkdir(exist_ok=True, mode=0o700)
    _, raw = keys.issue(agent.tenant_id, f"agent {agent.name}", keys.scopes_of_agent(agent.delegates), agent=agent.name)
    folders.write_whole(path, raw + "\n")
    return str(path)


def rekey(agent: Agent) -> None:
    """Give an agent a new key in its key file; the one before is revoked."""
    keys.drop_agent_key(agent.tenant_id, agent.name)
    key_file(agent.name).unlink(missing_ok=True)
    _key(agent)


def _load(agent: Agent) -> str:
    drop_flag(agent.name)
    load(agent)
    return label_of(agent.name)


def _heartbeat(agent: Agent) -> str:
    change(agent.name, last_heartbeat=now())
    write_file(agent.name, status="idle", note=None)
    return "first sign of life"


def _log(agent: Agent) -> str:
    logs.record(agent.name, f"made: every {agent.interval_sec} s, in {folder_of(agent.name)}")
    log.info("agent %s is made: every %d s, in %s", agent.name, agent.interval_sec, folder_of(agent.name))
    return "written"


HOST_STEPS = (_workspace, _soul, _run_script, _automations, _plist, _key, _load, _heartbeat, _log)


def lay(agent: Agent) -> None:
    """Write an agent's files anew, as they must be here and now: after a change, or after the folder moved."""
    _workspace(agent)
    _run_script(agent)
    _automations(agent)
    _plist(agent)


def lay_missing(agent: Agent) -> None:
    """Write an agent's files where one of them is missing, or is another than it must be."""
    if not stands_here(agent):
        lay(agent)


def stands_here(agent: Agent) -> bool:
    """Whether an agent's files are there, and say what this version writes for this folder, these settings and its row."""
    folder = folder_of(agent.name)
    try:
        same = all(folders.read_plain(folder / name, 1 << 20) == text.encode() for name, text in _texts(agent).items())
    except OSError:
        return False
    return same and plist_of(agent.name).exists() and all((folder / name).is_dir() for name in ("workspace", "logs", "undelivered"))
