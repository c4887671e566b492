"""Service: Orkosi as a service of the Mac - installed, watched, upgraded from a bundle, and put back by itself where that goes wrong.

Owns no table; in the folder of the code it owns `releases/` and what is swapped in an upgrade, and of launchd the server's own job.
Surprise: an upgrade is not done when the files are swapped, but when the new server has said that it is well. Until then, a journal
says how to go back, and whoever comes next - the same command, or the next start - goes back.
"""
import os
import plistlib
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orkosi import HOME, Conflict, Plugin, Struct, Unavailable, Unprocessable, settings
from plugins import supervisor
from plugins.agents.paths import SEARCHED
from plugins.supervisor import launchd
from plugins.supervisor.plist import true_name

plugin = Plugin("Service", layer="views", needs=("agents", "supervisor", "storage", "backups"))
PROTECTED = ("Downloads", "Desktop", "Documents", "Library/Mobile Documents")  # of a home: macOS keeps what launchd starts out of them
# The first Python that is there: .venv may be gone for a moment, and the one that it was made with for good.
STARTER = """for python in "$0/.venv/bin/python" "$2" /opt/homebrew/bin/python3 /usr/local/bin/python3 /usr/bin/python3; do
  [ -x "$python" ] && exec "$python" "$0/orkosi.py" serve --data "$1"
done
exit 78"""
READY = 60.0  # seconds that a server has to say that it is well
STARTS = 3    # of a server that ends each time, until it is not waited for any longer


class Installed(Struct):
    """The service, and how it is. `process` is what launchd says."""
    label: str
    plist: str
    loaded: bool
    pid: int | None
    last_exit: int | None
    url: str | None
    version: str | None


def label() -> str:
    """The service's name at launchd: one for each data folder."""
    return f"com.orkosi.{supervisor.folder_hash()}.server"


def plist() -> Path:
    """Where launchd looks for it at log-in."""
    return Path.home() / "Library/LaunchAgents" / f"{label()}.plist"


def spec() -> dict[str, Any]:
    """What launchd is told of the server."""
    log = str(Path.home() / "Library/Logs" / f"{label()}.log")
    program = ["/bin/sh", "-c", STARTER, HOME, str(settings.data), sys._base_executable]  # type: ignore[attr-defined]
    return {"Label": label(), "ProgramArguments": program, "WorkingDirectory": HOME, "RunAtLoad": True, "KeepAlive": True,
            "ThrottleInterval": 10, "ExitTimeOut": 30, "Umask": 0o077,
            "ProcessType": "Interactive", "SoftResourceLimits": {"NumberOfFiles": 8192}, "StandardOutPath": log, "StandardErrorPath": log,
            "EnvironmentVariables": {"PATH": ":".join(filter(None, (settings.agent_path, SEARCHED))), "LANG": "en_US.UTF-8"} | _kept()}


def _kept() -> dict[str, str]:
    """What was said on the way in, and must hold at every start: settings in the environment, but for secrets."""
    return {f"ORKOSI_{name.upper()}": os.environ[f"ORKOSI_{name.upper()}"] for name, one in settings.known.items()
            if f"ORKOSI_{name.upper()}" in os.environ and not one.secret and name != "data"}


def install() -> Installed:
    """Have launchd keep the server running, now and after every log-in; again changes what has changed. Unprocessable, Unavailable."""
    _may_install()
    path = plist()
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent.parent / "Logs").mkdir(parents=True, exist_ok=True)
    text = plistlib.dumps(spec())
    if not path.exists() or path.read_bytes() != text:
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_bytes(text)
        fresh.chmod(0o600)
        fresh.replace(path)
    launchd.driver.load(path)
    wait_until_well()
    return status()


