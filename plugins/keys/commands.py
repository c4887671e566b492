"""The command of keys; it works beside a running server and without one."""
from pathlib import Path

import click
import msgspec

from orkosi import DATA, Invalid, NotFound, across_tenants, acting, db, now, settings, system
from plugins import storage, users
from plugins.keys import end, everywhere, issue, plugin, scopes_of
from plugins.users import User


@plugin.command("key")
@click.argument("action", type=click.Choice(["create", "list", "revoke"]))
@click.argument("name", required=False)
@click.option("--scope", "scopes", multiple=True, help="May be given several times; default: tasks:read agents:read templates:read")
@click.option("--as", "email", help="For whom it speaks; default: the first administrator")
@DATA
def key(action: str, name: str | None, scopes: tuple[str, ...], email: str | None, data: Path | None) -> None:
    """Make, list and revoke API keys: `key create NAME --scope tasks:write`, `key list`, `key revoke KEY_ID`."""
    if action != "list" and not name:
        raise Invalid("Say which: key create NAME, or key revoke KEY_ID")
    settings.load(data=data)
    storage.must_be_there()
    storage.open_data()
    try:
        with acting(system()):
            if action == "create":
                click.echo(_create(name or "", list(scopes) or None, email))
            elif action == "revoke":
                end(name or "")
                click.echo(f"Revoked {name}; it is dead from now on")
            else:
                for line in _lines():
                    click.echo(line)
    finally:
        storage.close_data()


def _create(name: str, scopes: list[str] | None, email: str | None) -> str:
    person = _person(email)
    made, raw = issue(person.tenant_id, name, scopes_of(scopes, users.actor_of(person).rank), by=person.id)
    return f"{raw}\n{made.id} speaks for {person.username}: {' '.join(made.scopes)}. This is the only time it is shown."


@across_tenants
def _person(email: str | None) -> User:
    person = db.one(User, """
        SELECT * FROM users WHERE email_key = :key OR (:key IS NULL AND tenant_id = 1 AND role = 'admin') ORDER BY id LIMIT 1""",
        key=email and users.folded(email))
    if person is None:
        raise NotFound(f"Nobody has the address {email}" if email else "There is no administrator yet; make one with 'user add … --role admin'")
    return person


def _lines() -> list[str]:
    lines = []
    for row in everywhere():
        state = ("revoked" if row["revoked_at"] else "off" if not row["is_active"]
                 else "expired" if row["expires_at"] and row["expires_at"] <= now() else "active")
        owner = f"agent {row['agent']}" if row["agent"] else row["org_id"] or f"tenant {row['tenant_id']}"
        lines.append(f"{row['id']}  {state:8} {row['masked']}  {owner}  {row['name']!r}  "
                     f"[{' '.join(msgspec.json.decode(row['scopes']))}]  last used {row['last_used_at'] or 'never'}")
    return lines or ["There is no key"]
