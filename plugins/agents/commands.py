"""The command that gives an agent a new key; it works beside a running server and without one."""
from pathlib import Path

import click

from orkosi import DATA, Invalid, acting, settings, system
from plugins import storage

from . import bootstrap
from .rows import find


@click.command("rekey")
@click.argument("name")
@DATA
def rekey(name: str, data: Path | None) -> None:
    """Give an agent of this machine a new key, where its key file is lost or somebody saw it. The old one is revoked."""
    settings.load(data=data)
    storage.open_data()
    try:
        with acting(system()):
            agent = find(name)
            if not agent.local:
                raise Invalid(f"Agent {name} is driven from outside; it has its key from whoever drives it")
            bootstrap.rekey(agent)
    finally:
        storage.close_data()
    click.echo(f"Agent {name} has a new key in data/keys/{name}; the one before is revoked")
