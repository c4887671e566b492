"""Off the machine: the kept backups on a branch of a git remote, sealed as they are.

Owns `offsite/` in the data folder: a bare repository, and what was pushed last. A backup is cut into pieces of 50 MB, which every host
takes. The branch has one commit without a parent and is rewritten each time, so that the remote holds what is kept and no more.
What others pushed there is kept, too: of a machine that was lost, or of another company, it may be all that is left.
Surprise: git reads no configuration but ours, runs no hook, and never asks: a remote that wants a password is one that fails.
"""
import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from orkosi import Invalid, Struct, Unavailable, now, seconds, settings
from plugins import folders, queue

from . import NAME, Backup, Order, counting, everything, log, making, note, plugin, retained

PIECE = 50 << 20
SHOWN = 100  # lines of the log
PATIENCE = 3600.0  # seconds that a push may take
LOOK = 15.0  # seconds that the remote has to say what it has
INDEX = "index.json"


class Latest(Struct):
    """The newest backup that the remote has."""
    filename: str
    committed_at: str


class Other(Struct):
    """A backup that the remote has, as its index tells it. `tree`: the folder of its pieces."""
    filename: str
    size: int
    sha256: str | None
    created_at: str
    tree: str = ""


class Remote(Struct):
    """What the remote has, and what it should have. `remote` is without credentials."""
    configured: bool
    remote: str | None = None
    branch: str | None = None
    latest: Latest | None = None
    local_latest: str | None = None
    in_sync: bool | None = None
    behind: int | None = None
    last_pushed_at: str | None = None
    last_error: str | None = None


def folder() -> Path:
    """Where the repository is."""
    return settings.data / "offsite"


def state() -> dict[str, Any]:
    """What was pushed last, and what went wrong since."""
    try:
        found = json.loads(folders.read_plain(folder() / "state.json", 1 << 20))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _note(**facts: Any) -> None:
    folder().mkdir(exist_ok=True, mode=0o700)
    folders.write_whole(folder() / "state.json", json.dumps(state() | facts))


# ── its log ──


def log_file() -> Path:
    """The log of pushes: a file like any other, which is in the list of logs, too."""
    return settings.data / "logs" / "offsite_backup.log"


def lines() -> list[str]:
    """The last lines of that log, oldest first."""
    try:
        with open(folders.open_plain(log_file()), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - (64 << 10)))
            return file.read().decode(errors="replace").splitlines()[-SHOWN:]
    except OSError:
        return []


def _say(sentence: str) -> None:
    log_file().parent.mkdir(exist_ok=True, mode=0o700)
    with os.fdopen(folders.open_plain(log_file(), os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a") as file:
        file.write(f"{now()} {sentence}\n")


# ── git ──


def public(url: str) -> str:
    """A remote's address without the name and password in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.scheme and parts.netloc else url


def git(place: Path, *arguments: str, stdin: Any = None, patience: float = PATIENCE) -> str:
    """Run git in a repository, with nobody's configuration; what it printed. Unavailable in git's words."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "ORKOSI_"))} | {
        "GIT_DIR": str(place), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false", "SSH_ASKPASS": "/bin/false", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=10", "LC_ALL": "C",
        "GIT_AUTHOR_NAME": "Orkosi", "GIT_AUTHOR_EMAIL": "orkosi@localhost", "GIT_COMMITTER_NAME": "Orkosi",
        "GIT_COMMITTER_EMAIL": "orkosi@localhost"}
    safe = ["-c", "core.hooksPath=/dev/null", "-c", "core.compression=0", "-c", "core.bigFileThreshold=1m", "-c", "gc.auto=0",
            "-c", "protocol.ext.allow=never", "-c", "credential.helper=", "-c", "core.fsmonitor=false"]
    try:
        done = subprocess.run(["git", *safe, *arguments], env=environment, stdin=stdin if stdin is not None else subprocess.DEVNULL,
                              capture_output=True, timeout=patience)
    except FileNotFoundError:
        raise Unavailable("git is not installed; on a Mac: xcode-select --install") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"git {arguments[0]} took longer than {patience:.0f} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or f"git {arguments[0]} ended with {done.returncode}"
        raise Unavailable(_without_secret(said)[-500:])
    return done.stdout.decode(errors="replace").strip()


def _without_secret(text: str) -> str:
    for url in {settings.backup_remote, *re.findall(r"\w+://\S+", text)} - {""}:
        text = text.replace(url, public(url))
    return text


def _require_remote() -> str:
    url: str = settings.backup_remote
    if url.startswith("-") or "\0" in url or "\n" in url:
        raise Invalid("backup_remote is no address of a git remote")
    return url


def repository() -> Path:
    """Our own bare repository, made where there is none."""
    place = folder() / "repository.git"
    if not (place / "HEAD").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True, mode=0o700)
        git(place, "init", "--bare", "--quiet")
    return place


