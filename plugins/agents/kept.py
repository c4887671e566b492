"""What is kept of each run of an agent of this machine: what its brain was told, and what it said, in `agents/<name>/runs/<run>/`.

Owns these folders. Surprise: brains can write there, too. Nothing is read through a link, and what is read says nothing that is trusted.
"""
import codecs
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any, Literal

from orkosi import Conflict, NotFound, Struct, now, seconds, settings
from plugins import folders, queue

from .paths import folder_of
from .rows import everyone, log, plugin, seek
from .runs import Run, find

LAST = 4  # the priority of a replay: after that of every task
REPLAY = "replay"        # the type of a job that does a run again
MOST_READ = 256 << 10    # bytes that one answer shows
MOST_INPUT = 16 << 20
SHOWN = ("ORKOSI_", "LC_", "PATH", "HOME", "LANG", "TZ", "TMPDIR", "SHELL", "USER", "LOGNAME", "PWD")  # of an environment; the rest may be secret

plugin.setting("run_output_mb", int, 64, "How much of each of a brain's two outputs is kept with its run, in MB")
plugin.setting("run_keep_days", int, 14, "For how many days what a run was told and said is kept")
plugin.setting("run_keep_mb", int, 1024, "How much of that is kept of each agent at most, in MB")


class Output(Struct):
    """A piece of what a brain said. `size` bytes are kept of `bytes` that it wrote; `next_offset` is null at the end of a run that is over."""
    run_id: int
    stream: Literal["stdout", "stderr"]
    offset: int
    next_offset: int | None
    size: int
    bytes: int
    text: str


def folder_of_run(agent: str, run: int) -> Path:
    """Where a run's things are kept."""
    return folder_of(agent) / "runs" / str(run)


# ── the runner's side ──


def keep_input(agent: str, run: int, told: dict[str, Any], environment: dict[str, str], secret: frozenset[str]) -> Path | None:
    """Keep what a brain is told; its folder, and None where the disk does not take it. Values of `secret` variables are not written."""
    shown = {name: f"[{name}]" if name in secret else value if name.startswith(SHOWN) else "…" for name, value in sorted(environment.items())}
    folder = folder_of_run(agent, run)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folders.write_whole(folder / "input.json", json.dumps({"told": told, "environment": shown}, ensure_ascii=False))
    except OSError:
        return None
    return folder


def input_of(agent: str, run: int) -> dict[str, Any]:
    """What a run's brain was told. OSError, ValueError."""
    with folders.opened(settings.data, f"agents/{agent}/runs/{run}") as folder:
        if folder is None:
            raise FileNotFoundError(f"run {run}")
        with folders.regular("input.json", folder) as found:
            if found is None:
                raise FileNotFoundError(f"run {run}")
            return dict(json.loads(os.read(found[0], MOST_INPUT)))


# ── the server's side ──


def output(id: int, stream: Literal["stdout", "stderr"], offset: int, limit: int) -> Output:
    """A piece of what a run's brain said, from a byte on; whole characters. NotFound where nothing is kept of it."""
    run = find(id)
    with folders.opened(settings.data, f"agents/{run.agent}/runs/{id}") as folder:
        if folder is not None and is_here(run.agent):
            with folders.regular(stream, folder) as found:
                if found is not None:
                    raw = os.pread(found[0], min(limit, MOST_READ), offset)
                    return _piece(run, stream, offset, raw, found[1].st_size)
    raise NotFound(f"Nothing is kept of what run {id} wrote to {stream}: it ran elsewhere, is older than {settings.run_keep_days} days, "
                   "or had to make room")


def _piece(run: Run, stream: Literal["stdout", "stderr"], offset: int, raw: bytes, size: int) -> Output:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(raw, final=offset + len(raw) >= size)
    after = offset + len(raw) - len(decoder.getstate()[0])  # not within a character
    written = run.stdout_bytes if stream == "stdout" else run.stderr_bytes
    return Output(run.id, stream, offset, None if after >= size and run.finished_at else after, size, max(written, size), text)


def is_here(agent: str) -> bool:
    """Whether an agent of this tenant lives on this machine."""
    found = seek(agent)
    return found is not None and found.local


def replay(id: int) -> queue.Job:
    """Let a run's agent do it again, told the same; the job for it. Its task does not move. NotFound, Conflict where that is not kept."""
    run = find(id)
    try:
        if not is_here(run.agent):
            raise FileNotFoundError
        input_of(run.agent, id)
    except (OSError, ValueError):
        raise Conflict(f"What run {id} was told is not kept: it ran elsewhere, or is older than {settings.run_keep_days} days; "
                       "set its task to todo instead") from None
    job, _ = queue.submit(f"agent:{run.agent}", REPLAY, {"run_id": id}, priority=LAST)
    return job


@plugin.every("1h")
def prune() -> None:
    """Forget what is kept of old runs, and of the oldest where an agent's take up too much."""
    oldest = seconds(now()) - 86400 * settings.run_keep_days
    for agent in everyone():
        if agent.local:
            _prune(folder_of(agent.name) / "runs", oldest, settings.run_keep_mb << 20)


def _prune(folder: Path, oldest: float, most: int) -> None:
    if folder.is_symlink() or not folder.is_dir():
        return
    kept = []
    for name in os.listdir(folder):
        path = folder / name
        try:
            info = path.lstat()
            sizes = sum(one.lstat().st_size for one in path.iterdir()) if stat.S_ISDIR(info.st_mode) else info.st_size
        except OSError:
            continue
        kept.append((info.st_mtime, sizes, path))
    for changed, size, path in sorted(kept, reverse=True):
        most -= size
        if changed < oldest or most < 0:
            log.info("what was kept of a run is removed: %s", path)
            shutil.rmtree(path, ignore_errors=True)
