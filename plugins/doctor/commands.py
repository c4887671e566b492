"""The commands that look whether all is well: with this machine and company, and with the program itself."""
import os
import sys
from pathlib import Path

import click
import msgspec

from orkosi import DATA, HOME, settings

from . import examine, mac, plugin

SIGNS = {"ok": "ok  ", "warn": "look", "fail": "FAIL", None: "    "}


@plugin.command("doctor")
@click.option("--full", is_flag=True, help="Read every page of the databases, too")
@click.option("--fix", is_flag=True, help="Mend what is safe to mend")
@click.option("--mac", "of_mac", is_flag=True, help="Try what is taken for granted about macOS, one by one")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON")
@DATA
def doctor(full: bool, fix: bool, of_mac: bool, as_json: bool, data: Path | None) -> None:
    """Look at this machine and its company: each finding with its cure. The exit code is 1 where something failed."""
    settings.load(data=data)
    if of_mac:
        tried = mac.tried()
        if as_json:
            click.echo(msgspec.json.format(msgspec.json.encode(tried), indent=1).decode())
        for one in () if as_json else tried:
            meaning = f"\n        {one.otherwise}" if one.state == "fail" else ""
            click.echo(f"{SIGNS[one.state]}  {one.name}: {one.said}\n        {one.command}{meaning}")
        sys.exit(any(one.state == "fail" for one in tried))
    found = examine(full, fix)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    for finding in () if as_json else found:
        click.echo(f"{SIGNS[finding.state]}  {finding.name:10} {finding.detail}" + (f"\n{'':17}{finding.cure}" if finding.state != "ok" else ""))
    sys.exit(any(finding.state == "fail" for finding in found))


@plugin.command("test", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run_tests(arguments: tuple[str, ...]) -> None:
    """Run the test suite, one more at a time than there are cores, for many wait; arguments go to pytest, where a later `-n 0` means one."""
    os.chdir(HOME)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", "-n", str(min(1 + (os.cpu_count() or 1), 8)), "--dist", "worksteal", *arguments])
