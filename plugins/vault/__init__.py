"""Vault: seals what must be kept secret, and opens it for the plugins that keep it.

Owns vault_masters and vault_keys. AES-256-GCM: a data key seals, and the master key, which is in a file outside of the
data folder (master.py), wraps the data keys. Whose secret it is and which, is bound to what is sealed: a row in another
row's place does not open. Surprise: without its master key the vault is sealed and everything else works. Newest
data keys are asked for at each sealing, for a command may have made one while this server runs.
"""
import os
import secrets
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from orkosi import Check, Invalid, Plugin, Problem, Struct, across_tenants, acting, db, now, system, writes

from . import canaries, master
from .master import Sealed

plugin = Plugin("Vault", layer="ground", needs=("storage", "folders"))
plugin.setting("master_key_file", str, "~/.orkosi/master.key", "The key that opens the vault: never inside the data folder or a backup")

NONCE, CANARY = 12, b"orkosi canary"


class Unreadable(Problem):
    """What is sealed does not authenticate: it was changed, moved, or sealed with another key."""
    code = "decryption_failed"


class Envelope(Struct):
    """Something sealed, and the number of the data key that opens it."""
    data_key_id: int
    nonce: bytes
    sealed: bytes


_data_keys: dict[bytes, bytes] = {}  # by how they are wrapped: a number may come again where what made it was undone


# ── sealing ──


@writes
def seal(secret: bytes, *about: str | int) -> Envelope:
    """Seal something, bound to what it is about; the vault is made where there is none. Sealed."""
    if newest() is None:
        make()
    id = newest() or 0
    nonce = secrets.token_bytes(NONCE)
    return Envelope(id, nonce, cipher(_data_key(id)).encrypt(nonce, secret, _bound("orkosi/sealed/1", *about)))


def open_(envelope: Envelope, *about: str | int) -> bytes:
    """What was sealed about this. Sealed; Unreadable where it is not what was sealed."""
    key = _data_key(envelope.data_key_id)
    try:
        return cipher(key).decrypt(envelope.nonce, envelope.sealed, _bound("orkosi/sealed/1", *about))
    except invalid() as error:
        raise Unreadable("It does not authenticate: it was changed, or sealed with another key") from error


def check() -> None:
    """Open the canary. Sealed with the reason; nothing happens where no vault is made yet."""
    id = newest()
    if id is not None:
        nonce, canary = db.one(tuple, "SELECT canary_nonce, canary FROM vault_keys WHERE id = :id", id=id)
        try:
            cipher(_data_key(id)).decrypt(nonce, canary, _bound("orkosi/canary/1", id))
        except invalid():
            raise Sealed("The vault's canary does not open: the database was changed; restore a backup") from None


def newest() -> int | None:
    """The number of the data key that seals; None where no vault is made yet."""
    found: int | None = db.value("SELECT max(id) FROM vault_keys")
    return found


def _data_key(id: int) -> bytes:
    row = db.one(tuple, "SELECT kek_id, nonce, wrapped FROM vault_keys WHERE id = :id", id=id)
    if row is None:
        raise Unreadable("The data key it was sealed with is gone")
    kek, nonce, wrapped = row
    if wrapped not in _data_keys:
        try:
            _data_keys[wrapped] = cipher(master.find(kek)).decrypt(nonce, wrapped, _bound("orkosi/dek/1", id, kek))
        except invalid():
            raise Sealed("The vault's data key does not open: the database was changed; restore a backup") from None
    return _data_keys[wrapped]


@cache
def _aesgcm() -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # imported when first used: it takes a while
    return AESGCM


def cipher(key: bytes) -> Any:
    """AES-256-GCM under this key."""
    return _aesgcm()(key)


def invalid() -> type[Exception]:
    """What a cipher raises where something does not authenticate."""
    from cryptography.exceptions import InvalidTag
    return InvalidTag