def _may_install() -> None:
    if supervisor.driver() is not launchd.driver:
        raise Unprocessable("There is no launchd to look after it: this is no Mac, or nobody is logged in at its screen. "
                            f"Elsewhere, have systemd run: {HOME}/.venv/bin/python {HOME}/orkosi.py serve --data {settings.data}")
    for folder in (Path(HOME), settings.data):
        if place := protected(folder):
            raise Unprocessable(f"{folder} is in {place}, where macOS lets nothing in that launchd starts; "
                                "move the whole folder, for instance to ~/orkosi")
    if not Path(HOME, ".venv/bin/python").exists():
        raise Unprocessable("There is no .venv beside orkosi.py; start Orkosi once by hand: python3 orkosi.py serve")
    if running() and not launchd.driver.status(plist()).pid:
        raise Conflict(f"A server that nobody looks after serves {settings.data}; stop it first")


def protected(folder: Path) -> str:
    """Which of the places that macOS guards a folder is in, under whatever name; "" for none."""
    real = Path(true_name(folder))
    return next((place for place in PROTECTED if Path(true_name(Path.home() / place)) in [real, *real.parents]), "")


@plugin.on("serving")
def greet(event: str, folder: Path, *, say: Callable[[str], None] = lambda line: None, **facts: Any) -> None:
    """Say at the start what would go wrong later: agents that launchd starts find nothing in such a place."""
    if sys.platform == "darwin" and (place := protected(folder)):
        say(f"{folder} is in {place}, where macOS lets nothing in that launchd starts: agents will not run. "
            "Move the whole folder, for instance to ~/orkosi")


def uninstall() -> tuple[bool, int]:
    """Take the server and all that it started out of launchd's care, which ends them; whether it was there, and how many were. The data stays.

    Agents first, while the server can take their jobs back; it starts them anew, once it runs again.
    """
    ours = sorted((settings.data / "jobs").glob(f"com.orkosi.{supervisor.folder_hash()}.*.plist"))
    loaded = [path for path, found in zip(ours, launchd.driver.statuses(ours), strict=True) if found.loaded]
    for path in loaded:
        launchd.driver.unload(path)
    launchd.driver.unload(plist())
    for path, found in zip(ours, launchd.driver.statuses(ours), strict=True):
        if found.loaded:  # the server thought that it had to run
            launchd.driver.unload(path)
    there = plist().exists()
    plist().unlink(missing_ok=True)
    return there, len(loaded)


def status() -> Installed:
    """What launchd and the server itself say."""
    seen, url = launchd.driver.status(plist()), running()
    return Installed(label(), str(plist()), seen.loaded, seen.pid, seen.last_exit, url or None, version_of(url) if url else None)


def log_file() -> Path:
    """Where launchd writes what the server says."""
    return Path(str(spec()["StandardOutPath"]))


# ── the server, from outside ──


def running() -> str:
    """The address of the server of this data folder that answers; "" where none does."""
    try:
        url = (settings.data / "server.url").read_text().strip()
        _get(f"{url}/api/health")
        return url
    except (OSError, ValueError):
        return ""


def version_of(url: str) -> str:
    """Which version answers there."""
    import json
    found: str = json.loads(_get(f"{url}/api/version"))["data"]["version"]
    return found


def _get(url: str) -> bytes:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
        raw: bytes = answer.read()
        return raw


def wait_until_well(version: str | None = None) -> str:
    """Wait until a server answers, of that version where one is named; its address.

    Unavailable, with the end of its log, after a minute, or once launchd has seen it end three times: it would end each time.
    """
    end, looked, first = time.monotonic() + READY, 0.0, launchd.driver.runs(plist())
    fault = f"did not say that it is well within {READY:.0f} s"
    while time.monotonic() < end:
        if (url := running()) and version in (None, version_of(url)):
            return url
        if time.monotonic() - looked > 1:
            runs, seen, looked = launchd.driver.runs(plist()), launchd.driver.status(plist()), time.monotonic()
            if not seen.pid and seen.last_exit and runs >= first + STARTS - 1:
                fault = f"ended {STARTS} times, the last time with {seen.last_exit}"
                break
        time.sleep(0.2)
    try:
        said = log_file().read_text(errors="replace").strip().splitlines()[-3:]
    except OSError:
        said = []
    raise Unavailable(f"The server {fault}" + (f"; its log ends: {' / '.join(said)}" if said else ""))


from . import commands as commands  # noqa: E402  # the last line: it uses what is above
