"""The commands of the service: what puts Orkosi onto a Mac, keeps it there, and brings it to another version."""
import sys
import time
from collections import deque
from pathlib import Path

import click
import msgspec

from orkosi import DATA, HOME, VERSION, NotFound, settings
from plugins import service
from plugins.service import bundle, plugin, upgrade


def _say(sentence: str) -> None:
    click.echo(sentence, err=True)


@plugin.command("install")
@click.option("--daemon", is_flag=True, help="Print what a LaunchDaemon takes, which runs before anybody logs in; nothing is done")
@DATA
def install(daemon: bool, data: Path | None) -> None:
    """Have launchd keep the server running, from now on and after every log-in."""
    settings.load(data=data)
    if daemon:
        return click.echo(_daemon())
    made = service.install()
    return click.echo(f"{made.label} runs version {made.version} at {made.url}; launchd starts it at every log-in")


def _daemon() -> str:
    import getpass
    import plistlib
    spec = service.spec() | {"UserName": getpass.getuser()}
    spec["EnvironmentVariables"] |= {"HOME": str(Path.home()), "ORKOSI_SUPERVISOR": "embedded"}
    path = f"/Library/LaunchDaemons/{service.label()}.plist"
    return (f"# A daemon runs without a session: the server runs the agents itself, and nothing of the log-in keychain is there.\n"
            f"# Put this into {path}, then:\n#   sudo chown root:wheel {path}\n#   sudo launchctl bootstrap system {path}\n"
            + plistlib.dumps(spec).decode())


@plugin.command("uninstall")
@DATA
def uninstall(data: Path | None) -> None:
    """Take the server and its agents out of launchd's care, which ends them; the data stays."""
    settings.load(data=data)
    there, many = service.uninstall()
    click.echo((f"{service.label()} is taken out" if there else "It was not installed") + (
        f", and with it {many} of its agents and workers, which run again with the server" if many else ""))


@plugin.command("service")
@click.argument("action", type=click.Choice(["status", "logs"]))
@click.option("-f", "--follow", is_flag=True, help="logs: go on, until it is interrupted")
@click.option("-n", "--lines", type=click.IntRange(0, 10_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="status: print it as JSON")
@DATA
def of_service(action: str, follow: bool, lines: int, as_json: bool, data: Path | None) -> None:
    """Show how the service is, or what it says: `service status`, `service logs -f`."""
    settings.load(data=data)
    if action == "logs":
        return _logs(lines, follow)
    seen = service.status()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(seen), indent=1).decode())
    else:
        parts = [f"{seen.label}: {'loaded' if seen.loaded else 'not installed'}", f"process {seen.pid}" if seen.pid else "",
                 f"ended with {seen.last_exit} before" if seen.last_exit else "",
                 f"version {seen.version} at {seen.url}" if seen.url else "does not answer"]
        click.echo(", ".join(filter(None, parts)))
    sys.exit(0 if seen.url else 1)


def _logs(lines: int, follow: bool) -> None:
    path = service.log_file()
    if not path.exists():
        raise NotFound(f"There is no {path} yet")
    with open(path, errors="replace") as file:
        for line in deque(file, maxlen=lines):  # read to its end also for none: only what is new is to follow
            click.echo(line, nl=False)
        while follow:
            if not (line := file.readline()):
                time.sleep(0.2)
            click.echo(line, nl=False)


@plugin.command("wheels")
@click.option("--platform", "platforms", multiple=True, type=click.Choice([*bundle.PLATFORMS]), help="Only for these; default: all")
def wheels(platforms: tuple[str, ...]) -> None:
    """Fill `wheels/` with every package for each Python and platform, so that an installation needs no network."""
    found = bundle.fill_wheels(Path(HOME, "wheels"), list(platforms or bundle.PLATFORMS))
    size = sum(path.stat().st_size for path in Path(HOME, "wheels").glob("*.whl"))
    click.echo(f"wheels/ has {len(found)} wheels, {size / 1e6:.1f} MB")


@plugin.command("bundle")
@click.option("--output", type=click.Path(path_type=Path), help="Where it goes; default: orkosi-VERSION.zip here")
def make_bundle(output: Path | None) -> None:
    """Make one zip of code and wheels, with a hash of every file and a list of what it is made of."""
    target = output or Path(f"orkosi-{VERSION}.zip")
    manifest = bundle.make(target)
    many = sum(name.startswith("wheels/") for name in manifest["files"])
    click.echo(f"{target}: version {manifest['version']}, {len(manifest['files'])} files, {many} wheels, {target.stat().st_size / 1e6:.1f} MB")
    if not many:
        _say("It has no wheels, and needs a network where it is installed; first: python3 orkosi.py wheels")


@plugin.command("upgrade")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@DATA
def to_another(file: Path, data: Path | None) -> None:
    """Bring Orkosi to the version in a bundle, or leave it as it was: checked, backed up, swapped, started, seen to be well."""
    settings.load(data=data)
    click.echo(f"Version {upgrade.upgrade(file, _say)} runs now")


@plugin.command("rollback")
@DATA
def to_the_one_before(data: Path | None) -> None:
    """Put the version before the last upgrade in its place again."""
    settings.load(data=data)
    upgrade.rollback(_say)