def _bound(*parts: str | int) -> bytes:
    """What is bound to something sealed, each part with its length: no two lists of parts are the same bytes."""
    raws = [str(part).encode() for part in parts]
    return b"".join(len(raw).to_bytes(4, "big") + raw for raw in raws)


# ── backups ──


def kek_id() -> str:
    """The id of the master key that seals now; the vault is made where there is none. Sealed."""
    make()
    found: str = db.value("SELECT kek_id FROM vault_keys ORDER BY id DESC LIMIT 1")
    return found


def backup_key(id: str, salt: bytes) -> bytes:
    """The key of one backup, out of the master key of this id. Sealed where that is not here."""
    return derived(master.find(id), salt)


def opens(id: int, kek_id: str, nonce: bytes, wrapped: bytes, canary_nonce: bytes, canary: bytes, *, kek: bytes | None = None) -> bool:
    """Whether the canary in a row of some other database opens, with this master key or the one of that id. Sealed where that is not here."""
    try:
        key = cipher(kek or master.find(kek_id)).decrypt(nonce, wrapped, _bound("orkosi/dek/1", id, kek_id))
        return bool(cipher(key).decrypt(canary_nonce, canary, _bound("orkosi/canary/1", id)) == CANARY)
    except invalid():
        return False


def derived(kek: bytes, salt: bytes) -> bytes:
    """The key of one backup: HKDF over SHA-256 (RFC 5869), so that no two backups share one."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    return HKDF(SHA256(), 32, salt, b"orkosi/backup/1").derive(kek)


# ── keys ──


@writes
def make() -> None:
    """Make the vault: a master key where the file has none, and the first data key. Nothing happens where there is one."""
    if newest() is None:
        _add_data_key(master.make_or_read())


def _add_data_key(kek: bytes) -> int:
    key, id, kek_id = secrets.token_bytes(32), (newest() or 0) + 1, master.id_of(kek)
    nonce, canary_nonce = secrets.token_bytes(NONCE), secrets.token_bytes(NONCE)
    db.run("""INSERT INTO vault_keys (id, kek_id, nonce, wrapped, canary_nonce, canary, created_at)
              VALUES (:id, :kek, :nonce, :wrapped, :canary_nonce, :canary, :now)""", id=id, kek=kek_id, nonce=nonce, now=now(),
           wrapped=cipher(kek).encrypt(nonce, key, _bound("orkosi/dek/1", id, kek_id)), canary_nonce=canary_nonce,
           canary=cipher(key).encrypt(canary_nonce, CANARY, _bound("orkosi/canary/1", id)))
    db.run("INSERT INTO vault_masters (kek_id, created_at) VALUES (:kek, :now) ON CONFLICT DO NOTHING", kek=kek_id, now=now())
    return id


def rotate() -> str:
    """A new master key, under which every data key is wrapped anew, and a new data key for what is sealed from now on; its recovery key.

    Whatever interrupts it, the file that the database names is there, and the next change puts it in its place. Sealed, Conflict.
    """
    with master.alone():
        check()
        key = secrets.token_bytes(32)
        master.put_next(key)
        _wrap_anew(key)
        master.settle()
    return master.recovery(key)


@writes
def _wrap_anew(kek: bytes) -> None:
    kek_id = master.id_of(kek)
    for id, in db.all(tuple, "SELECT id FROM vault_keys"):
        key, nonce = _data_key(id), secrets.token_bytes(NONCE)
        db.run("UPDATE vault_keys SET kek_id = :kek, nonce = :nonce, wrapped = :wrapped WHERE id = :id", id=id, kek=kek_id, nonce=nonce,
               wrapped=cipher(kek).encrypt(nonce, key, _bound("orkosi/dek/1", id, kek_id)))
    _add_data_key(kek)
    db.run("DELETE FROM vault_masters WHERE kek_id <> :kek", kek=kek_id)


_keepers: list[Callable[[int, int], int]] = []


def keeps(reseal: Callable[[int, int], int]) -> Callable[[int, int], int]:
    """Register who keeps sealed things: `reseal(newest, most)` seals up to `most` that an older data key sealed anew; how many."""
    _keepers.append(reseal)
    return reseal


def rewrap() -> int:
    """Seal everything anew that an older data key sealed, a hundred at a time, and forget the older keys; how many. It may be interrupted."""
    check()
    done = 0
    for reseal in _keepers:
        while count := reseal(newest() or 0, 100):
            done += count
    _forget_older()
    return done


@writes
def _forget_older() -> None:
    """Inside the transaction that looks once more: a server may have sealed with an older key until now."""
    if not any(reseal(newest() or 0, 1) for reseal in _keepers):
        db.run("DELETE FROM vault_keys WHERE id < (SELECT max(id) FROM vault_keys)")


# ── the recovery key ──


def _in_writing() -> str:
    kek = db.value("SELECT kek_id FROM vault_keys ORDER BY id DESC LIMIT 1")
    if kek is None:
        raise Invalid("No vault is made yet: the server makes it when it starts")
    return master.recovery(master.find(kek))


def recovery_key() -> str:
    """The master key of this data folder in writing. Invalid where there is none yet, Sealed."""
    check()
    return _in_writing()


def confirmed() -> bool:
    """Whether somebody said that the recovery key is kept."""
    return bool(db.value("SELECT confirmed_at FROM vault_masters ORDER BY created_at DESC LIMIT 1"))


@writes
def confirm(last: str) -> None:
    """Note that the recovery key is kept: whoever has it knows its last group. Invalid, Sealed."""
    if not secrets.compare_digest(_in_writing().rpartition("-")[2].encode(), last.strip().upper().encode()):
        raise Invalid("That is not the last group of the recovery key; show it with `vault recovery-key`, and keep it off this machine")
    db.run("UPDATE vault_masters SET confirmed_at = :now WHERE kek_id = (SELECT kek_id FROM vault_keys ORDER BY id DESC LIMIT 1)", now=now())


def import_key(text: str) -> Path:
    """Put the master key in place that was written down as `text`; the file. Invalid where it is none, or not this folder's."""
    key = master.from_recovery(text)
    kek = db.value("SELECT kek_id FROM vault_keys ORDER BY id DESC LIMIT 1")
    if kek is not None and kek != master.id_of(key):
        raise Invalid("That recovery key is of another vault than this data folder's")
    file = master.keep(key)
    _data_keys.clear()
    canaries.forget()
    check()
    return file


