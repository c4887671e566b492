"""Signing: what this data folder seals tokens and tickets with, so that it knows its own again.

Owns signing_secrets: one random secret for each purpose, made when the folder is first opened. They come along with the folder and
its backups: what they seal is short-lived, and opens nothing by itself.
"""
import secrets

from orkosi import Plugin, across_tenants, db

PURPOSES = ("leases", "cursors")

plugin = Plugin("Signing", layer="ground", needs=())
_known: dict[str, bytes] = {}


def secret(purpose: str) -> bytes:
    """32 random bytes, always the same for a purpose in this data folder."""
    return _known[purpose]


@plugin.on("opened")
@across_tenants
def begin(event: str, folder: object) -> None:
    """Have a secret for each purpose. Another data folder has its own."""
    db.run_many("INSERT INTO signing_secrets (purpose, secret) VALUES (:purpose, :secret) ON CONFLICT DO NOTHING",
                [{"purpose": purpose, "secret": secrets.token_bytes(32)} for purpose in PURPOSES])
    _known.clear()
    _known.update(db.all(tuple, "SELECT purpose, secret FROM signing_secrets"))
