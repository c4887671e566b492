"""Leases: the tokens of claims.

A token is random, and carries a seal over that and its job's number: so a token that is not a job's lease any more can be told from
one that never was, though only the present one is kept. Whether a lease holds is decided by comparing it with the row alone.
"""
import hmac
import os
from hashlib import blake2b

from plugins import signing


def tokens(jobs: list[int]) -> list[str]:
    """A new token for each of these jobs."""
    random, key = os.urandom(8 * len(jobs)).hex(), signing.secret("leases")
    return [(nonce := random[16 * at:16 * at + 16]) + _seal(key, nonce, job) for at, job in enumerate(jobs)]


def was_one(token: str, job: int) -> bool:
    """Whether a token was ever made for this job."""
    return hmac.compare_digest(token[16:].encode(), _seal(signing.secret("leases"), token[:16], job).encode())


def _seal(key: bytes, nonce: str, job: int) -> str:
    return blake2b(f"{nonce}{job}".encode(), key=key, digest_size=8).hexdigest()
