"""The commands of users; they work beside a running server and without one."""
import contextlib
import getpass
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from orkosi import DATA, HOST_TENANT, Conflict, Invalid, acting, settings, system, writes
from plugins import server, storage
from plugins.mail import Wanted, send
from plugins.users import Role, User, account, add, closed, erase, invitation, invite, passwords, people, plugin

ROLES = ["admin", "editor", "member", "builder", "viewer", "demo"]


@plugin.command("user")
@click.argument("action", type=click.Choice(["add", "list", "role", "password", "erase"]))
@click.argument("email", required=False)
@click.option("--username", help="add: the name; default: the part before the @")
@click.option("--role", type=click.Choice(ROLES), help="add (default member), role: what they may do")
@click.option("--password-stdin", is_flag=True, help="add, password: read the password from standard input instead of asking")
@click.option("--yes", is_flag=True, help="erase: do not ask")
@DATA
def user(action: str, email: str | None, username: str | None, role: Role | None, password_stdin: bool, yes: bool, data: Path | None) -> None:
    """Add, list, promote or erase people, or give them a new password: `user add EMAIL --username NAME --role admin`.

    `add` puts them into the host tenant; the others find anybody by their address.
    """
    settings.load(data=data)
    if action == "list":
        return _listed()
    if not email:
        raise Invalid(f"Say whom: user {action} EMAIL")
    if action == "role" and not role:
        raise Invalid("Say which role: user role EMAIL --role editor")
    if action == "erase" and not yes and not click.confirm(f"Erase {email}, and all that names them, for good?"):
        return click.echo("Nothing was done")
    password = _password(email, password_stdin) if action in ("add", "password") else ""
    verbs: dict[str, Callable[[], str]] = {
        "add": lambda: _added(email, username, role or "member", password), "role": lambda: _promoted(email, role or "member"),
        "password": lambda: _given(email, password), "erase": lambda: _erased(email)}
    with _opened(anew=action == "add"):
        said = verbs[action]()
    return click.echo(said)


@contextlib.contextmanager
def _opened(anew: bool = False) -> Iterator[None]:
    """The data folder, at work for the host; links lead to where its server is reached, if one runs. `anew`: it may be made."""
    if not anew:
        storage.must_be_there()
    storage.open_data()
    try:
        with contextlib.suppress(OSError, ValueError, KeyError):
            settings.values["public_url"] = settings.public_url or json.loads((settings.data / "server.json").read_text())["url"]
        with acting(system()):
            yield
    finally:
        storage.close_data()


def _password(email: str, from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = getpass.getpass(f"Password for {email}: ")
    else:
        raise Invalid("There is no terminal to ask for a password; send it with --password-stdin")
    return passwords.acceptable(password)


def _listed() -> None:
    with _opened():
        found = people.everybody()
    for one in found:
        click.echo(f"{one.id:6}  {one.role:8}  tenant {one.tenant_id:<4}  {one.email:40}  {one.username}")


def _added(email: str, username: str | None, role: str, password: str) -> str:
    made = add(username or email.partition("@")[0], email, passwords.hashed(password), role, HOST_TENANT, proven=True)
    return f"Added user {made.id}: {made.username} <{made.email}>, {made.role}"


def _promoted(email: str, role: Role) -> str:
    made: User = people.set_role(email, role)
    return f"User {made.id} is {made.role} now, and was logged out everywhere"


def _given(email: str, password: str) -> str:
    found = people.by_email(email)
    account.set_password(found.id, password)
    return f"User {found.id} has a new password, and was logged out everywhere"


def _erased(email: str) -> str:
    found = people.by_email(email)
    erase(found.id)
    return f"User {found.id} is erased"


@plugin.command("invite")
@click.argument("action", type=click.Choice(["create"]))
@click.argument("email")
@click.option("--role", type=click.Choice(ROLES[1:]), default="member", show_default=True)
@click.option("--mail", is_flag=True, help="Mail it as well, with a link")
@DATA
def invitation_code(action: str, email: str, role: str, mail: bool, data: Path | None) -> None:
    """Print an invitation code, and its link, with which EMAIL may register into the host tenant."""
    settings.load(data=data)
    if closed():
        raise Conflict(f"Registration is closed here (registration), so a code is good for nothing; say: user add {email} --username NAME")
    with _opened():
        code, until = _invited(email, role, mail)
        link = f"{server.url()}/invite/{code}"
    click.echo(f"{code}\n{link}\nGood for {email} until {until}" + ("; the mail is on its way" if mail else ""))


@writes
def _invited(email: str, role: str, mail: bool) -> tuple[str, str]:
    made, code = invite("tenant", None, email, role, None, HOST_TENANT)
    if mail:
        send(made.email, *invitation(made, "The administrator", "Orkosi"), wanted=Wanted("invite", invite_id=made.id))
    return code, made.expires_at
