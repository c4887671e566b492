"""Tokens: opaque, random, recognisable, and never stored.

`ork_<kind>_` + 32 base62 characters (190 bits) + a 6-character base62 CRC32, so that junk is
refused before the database is asked and a leaked one is found by its prefix. What is stored is
the SHA-256: with that much entropy, a slow hash would protect nothing.
"""
import hashlib
import hmac
import re
import secrets
import zlib
from typing import Literal

Kind = Literal["ses", "ref", "live", "agt", "inv", "rst", "set", "eml", "opr", "log", "hook"]
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SHAPE = re.compile(r"ork_(ses|ref|live|agt|inv|rst|set|eml|opr|log|hook)_([0-9A-Za-z]{32})([0-9A-Za-z]{6})")


def mint(kind: Kind) -> str:
    """A new token of `kind`."""
    body = "".join(secrets.choice(DIGITS) for _ in range(32))
    return f"ork_{kind}_{body}{_checksum(body)}"


def derived(kind: Kind, seed: bytes, parent: str) -> str:
    """The token of `kind` that follows `parent`: always the same one, and not to be guessed without both."""
    rest, body = int.from_bytes(hmac.digest(seed, f"{kind} {parent}".encode(), "sha256")), ""
    for _ in range(32):
        rest, digit = divmod(rest, 62)
        body += DIGITS[digit]
    return f"ork_{kind}_{body}{_checksum(body)}"


def is_one(token: str, *kinds: Kind) -> bool:
    """Whether this is a well-formed token of one of these kinds."""
    found = SHAPE.fullmatch(token) if len(token) < 64 else None
    return bool(found and found[1] in kinds and _checksum(found[2]) == found[3])


def digest(token: str) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).digest()


def masked(token: str) -> str:
    """What may be shown of a token: its kind and its last four characters."""
    return f"{token[:token.rindex('_') + 1]}…{token[-4:]}"


def _checksum(body: str) -> str:
    rest, out = zlib.crc32(body.encode()), ""
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        out = DIGITS[digit] + out
    return out
