"""The commands of the vault; they work beside a running server and without one."""
import sys
from pathlib import Path

import click

from orkosi import DATA, Problem, acting, settings, system
from plugins import storage, vault
from plugins.vault import master, plugin


@plugin.command("vault")
@click.argument("action", type=click.Choice(["status", "confirm", "recovery-key", "import-key", "rotate", "rewrap"]))
@DATA
def command(action: str, data: Path | None) -> None:
    """See to the vault: its `status`; `confirm` that the recovery key is kept, show it, or `import-key` it on a new machine.

    `rotate` makes a new master key, and so a new recovery key; `rewrap` seals every secret anew under the newest data key.
    """
    settings.load(data=data)
    storage.must_be_there()
    storage.open_data()
    try:
        with acting(system()):
            click.echo(ACTIONS[action]())
    finally:
        storage.close_data()


def _asked(prompt: str) -> str:
    """From the terminal, where nobody looks on, or from standard input; never from the arguments, which every process may read."""
    return str(click.prompt(prompt, hide_input=True)) if sys.stdin.isatty() else sys.stdin.readline()


def _status() -> str:
    if vault.newest() is None:
        return "No vault is made yet: the server makes it when it starts"
    try:
        vault.check()
    except Problem as problem:
        return f"Sealed: {problem.message}"
    kept = "is kept, somebody said" if vault.confirmed() else "is not confirmed: orkosi.py vault confirm"
    return f"Open, with {master.path()}; data key {vault.newest()}. The recovery key {kept}"


def _confirmed() -> str:
    vault.confirm(_asked("The last group of the recovery key"))
    return "Good. The recovery key is noted as kept"


def _shown() -> str:
    return vault.recovery_key()


def _imported() -> str:
    file = vault.import_key(_asked("The recovery key"))
    return f"The vault is open; the key is in {file}"


def _rotated() -> str:
    recovery = vault.rotate()
    shown = f", shown once:\n\n  {recovery}\n\n" if vault.in_sight() else " is shown by: orkosi.py vault recovery-key. "
    return f"A new master key is in {master.path()}. Its recovery key{shown}The one before is kept beside it, " \
           "for older backups and other data folders. Keep the new one off this machine, then: orkosi.py vault confirm"


def _rewrapped() -> str:
    done = vault.rewrap()
    return f"{done} {'secret was' if done == 1 else 'secrets were'} sealed anew under data key {vault.newest()}"


ACTIONS = {"status": _status, "confirm": _confirmed, "recovery-key": _shown, "import-key": _imported, "rotate": _rotated, "rewrap": _rewrapped}
