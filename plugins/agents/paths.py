"""Where an agent's things are, and the small files that speak for it: the stop flag and `state.json`.

Surprise: the stop flag is for the run script alone, so that it can stop without asking anybody; the row is the truth.
"""
import contextlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from orkosi import now, settings
from plugins import folders, supervisor

from .rows import Agent, log, plugin

plugin.setting("agent_path", str, "", "Folders with programs for agents, separated by colons, searched before the usual ones")

SEARCHED = "/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def folder_of(name: str) -> Path:
    """Its folder, with the workspace in it."""
    return settings.data / "agents" / name


def label_of(name: str) -> str:
    """The label of an agent's job; it carries a hash of the data folder."""
    return f"com.orkosi.{supervisor.folder_hash()}.agent.{name}"


def plist_of(name: str) -> Path:
    """The plist of an agent's job."""
    return supervisor.plist_of(label_of(name))


def stop_flag(name: str) -> Path:
    """The file that tells its run script to stop; outside of the data folder, which a person may delete."""
    return Path("/tmp", f"orkosi-{supervisor.folder_hash()}-{name}.stop")


def key_file(name: str) -> Path:
    """The file of its API key, which it alone reads."""
    return settings.data / "keys" / name


def finished(name: str) -> set[int]:
    """The jobs whose result lies in its folder: its next runner delivers that, as long as the lease is its own."""
    found = (re.fullmatch(r"job_(\d{1,18})-\d+\.json", path.name, re.ASCII) for path in (folder_of(name) / "undelivered").glob("job_*.json"))
    return {int(one[1]) for one in found if one}


def brain_mark(name: str) -> str:
    """How a variable begins that all of an agent's brains have in their environment, and nobody else's: where they report."""
    return f"ORKOSI_REPORT={folder_of(name) / 'scratch'}/"


def search_path() -> str:
    """The PATH that agents run with: launchd gives them none."""
    own = str(Path.home() / ".local/bin")  # where the tools of agents install themselves
    return ":".join(filter(None, (str(Path(sys.executable).parent), settings.agent_path, own, SEARCHED)))


# ── the stop flag ──


def put_flag(name: str) -> None:
    """Tell the run script to stop."""
    try:
        os.close(os.open(stop_flag(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
    except OSError as error:  # there already, perhaps somebody else's: the row still says it
        log.debug("stop flag of %s: %s", name, error)


def drop_flag(name: str) -> None:
    """Remove an agent's stop flag, where it is ours to remove."""
    with contextlib.suppress(OSError):
        stop_flag(name).unlink(missing_ok=True)


# ── the state file ──


def read_file(agent: Agent) -> dict[str, Any]:
    """What the agent's `state.json` says; {} where there is none, or nothing readable."""
    if not agent.local:
        return {}
    try:
        found = json.loads(folders.read_plain(folder_of(agent.name) / "state.json", 16384))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_file(name: str, **facts: Any) -> None:
    """Write an agent's `state.json`, whole or not at all; not where its folder is gone, for then nobody is there to read it."""
    with contextlib.suppress(FileNotFoundError):
        folders.write_whole(folder_of(name) / "state.json", json.dumps(facts | {"updated_at": now()}, ensure_ascii=False))
