"""Leases: the tokens of claims.

A token is random, and carries a seal over that and its job's number: so a token that is not a job's lease any more can be told from
one that never was, though only the present one is kept. Whether a lease holds is decided by comparing it with the row alone.
"""
import hmac
import os
from functools import lru_cache
from hashlib import blake2b

from plugins import signing

_nonces: list[str] = []  # drawn beforehand, for each draw is a call of the system; one write at a time makes claims


def token(job: int) -> str:
    """A new token for a job; inside a write."""
    if not _nonces:
        random = os.urandom(8 * 256).hex()
        _nonces.extend(random[at:at + 16] for at in range(0, len(random), 16))
    return (nonce := _nonces.pop()) + _seal(nonce, job)


def was_one(token: str, job: int) -> bool:
    """Whether a token was ever made for this job."""
    return hmac.compare_digest(token[16:].encode(), _seal(token[:16], job).encode())


def _seal(nonce: str, job: int) -> str:
    seal = _keyed(signing.secret("leases")).copy()
    seal.update(f"{nonce}{job}".encode())
    return seal.hexdigest()


@lru_cache(maxsize=4)
def _keyed(key: bytes) -> blake2b:
    return blake2b(key=key, digest_size=8)
