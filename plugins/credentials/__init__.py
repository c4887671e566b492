"""Credentials: secrets that agents need, sealed in the vault, released by grants, and every release on record.

Owns credentials, credential_versions, credential_grants and credential_reads. Surprise: the record of a reading is
written, and flushed, before the value leaves: no record, no value. A secret that is not granted is answered as one that is
not there. Of a value nothing is told beside itself, neither its length nor a hash.
"""
from contextlib import suppress
from typing import Annotated

from orkosi import RANKS, Denied, Meta, NotFound, Page, Paging, Plugin, Struct, across_tenants, current, db, emit, now, seconds, writes
from plugins import agents, lists, vault
from plugins.fields import wrong
from plugins.vault import Envelope, Unreadable, canaries

plugin = Plugin("Credentials", layer="domain", needs=("agents",))
plugin.setting("limit_credential_read", str, "30/m", "Readings of credentials by one person or key")

KEPT = 5             # versions
LARGEST = 64 << 10   # bytes

Key = Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9_]{0,63}\Z", description="capital letters, digits and _, a letter first; 64 at most")]


class Credential(Struct):
    """What is told of a credential: never its value."""
    key: str
    description: str | None
    version: int
    grants: list[str]
    created_at: str
    updated_at: str
    last_used_at: str | None
    used_by: str | None
    age_days: int


class Saved(Credential, kw_only=True):
    """A credential that was just saved; `created` says whether it is a new one."""
    created: bool


class Revealed(Credential, kw_only=True):
    """A credential with its value."""
    value: str


# ── reading ──


def page(query: Paging) -> Page[Credential]:
    """Credentials by key: all for an administrator; for an agent or a key, those that it may read."""
    mine = _readable()
    found = [one for one in _all() if mine is None or one.key in mine]  # there are dozens of them, not thousands
    return lists.page(found, query, "key")


def _all(key: str | None = None) -> list[Credential]:
    grants: dict[str, list[str]] = {}
    for name, agent in db.all(tuple, """SELECT key, agent FROM credential_grants JOIN credentials ON credentials.id = credential_id
                                         WHERE tenant_id = :tenant ORDER BY agent"""):
        grants.setdefault(name, []).append(agent)
    return [Credential(**row, grants=grants.get(row["key"], []), age_days=_days_since(row["updated_at"])) for row in db.all(dict, """
        SELECT key, description, version, created_at, updated_at, last_used_at, used_by FROM credentials
         WHERE tenant_id = :tenant AND (key = :key OR :key IS NULL) ORDER BY key""", key=key)]


