"""The commands of users; they work beside a running server and without one."""
import getpass
import sys
from pathlib import Path

import click

from orkosi import DATA, HOST_TENANT, Invalid, acting, close_data, open_data, settings, system
from plugins.users import add, invite, passwords, plugin


@plugin.command("user")
@click.argument("action", type=click.Choice(["add"]))
@click.argument("email")
@click.option("--username", help="Default: the part before the @")
@click.option("--role", type=click.Choice(["admin", "editor", "member", "builder", "viewer", "demo"]), default="member", show_default=True)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input instead of asking")
@DATA
def user(action: str, email: str, username: str | None, role: str, password_stdin: bool, data: Path | None) -> None:
    """Add a person to the host tenant: `user add EMAIL --username NAME --role admin`."""
    settings.load(data=data)
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = getpass.getpass(f"Password for {email}: ")
    else:
        raise Invalid("There is no terminal to ask for a password; send it with --password-stdin")
    hashed = passwords.hashed(passwords.acceptable(password))
    open_data()
    try:
        with acting(system()):
            made = add(username or email.partition("@")[0], email, hashed, role, HOST_TENANT)
    finally:
        close_data()
    click.echo(f"Added user {made.id}: {made.username} <{made.email}>, {made.role}")


@plugin.command("invite")
@click.argument("action", type=click.Choice(["create"]))
@click.argument("email")
@click.option("--role", type=click.Choice(["editor", "member", "builder", "viewer", "demo"]), default="member", show_default=True)
@DATA
def invitation(action: str, email: str, role: str, data: Path | None) -> None:
    """Print an invitation code with which EMAIL may register into the host tenant."""
    settings.load(data=data)
    open_data()
    try:
        with acting(system()):
            made, code = invite("tenant", None, email, role, None, HOST_TENANT)
    finally:
        close_data()
    click.echo(f"{code}\nGood for {made.email} until {made.expires_at}")
