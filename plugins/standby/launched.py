"""Launched: pulling as a job of launchd, each minute, for as long as the folder is a copy."""
import plistlib
from pathlib import Path
from typing import Any

from orkosi import HOME, Unprocessable, settings
from plugins import folders, supervisor
from plugins.agents.paths import SEARCHED
from plugins.supervisor import launchd

MINUTE = 60


def plist() -> Path:
    """Where launchd looks for the job."""
    return Path.home() / "Library/LaunchAgents" / f"com.orkosi.{supervisor.folder_hash()}.standby.plist"


def spec() -> dict[str, Any]:
    """What launchd is told: one pull in a minute. A folder that was promoted refuses to be pulled into; `promote` takes it out."""
    log = str(Path.home() / "Library/Logs" / f"{plist().stem}.log")
    return {"Label": plist().stem, "WorkingDirectory": HOME, "RunAtLoad": True, "StartInterval": MINUTE, "ProcessType": "Standard",
            "ProgramArguments": [f"{HOME}/.venv/bin/python", f"{HOME}/orkosi.py", "standby", "pull", "--data", str(settings.data)],
            "Umask": 0o077, "StandardOutPath": log, "StandardErrorPath": log,
            "EnvironmentVariables": {"PATH": SEARCHED, "LANG": "en_US.UTF-8"}}


def install() -> Path:
    """Have launchd pull; its plist. Unprocessable where there is no launchd."""
    if supervisor.driver() is not launchd.driver:
        raise Unprocessable("There is no launchd to have it done: this is no Mac, or nobody is logged in at its screen. Elsewhere, "
                            "have systemd or cron run: standby pull --every 60")
    plist().parent.mkdir(parents=True, exist_ok=True)
    (plist().parent.parent / "Logs").mkdir(parents=True, exist_ok=True)
    folders.write_whole(plist(), plistlib.dumps(spec()).decode())
    launchd.driver.load(plist())
    return plist()


def uninstall() -> None:
    """Take the job out again, where there is one."""
    if plist().exists():
        launchd.driver.unload(plist())
        plist().unlink()
