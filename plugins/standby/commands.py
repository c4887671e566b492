"""The commands of the standby; `offer`, `send` and `supersede` are what it asks the other machine, by ssh."""
import json
import os
import socket
import sys
import time
from pathlib import Path

import click
import msgspec

from orkosi import DATA, Invalid, Problem, settings
from plugins import storage
from plugins.backups import epochs
from plugins.backups.commands import recovered

from . import MARK, PULLED, launched, mark, plugin, pulling, supersede, superseded_by, taking
from .source import Source, note_pull, offer, send

ACTIONS = ("pull", "promote", "status", "forget", "offer", "send", "supersede")


@plugin.command("standby")
@click.argument("action", type=click.Choice(ACTIONS))
@click.argument("source", required=False)
@click.option("--every", type=click.FloatRange(min=1), help="pull: go on, once in so many seconds, until it is interrupted or promoted")
@click.option("--ssh", default="ssh", help="pull: the program to reach the other machine with; it needs a key that asks for nothing")
@click.option("--install", is_flag=True, help="pull: have launchd do so each minute, from now on and after every log-in")
@click.option("--anyway", is_flag=True, help="promote: also where the old one could not be told; be sure that it is off")
@click.option("--recovery-key-stdin", is_flag=True, help="promote: read the vault's recovery key from standard input")
@click.option("--by", default="", hidden=True)
@click.option("--last", default="", hidden=True)
@click.option("--into", default="", hidden=True)
@click.option("--epoch", type=int, default=0, hidden=True)
@DATA
def standby(action: str, source: str | None, every: float | None, ssh: str, install: bool, anyway: bool, recovery_key_stdin: bool,
            data: Path | None, **asked: str | int) -> None:
    """Keep a copy on a second machine, and have it take over: there, `standby pull HOST:orkosi --every 60`; later, `standby promote`."""
    settings.load(data=data)
    if action == "pull":
        _pull(source, ssh, None if install else every)
        if install:
            click.echo(f"{launched.install().stem}: launchd has this pulled each minute")
    elif action == "promote":
        def key(kek_id: str) -> bytes | None:
            return recovered(kek_id, recovery_key_stdin) if kek_id else None
        epoch = taking.promote(key, anyway, lambda line: click.echo(line, err=True))
        launched.uninstall()
        click.echo(f"{settings.data} serves from now on (epoch {epoch}): python3 orkosi.py serve")
    elif action == "status":
        _status()
    elif action == "forget":
        (settings.data / PULLED).unlink(missing_ok=True)
        click.echo("Who made copies of this is forgotten")
    else:
        _answer(action, asked)


def _pull(place: str | None, ssh: str, every: float | None) -> None:
    known = mark(settings.data)
    if not place and not known.get("of"):
        raise Invalid("Say of what: standby pull HOST:orkosi, or the path of a folder")
    source = Source(place or known["of"], ssh if place else known.get("ssh", ssh))
    while True:
        began = time.monotonic()
        try:
            done = pulling.pull(source)
            said = f"{', '.join(done.databases) or 'no database'}, {done.files} files, {done.removed} taken away, in {done.seconds:.2f} s"
            click.echo(f"{settings.data} is what {source.name} is: {said}")
            if warning := pulling.warning(done):
                click.echo(f"orkosi: {warning}", err=True)
        except Problem as problem:
            if every is None or not (settings.data / MARK).exists():
                raise
            click.echo(f"orkosi: {problem.message}", err=True)  # the other machine is off, or between two networks: the next time
        if every is None:
            return
        time.sleep(max(0.0, every - (time.monotonic() - began)))


def _status() -> None:
    copied, pulled, newer = mark(settings.data), epochs.facts(settings.data, PULLED), superseded_by(settings.data)
    click.echo(f"epoch {epochs.of(settings.data)}")
    if copied:
        click.echo(f"a copy of {copied.get('of')}, last whole at {copied.get('at') or 'no time yet'}")
    if pulled:
        click.echo(f"copied by {pulled.get('by')}, last whole at {pulled.get('at') or 'no time yet'}")
    if newer:
        click.echo(f"superseded by {newer.get('by')} at {newer.get('at')} (epoch {newer['epoch']})")


def _answer(action: str, asked: dict[str, str | int]) -> None:
    """What the other machine asks."""
    storage.must_be_there()
    if action == "offer":
        note_pull(str(asked["by"] or socket.gethostname()), str(asked["last"]), str(asked["into"]))
        click.echo(json.dumps(msgspec.to_builtins(offer())))  # in ASCII: a name of a file need not be UTF-8
    elif action == "send":
        names = [os.fsdecode(name) for name in sys.stdin.buffer.read().split(b"\0") if name]
        send(names, sys.stdout.buffer)
    else:
        taking.end_here(int(asked["epoch"]), str(asked["by"]), supersede)
