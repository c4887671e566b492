"""The commands of backups. `backup` works beside a running server and without one; `restore` needs that none runs."""
import contextlib
import getpass
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from orkosi import DATA, Invalid, NotFound, Unavailable, acting, settings, system
from plugins import backups, folders, storage
from plugins.backups import apart, epochs, making, offsite, plugin, restoring, sealed
from plugins.vault import master


@contextlib.contextmanager
def _opened() -> Iterator[None]:
    storage.must_be_there()
    storage.open_data()
    try:
        with acting(system()):
            yield
    finally:
        storage.close_data()


@plugin.command("backup")
@click.argument("action", type=click.Choice(["create", "list", "verify", "delete", "push"]))
@click.argument("filename", required=False)
@click.option("--json", "as_json", is_flag=True, help="list: print what the API answers")
@click.option("--kind", type=click.Choice(["manual", "scheduled"]), default="manual", hidden=True)
@click.option("--gently", is_flag=True, help="Have everything else on this machine go first")
@DATA
def backup(action: str, filename: str | None, as_json: bool, kind: str, gently: bool, data: Path | None) -> None:
    """Make, list, verify, delete or push backups: `backup create`, `backup verify FILENAME`."""
    settings.load(data=data)
    if gently:
        apart.give_way()
    if action in ("verify", "delete") and not filename:
        raise Invalid(f"Say which: backup {action} FILENAME; backup list shows them")
    with _opened():
        if action == "list":
            return _listed(as_json)
        if action == "create":
            filename = _created(filename, kind)
        if action in ("create", "verify"):
            return _verified(filename or "")
        if action == "push":
            return click.echo(f"The remote has commit {offsite.push()[:12]}" if settings.backup_remote else "There is no backup_remote")
        for warning in backups.delete(filename or ""):
            click.echo(f"orkosi: {warning}", err=True)
    return click.echo(f"{filename} is deleted")


def _listed(as_json: bool) -> None:
    found = backups.everything()
    if as_json:
        return click.echo(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    for one in found:
        click.echo(f"{one.filename:45} {one.size_bytes:>14,}  {one.created_at}  {one.verification:8} {one.offsite}")
    return None


def _created(name: str | None, kind: str) -> str:
    if name and not backups.NAME.fullmatch(name):
        raise Invalid(f"{name[:100]!r} is no name for a backup; leave it out")
    made = making.make(name or (lambda: backups.fresh_name("manual")), kind)
    name = str(made["filename"])
    backups.note(name, sha256=made["sha256"], size=made["size"], verification="pending", verified_at=None, offsite="pending")
    click.echo(f"{name}: {made['size']:,} bytes")
    return name


def _verified(name: str) -> None:
    if not backups.prove(name):
        raise sealed.Damaged(f"{name} cannot be restored: {backups.noted(name).get('reason')}")
    click.echo(f"{name} was restored for a trial: it is whole, and its vault opens")


@plugin.command("restore")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--remote", help="A git remote that backups were pushed to; FILE is then a name there, or left out for the newest")
@click.option("--recovery-key-stdin", is_flag=True, help="Read the vault's recovery key from standard input, where this machine has no key file")
@click.option("--yes", is_flag=True, help="Do not ask")
@DATA
def restore(file: Path | None, remote: str | None, recovery_key_stdin: bool, yes: bool, data: Path | None) -> None:
    """Put a backup in the place of the data folder: `restore FILE`, or `restore --remote URL`.

    FILE is a path, or the name of a backup in the folder. The folder that it replaces is kept beside. No server may run.
    """
    settings.load(data=data)
    with folders.explained("Nothing was restored"), storage.held(), tempfile.TemporaryDirectory(prefix="orkosi-restore-") as scratch:
        if remote:
            click.echo(f"Fetching from {offsite.public(remote)} ...", err=True)
        if (left := restoring.heal(Path(os.path.realpath(settings.data)))) is not None:  # before FILE is looked for, which may be in there
            click.echo(f"orkosi: A restore was interrupted; the folder that it replaced is kept: {left}", err=True)
        path = offsite.fetch(remote, Path(scratch), str(file) if file else None) if remote else _file(file)
        with open(path, "rb") as raw:
            header = sealed.read_header(raw)
        kek = recovered(header["kek_id"], recovery_key_stdin)
        if not yes and settings.data.exists() and not click.confirm(f"Put {path.name} of {header['created_at']} in the place of {settings.data}?"):
            return click.echo("Nothing was done")
        kept = _restored(path, kek)
        _adopt(remote or settings.backup_remote)
    click.echo(f"{settings.data} is as it was at {header['created_at']}: {header['rows']:,} rows" + (f". What it replaced: {kept}" if kept else ""))
    return click.echo("Agents get new keys when the server starts: python3 orkosi.py serve")


def _adopt(remote: str) -> None:
    """Take the epoch that the remote knows, so that what was restored on purpose is not held for one that was superseded."""
    if remote:
        try:
            epochs.keep(settings.data, epochs.of_remote(remote))
        except Unavailable as problem:
            click.echo(f"orkosi: the remote does not say which epoch it knows: {problem.message}", err=True)


def _file(file: Path | None) -> Path:
    if file is None:
        raise Invalid("Say what to restore: restore FILE, or restore --remote URL")
    found = next((path for path in (file, making.folder() / file.name) if path.is_file()), None)
    if found is None:
        raise NotFound(f"There is no backup {file}, here or in {making.folder()}")
    return found


def recovered(kek_id: str, from_stdin: bool) -> bytes | None:
    """The master key where it must be typed; None where this machine has it. Sealed, Invalid."""
    if not from_stdin:
        try:
            master.find(kek_id)
            return None
        except master.Sealed:
            if not sys.stdin.isatty():
                raise
    kek = master.from_recovery(sys.stdin.readline() if from_stdin else getpass.getpass("Recovery key: "))
    if master.id_of(kek) != kek_id:
        raise Invalid("That recovery key is of another vault than the one this backup was made with")
    return kek


def _restored(path: Path, kek: bytes | None) -> Path | None:
    data = Path(os.path.realpath(settings.data))  # a link stays, and leads to what is restored, on the disk that it leads to
    with click.progressbar(length=100, label="Restoring", file=sys.stderr) as bar:
        def told(done: int, of: int) -> None:
            bar.update(int(100 * done / max(of, 1)) - bar.pos)
        place = restoring.stage(path, data, kek, told)
    if kek is not None:
        master.keep(kek)
    return restoring.put_in_place(place, data)
