"""The operator: whoever may read the data folder, at the command line beside a running server.

Owns `keys/operator`, a token that is new with every start of the server and readable by its user alone: with it, commands ask the
server as the first administrator of the host would. Surprise: it opens nothing to who could not open the data folder, and with it
everything, before; the programs of agents run as the same user, and are trusted as far.
"""
from pathlib import Path
from typing import Any

from orkosi import HOST_TENANT, RANKS, Actor, Plugin, Request, Unauthorized, across_tenants, db, settings
from plugins import folders
from plugins.users import tokens
from plugins.users.sessions import bearer

plugin = Plugin("Operator", layer="views", needs=("agents", "tasks", "users"))
_hash = b""


def file_of(data: Path) -> Path:
    """Where the operator's token is."""
    return data / "keys" / "operator"


@plugin.on("serving")
def begin(event: str, *_: Any, **facts: Any) -> None:
    """A new token for a new start."""
    global _hash
    raw = tokens.mint("opr")
    file_of(settings.data).parent.mkdir(exist_ok=True, mode=0o700)
    folders.write_whole(file_of(settings.data), raw + "\n")
    _hash = tokens.digest(raw)


@plugin.on("closing")
def end(event: str, *_: Any, **facts: Any) -> None:
    """Nobody is asked any more."""
    global _hash
    _hash = b""


@plugin.authenticator
@across_tenants
def by_token(request: Request) -> Actor | None:
    """The first administrator of the host, behind the operator's token. Unauthorized where there is none yet."""
    token = bearer(request)
    if not tokens.is_one(token, "opr") or not _hash or tokens.digest(token) != _hash:
        return None
    id = db.value("SELECT id FROM users WHERE tenant_id = :host AND role = 'admin' ORDER BY id LIMIT 1", host=HOST_TENANT)
    if id is None:
        raise Unauthorized("There is no administrator yet: open the link that the server printed, or run: orkosi.py user add EMAIL --role admin")
    return Actor(kind="user", id=str(id), tenant=HOST_TENANT, role="admin", user=id, rank=RANKS["admin"])