def _days_since(moment: str) -> int:
    return int(max(0.0, seconds(now()) - seconds(moment)) // 86400)


def _readable() -> list[str] | None:
    """The keys that whoever asks may read; None for all. Denied for people who are no administrators, and for keys without such a scope."""
    me = current()
    if me.kind == "agent":
        found = db.all(tuple, """SELECT key FROM credential_grants JOIN credentials ON credentials.id = credential_id
                                  WHERE credentials.tenant_id = :tenant AND agent = :name""", name=me.name)
        return [key for key, in found]
    if me.scopes is None:
        if me.rank < RANKS["admin"]:
            raise Denied(f"Credentials are for administrators and for agents with a grant; your role is {me.role or 'none'}")
        return None
    named = [scope.removeprefix("credentials:read:") for scope in me.scopes if scope.startswith("credentials:read:")]
    if not named:
        raise Denied("Insufficient scope: this needs credentials:read:<name>")
    return named


def find(key: str) -> Credential:
    """What is told of one. NotFound."""
    found = _all(key)
    if not found:
        raise NotFound(f"There is no credential {key}")
    return found[0]


@writes
def reveal(key: str) -> tuple[Credential, str]:
    """A credential and its value, after the reading is on record. NotFound also where it is not granted; Sealed; Unreadable."""
    mine = _readable()
    if mine is not None and key not in mine:
        raise NotFound(f"There is no credential {key}")
    found = find(key)
    id, version, envelope = _envelope(key)
    try:
        value = vault.open_(envelope, current().tenant or 0, id, key, version).decode()
    except Unreadable as error:
        raise Unreadable(f"The value of {key} cannot be decrypted; save it anew") from error
    moment, me = now(), current().ref
    db.run("""INSERT INTO credential_reads (tenant_id, key, version, actor, read_at) VALUES (:tenant, :key, :version, :actor, :now)""",
           key=key, version=version, actor=me, now=moment)
    db.run("UPDATE credentials SET last_used_at = :now, used_by = :by WHERE id = :id AND tenant_id = :tenant", id=id, now=moment, by=me)
    emit("credential.read", found)
    return find(key), value


def _envelope(key: str) -> tuple[int, int, Envelope]:
    id, version, data_key, nonce, sealed = db.one(tuple, """
        SELECT credentials.id, credential_versions.version, vault_key_id, nonce, sealed FROM credentials
          JOIN credential_versions ON credential_id = credentials.id AND credential_versions.version = credentials.version
         WHERE tenant_id = :tenant AND key = :key""", key=key)
    return id, version, Envelope(data_key, nonce, sealed)


# ── writing ──


@writes
def save(key: str, value: str, description: str | None = None, grants: list[str] | None = None) -> tuple[Credential, bool]:
    """Make a credential, or a new version of it; what is not given stays. Whether it is a new one. Invalid, Sealed."""
    raw = value.encode()
    if not 1 <= len(raw) <= LARGEST:
        raise wrong("value", f"Send 1 to {LARGEST} bytes of text")
    there = db.one(tuple, "SELECT id, version FROM credentials WHERE tenant_id = :tenant AND key = :key", key=key)
    moment = now()
    if there:
        id, version = there[0], there[1] + 1
        db.run("""UPDATE credentials SET version = :version, description = coalesce(:description, description), updated_at = :now
                   WHERE id = :id AND tenant_id = :tenant""", id=id, version=version, description=description, now=moment)
    else:
        version = 1
        id = db.add("""INSERT INTO credentials (tenant_id, key, description, version, created_at, updated_at)
                       VALUES (:tenant, :key, :description, 1, :now, :now)""", key=key, description=description, now=moment)
    sealed = vault.seal(raw, current().tenant or 0, id, key, version)
    db.run("""INSERT INTO credential_versions (credential_id, version, vault_key_id, nonce, sealed, created_at)
              VALUES (:id, :version, :data_key, :nonce, :sealed, :now)""", id=id, version=version, data_key=sealed.data_key_id, nonce=sealed.nonce,
           sealed=sealed.sealed, now=moment)
    db.run("DELETE FROM credential_versions WHERE credential_id = :id AND version <= :old", id=id, old=version - KEPT)
    if grants is not None:
        _grant(id, grants)
    made = find(key)
    emit("credential.saved", made)
    db.after_commit(canaries.forget)
    return made, not there


def _grant(id: int, names: list[str]) -> None:
    for name in names:
        if agents.seek(name) is None:
            raise wrong("grants", f"There is no agent {name[:60]!r}; create it first")
    db.run("DELETE FROM credential_grants WHERE credential_id = :id", id=id)
    for name in sorted(set(names)):
        db.run("INSERT INTO credential_grants (credential_id, agent) VALUES (:id, :agent)", id=id, agent=name)


@writes
def delete(key: str) -> None:
    """Wipe every version, and end every grant; what was read stays on record. NotFound."""
    gone = find(key)
    # The rows of versions and grants go with it, and SQLite writes zeros over what is deleted.
    db.run("DELETE FROM credentials WHERE tenant_id = :tenant AND key = :key", key=key)
    emit("credential.deleted", gone)
    db.after_commit(canaries.forget)


@plugin.on("agent.deleted")
def end_grants(event: str, agent: agents.Agent, **facts: object) -> None:
    """Whoever gets the name next has to be granted anew."""
    db.run("""DELETE FROM credential_grants WHERE agent = :name AND credential_id IN (SELECT id FROM credentials WHERE tenant_id = :tenant)""",
           name=agent.name)


@canaries.tells
def values() -> dict[str, str]:
    """The value of every version that is kept, for those who search texts for it; what cannot be read is left out. Sealed."""
    found = {}
    for id, key, newest, version, data_key, nonce, sealed in db.all(tuple, """
            SELECT credentials.id, key, credentials.version, credential_versions.version, vault_key_id, nonce, sealed
              FROM credentials JOIN credential_versions ON credential_id = credentials.id WHERE tenant_id = :tenant"""):
        with suppress(Unreadable):
            about = (current().tenant or 0, id, key, version)
            found[key if version == newest else f"{key}, version {version}"] = vault.open_(Envelope(data_key, nonce, sealed), *about).decode()
    return found


@vault.keeps
@writes
@across_tenants
def reseal(newest: int, most: int) -> int:
    """Seal up to `most` versions anew that an older data key sealed, of every tenant; how many."""
    rows = db.all(tuple, """SELECT credential_id, credential_versions.version, vault_key_id, nonce, sealed, tenant_id, key
                              FROM credential_versions JOIN credentials ON credentials.id = credential_id
                             WHERE vault_key_id < :newest LIMIT :most""", newest=newest, most=most)
    for id, version, data_key, nonce, sealed, tenant, key in rows:
        about = (tenant, id, key, version)
        fresh = vault.seal(vault.open_(Envelope(data_key, nonce, sealed), *about), *about)
        db.run("""UPDATE credential_versions SET vault_key_id = :data_key, nonce = :nonce, sealed = :sealed
                   WHERE credential_id = :id AND version = :version""", id=id, version=version, data_key=fresh.data_key_id, nonce=fresh.nonce,
               sealed=fresh.sealed)
    return len(rows)