# ── pushing ──


def ask(newest: str) -> None:
    """Have the backups pushed soon, where there is a remote; once for each that was made, however often its job is tried."""
    if settings.backup_remote:
        queue.later("backups.push", {"filename": newest}, key=f"push:{newest}", attempts=5, timeout=900)


@plugin.job("backups.push")
def _push(order: Order) -> str:
    """Push what is kept. A remote that fails is logged, shown, and tried again; it holds nothing else up."""
    if not settings.backup_remote:
        return ""
    try:
        sha = push()
    except (Unavailable, Invalid) as problem:
        _say(f"ERROR the push to {public(settings.backup_remote)} failed: {' '.join(problem.message.split())}")
        _note(error=problem.message, failed_at=now())
        for one in everything():
            if one.offsite == "pending":
                note(one.filename, offsite="failed")
        raise
    return sha


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """One push at a time, here or in another process: whoever comes later waits. One would prune what another is about to push."""
    folder().mkdir(exist_ok=True, mode=0o700)
    turn = os.open(folder(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield
    finally:
        os.close(turn)


def push() -> str:
    """Make the remote's branch hold the kept backups, and those of others; the commit. Unavailable in git's words, Invalid where none are there."""
    with _turn():
        return _pushed()


def _pushed() -> str:
    url, own = _require_remote(), repository()
    kept = [one for one in everything() if one.encrypted and one.verification == "ok"]
    if not kept:
        return ""
    head, branch = _head(url, PATIENCE), f"refs/heads/{settings.backup_branch}"
    others = _others(own, url, head, kept)
    commit = _commit(own, kept, others)
    git(own, "push", f"--force-with-lease={branch}:{head}", "--quiet", url, f"{commit}:{branch}")  # not over what came since it was looked at
    git(own, "update-ref", "refs/heads/kept", commit)
    git(own, "prune", "--expire=now")
    _note(sha=commit, filename=kept[0].filename, pushed_at=now(), error=None, others=[msgspec.to_builtins(one) for one in others])
    for one in kept:
        note(one.filename, offsite="pushed")
    total = sum(one.size_bytes for one in kept)
    _say(f"pushed {len(kept)} backups, {total / 1e6:.1f} MB, the newest {kept[0].filename}, to {public(url)}")
    log.info("backups pushed to %s: %d, the newest %s", public(url), len(kept), kept[0].filename)
    return commit


def _commit(repository: Path, kept: list[Backup], others: list[Other]) -> str:
    """One commit without a parent: an index, and for each backup a folder of its pieces."""
    trees = {one.filename: _tree_of(repository, one) for one in kept}
    _note(trees={one.filename: [one.sha256, trees[one.filename]] for one in kept})
    own = [Other(one.filename, one.size_bytes, one.sha256, one.created_at, trees[one.filename]) for one in kept]
    listed = sorted(own + others, key=lambda one: (one.created_at, one.filename), reverse=True)
    index = json.dumps([{"filename": one.filename, "size": one.size, "sha256": one.sha256, "created_at": one.created_at} for one in listed], indent=1)
    entries = [f"100644 blob {_blob(repository, index.encode())}\t{INDEX}", *(f"040000 tree {one.tree}\t{one.filename}" for one in listed)]
    return git(repository, "commit-tree", tree(repository, entries), "-m", f"{listed[0].filename}, and {len(listed) - 1} older")


def _others(repository: Path, url: str, head: str, kept: list[Backup]) -> list[Other]:
    """What the remote has that this machine did not make: as it was known at the last push, or fetched where somebody else has pushed since."""
    if not head:
        return []
    known = state()
    if head == known.get("sha") and "others" in known:
        found = [msgspec.convert(one, Other) for one in known["others"]]
        if all(_there(repository, one.tree) for one in found):
            return _retained(found)
    git(repository, "fetch", "--quiet", "--depth=1", "--no-tags", "--", url, f"refs/heads/{settings.backup_branch}")
    ours = {one.filename for one in kept} | known.get("trees", {}).keys()  # what was pushed from here, and is here no more, was deleted
    return _retained([one for one in _indexed(repository, url) if one.filename not in ours])


def _indexed(repository: Path, url: str) -> list[Other]:
    """The backups in what was fetched. Invalid where it holds something else."""
    listed = git(repository, "ls-tree", "FETCH_HEAD").splitlines()
    trees = {name: facts.split()[2] for facts, _, name in (line.partition("\t") for line in listed) if " tree " in facts}
    try:
        found = msgspec.json.decode(git(repository, "show", f"FETCH_HEAD:{INDEX}"), type=list[Other])
        good = all(NAME.fullmatch(one.filename) and seconds(one.created_at) for one in found)
    except (Unavailable, msgspec.MsgspecError, ValueError):
        good = False
    if not good:
        raise Invalid(f"The branch {settings.backup_branch} of {public(url)} holds something other than backups, which a push would destroy; "
                      "set backup_branch to another name, or backup_remote to an empty repository")
    return [msgspec.structs.replace(one, tree=trees[one.filename]) for one in found if one.filename in trees]


def _retained(others: list[Other]) -> list[Other]:
    """Those that the rules of this machine keep. Each is told by its own kind: ours push out nobody else's, who may be of another vault."""
    made = {one.filename: Backup(one.filename, "scheduled", one.size, one.created_at, one.sha256, None, None, [], True, None, "ok", "pushed")
            for one in others if one.filename.endswith("-scheduled.backup")}
    stays = retained(sorted(made.values(), key=lambda one: one.place, reverse=True))
    return [one for one in others if one.filename not in made or one.filename in stays]


def _there(repository: Path, object: str) -> bool:
    """Whether our own repository has it."""
    try:
        git(repository, "cat-file", "-e", object)
    except Unavailable:
        return False
    return True


def _tree_of(repository: Path, one: Backup) -> str:
    """The folder of a backup's pieces; the one of the last push, where it is still the same file."""
    sha256, known = state().get("trees", {}).get(one.filename, (None, ""))
    if known and sha256 == one.sha256 and _there(repository, known):
        return str(known)
    return tree(repository, [f"100644 blob {_blob(repository, piece)}\t{number:05}"
                              for number, piece in enumerate(_pieces(making.folder() / one.filename))])


def _pieces(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            yield piece


def _blob(repository: Path, raw: bytes) -> str:
    return _fed(repository, raw, "hash-object", "-w", "--stdin")


def tree(repository: Path, lines: list[str]) -> str:
    """A folder in the repository, of such lines as `git mktree` takes; its name."""
    return _fed(repository, "".join(f"{line}\n" for line in lines).encode(), "mktree")


def _fed(repository: Path, raw: bytes, *arguments: str) -> str:
    with tempfile.TemporaryFile(dir=repository) as file:  # without a name; a pipe would have to be fed while git is read
        file.write(raw)
        file.seek(0)
        return git(repository, *arguments, stdin=file)


# ── what is there ──


def status() -> Remote:
    """What the remote says that it has, beside what is here. A remote that does not answer is told in `last_error`."""
    if not settings.backup_remote:
        return Remote(False)
    own, known = counting(everything()), state()  # one that cannot be restored is never pushed
    found = Remote(True, public(settings.backup_remote), settings.backup_branch, local_latest=own[0].filename if own else None,
                   behind=sum(one.offsite != "pushed" for one in own), last_pushed_at=known.get("pushed_at"), last_error=known.get("error"))
    try:
        head = _head(_require_remote())
    except (Unavailable, Invalid) as problem:
        found.last_error, found.in_sync = problem.message, False
        return found
    if head and head == known.get("sha"):
        found.latest = Latest(known["filename"], known["pushed_at"])
    elif head:
        found.last_error = f"The branch was rewritten by somebody else: it is at {head[:12]}; the next push keeps what it has"
    found.in_sync = bool(found.latest and own and found.latest.filename == own[0].filename and not found.behind)
    return found


def _head(url: str, patience: float = LOOK) -> str:
    """The commit that the remote's branch is at; "" where it has none."""
    return git(Path(os.devnull), "ls-remote", url, f"refs/heads/{settings.backup_branch}", patience=patience).partition("\t")[0]


def fetch(url: str, place: Path, name: str | None = None) -> Path:
    """Fetch a backup from a remote into a folder: the newest, or the one of that name; its file. Unavailable, Invalid."""
    repository = place / "repository.git"
    repository.mkdir(parents=True)
    git(repository, "init", "--bare", "--quiet")
    git(repository, "fetch", "--quiet", "--depth=1", "--", url, f"refs/heads/{settings.backup_branch}")
    found = json.loads(git(repository, "show", f"FETCH_HEAD:{INDEX}"))
    chosen = next((one for one in found if name in (None, one["filename"])), None)
    if chosen is None:
        raise Invalid(f"The remote has no {name}; it has {', '.join(one['filename'] for one in found)}")
    path = place / str(chosen["filename"]).replace("/", "_")
    pieces = git(repository, "ls-tree", "--name-only", f"FETCH_HEAD:{chosen['filename']}").splitlines()
    with open(path, "xb") as file:
        for piece in sorted(pieces):
            with subprocess.Popen(["git", "cat-file", "blob", f"FETCH_HEAD:{chosen['filename']}/{piece}"], stdout=subprocess.PIPE,
                                  env={"GIT_DIR": str(repository), "PATH": os.environ.get("PATH", "")}) as reading:
                assert reading.stdout
                shutil.copyfileobj(reading.stdout, file, 1 << 20)
    if path.stat().st_size != chosen["size"]:
        raise Unavailable(f"{chosen['filename']} came from the remote with {path.stat().st_size} of {chosen['size']} bytes")
    return path
