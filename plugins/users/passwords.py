"""Passwords: Argon2id in PHC strings, one at work at a time.

A hash takes 46 MiB and a twentieth of a second on purpose; without the lane, a burst of log-ins would be a
way to take the machine down. Unknown accounts are hashed against a dummy, so that they take as long as known
ones. Surprise: one lane of Argon2id, and never two derivations at once. OpenSSL hands further lanes to a pool
of its own, in which two derivations wait for each other for good; hashes of earlier versions have four.
"""
import os
import threading
from functools import cache
from pathlib import Path

from orkosi import TooMany, Unavailable
from plugins.fields import wrong

MEMORY_KIB, PASSES, LANES = 46 * 1024, 1, 1  # OWASP's parameters for one lane
WAITING, DOUBTFUL = 32, 2
_lane = threading.Lock()
_places, _doubtful_places = threading.BoundedSemaphore(WAITING), threading.BoundedSemaphore(DOUBTFUL)


def hashed(password: str) -> str:
    """The PHC string to store. Unavailable when too many hashes are waited for."""
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    with _Turn():
        kdf = Argon2id(salt=os.urandom(16), length=32, iterations=PASSES, lanes=LANES, memory_cost=MEMORY_KIB)
        return kdf.derive_phc_encoded(password.encode())


def matches(password: str, stored: str | None, *, doubtful: bool = False) -> bool:
    """Whether `password` is the one behind `stored`; None costs the same time and is never right.

    A `doubtful` asker, who was wrong very often, waits with one other at most. Unavailable, TooMany.
    """
    from cryptography.exceptions import InvalidKey
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    with _Turn(doubtful):
        try:
            Argon2id.verify_phc_encoded(password.encode(), stored or _dummy())
            return stored is not None
        except InvalidKey:
            return False


def dated(stored: str) -> bool:
    """Whether a hash was made with other parameters than today's, and should be made anew."""
    return f"$m={MEMORY_KIB},t={PASSES},p={LANES}$" not in stored


def acceptable(password: str) -> str:
    """`password`, or Invalid: 8 to 128 characters, and not one that everybody tries first."""
    if not 8 <= len(password) <= 128:
        raise wrong("password", "Use 8 to 128 characters; 15 or more are good")
    if password.lower() in _common():
        raise wrong("password", "That one is on every list of common passwords; choose another")
    return password


class _Turn:
    """A turn in the lane; those whom doubt holds back leave the other places free."""

    def __init__(self, doubtful: bool = False):
        self.doubtful = doubtful

    def __enter__(self) -> None:
        if self.doubtful and not _doubtful_places.acquire(blocking=False):
            raise TooMany("Too many wrong passwords from here; try again in a moment", headers={"Retry-After": "1"})
        if not _places.acquire(blocking=False):
            if self.doubtful:
                _doubtful_places.release()
            raise Unavailable("Too many log-ins at once; try again", headers={"Retry-After": "2"})
        _lane.acquire()

    def __exit__(self, *_: object) -> None:
        _lane.release()
        _places.release()
        if self.doubtful:
            _doubtful_places.release()


@cache
def _dummy() -> str:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    return Argon2id(salt=bytes(16), length=32, iterations=PASSES, lanes=LANES, memory_cost=MEMORY_KIB).derive_phc_encoded(b"nobody")


@cache
def _common() -> frozenset[str]:
    return frozenset((Path(__file__).parent / "common.txt").read_text().split())
