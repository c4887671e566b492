"""Passwords: Argon2id in PHC strings, at most two at work at a time.

A hash takes 64 MiB and a fifth of a second on purpose; without the gate, a burst of log-ins
would be a way to take the machine down. Unknown accounts are hashed against a dummy, so that
they take as long as known ones.
"""
import os
import threading
from functools import cache
from pathlib import Path

from orkosi import Invalid, Unavailable

MEMORY_KIB, PASSES, LANES, PATIENCE = 64 * 1024, 3, 4, 20.0
_gate = threading.BoundedSemaphore(2)


def hashed(password: str) -> str:
    """The PHC string to store. Unavailable when too many hashes are waited for."""
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    with _turn():
        kdf = Argon2id(salt=os.urandom(16), length=32, iterations=PASSES, lanes=LANES, memory_cost=MEMORY_KIB)
        return kdf.derive_phc_encoded(password.encode())


def matches(password: str, stored: str | None) -> bool:
    """Whether `password` is the one behind `stored`; None costs the same time and is never right."""
    from cryptography.exceptions import InvalidKey
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    with _turn():
        try:
            Argon2id.verify_phc_encoded(password.encode(), stored or _dummy())
            return stored is not None
        except InvalidKey:
            return False


def acceptable(password: str) -> str:
    """`password`, or Invalid: 8 to 128 characters, and not one that everybody tries first."""
    if not 8 <= len(password) <= 128:
        raise Invalid("password: Use 8 to 128 characters; 15 or more are good", [{"field": "password", "message": "8 to 128 characters"}])
    if password.lower() in _common():
        raise Invalid("password: That one is on every list of common passwords; choose another",
                      [{"field": "password", "message": "too common"}])
    return password


class _turn:
    def __enter__(self) -> None:
        if not _gate.acquire(timeout=PATIENCE):
            raise Unavailable("Too many log-ins at once; try again", headers={"Retry-After": "5"})

    def __exit__(self, *_: object) -> None:
        _gate.release()


@cache
def _dummy() -> str:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    return Argon2id(salt=bytes(16), length=32, iterations=PASSES, lanes=LANES, memory_cost=MEMORY_KIB).derive_phc_encoded(b"nobody")


@cache
def _common() -> frozenset[str]:
    return frozenset((Path(__file__).parent / "common.txt").read_text().split())