@plugin.on("opened")
def begin(event: str, folder: object) -> None:
    """Another data folder has other keys."""
    _data_keys.clear()
    canaries.forget()


@plugin.on("serving")
@across_tenants
def greet(event: str, folder: object, say: Callable[[str], None] = lambda line: None, **facts: Any) -> None:
    """A server makes its vault, and shows the recovery key once, or says how to see it; where it is sealed, it says why."""
    fresh = newest() is None
    try:
        make()
        check()
    except Sealed as sealed:
        say(f"The vault is sealed: {sealed.message}")
        return
    if fresh and in_sight():
        recovery = _in_writing()
        say(f"The recovery key of the vault, shown once. Keep it off this machine; without it, a restored backup has no secrets:\n\n"
            f"  {recovery}\n\n  Then: python3 orkosi.py vault confirm")
    elif fresh:
        say("The vault is made. Its recovery key is shown by: python3 orkosi.py vault recovery-key; keep it off this machine, then: vault confirm")


def in_sight() -> bool:
    """Whether what is said is read by a person: in a file or a pipe it is kept, by a log, a journal or a backup."""
    return os.isatty(1)


@plugin.health("vault")
def health() -> Check:
    """Whether the vault opens, and whether its recovery key is kept."""
    with acting(system()):
        try:
            check()
        except Sealed as sealed:
            return Check(False, sealed.message)
        return Check(True, "" if newest() is None or confirmed() else "The recovery key is not confirmed: orkosi.py vault confirm")
