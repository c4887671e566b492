"""Health: is it alive, is it ready, and what do the parts say of themselves.

Owns no table. Surprise: the health checks of every plugin are asked one by one; one that
raises is reported as failed and never takes the others with it.
"""
import time

from orkosi import Check, Plugin, db, plugins

plugin = Plugin("Health", layer="views")
STARTED = time.monotonic()


def alive() -> bool:
    """Whether the database answers."""
    return db.value("SELECT count(*) FROM tenants") is not None


def uptime() -> int:
    """Seconds since this process started."""
    return int(time.monotonic() - STARTED)


def checks() -> dict[str, Check]:
    """What every plugin's checks found, by name."""
    found = {}
    for one in plugins.values():
        for name, ask in one.checks.items():
            try:
                found[name] = ask()
            except Exception as error:
                found[name] = Check(False, f"{type(error).__name__} while checking")
    return found
