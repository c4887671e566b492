"""Outbound: one careful HTTP request to an address that somebody gave.

Owns no table. The name is resolved once, every address it has is checked, and one of those is connected to: a name that resolves
to something else a moment later leads nowhere. TLS and `Host` still speak of the name. No redirect is followed, no proxy of the environment
is asked, and the deadline is one for everything, so a receiver that drips a byte a second ends with it. Surprise: a 3xx is an answer like another.
"""
import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from orkosi import Plugin, clean

plugin = Plugin("Outbound", layer="ground")

SECONDS, MOST, LONGEST = 10.0, 64 << 10, 2000
NAT64 = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Unreached(Exception):
    """There is no whole answer; the text says why."""


class Forbidden(Unreached):
    """The address is one that may not be called."""


class Answer(NamedTuple):
    """What came back; of the body at most 64 KiB, where nothing else was asked for."""
    status: int
    headers: list[tuple[str, str]]
    body: bytes


# ── what an address may be ──


def split(url: str, *, private: bool, plain: bool = False) -> SplitResult:
    """The parts of an address that may be called, without looking its name up; `plain` lets http:// go anywhere. Forbidden, with the way out."""
    if len(url) > LONGEST or not all("!" <= char <= "~" for char in url):
        raise Forbidden(f"at most {LONGEST} printable ASCII characters, without spaces; write others as %XX, and a host's as xn--")
    try:
        place = urlsplit(url)
        port, host = place.port, place.hostname
    except ValueError as error:
        raise Forbidden(f"it is no address: {clean(str(error), 100)}") from None
    if place.scheme not in ("https", "http") or not host:
        raise Forbidden("it must begin with https:// and name a host")
    if place.scheme == "http" and not (private or plain):
        raise Forbidden("it must begin with https://")
    if "@" in place.netloc:
        raise Forbidden("no user or password belongs into it; what is sent is signed instead")
    if "#" in url:
        raise Forbidden("leave the fragment out, from # on: it is never sent")
    if port == 0:
        raise Forbidden("a port is 1 to 65535")
    return place


def public(address: Address) -> bool:
    """Whether an address is one of the open Internet; of one that wraps an IPv4 address, whether that is."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None)
        if inner is not None:
            return public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def resolved(place: SplitResult, ends: float, *, private: bool, plain: bool = False) -> list[str]:
    """The checked addresses of a name. Forbidden where one of them may not be called, Unreached."""
    found: list[Any] = []

    def look_up() -> None:
        try:
            found.extend(info[4][0] for info in socket.getaddrinfo(place.hostname, _port(place), type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)

    # In a thread of its own: the system's resolver knows no deadline.
    thread = threading.Thread(target=look_up, name="resolve", daemon=True)
    thread.start()
    thread.join(_left(ends))
    if thread.is_alive():
        raise Unreached("its name is not resolved in time")
    if not found or isinstance(found[-1], Exception):
        raise Unreached(f"{place.hostname} is not found")
    for text in found:
        address = ipaddress.ip_address(text.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        if place.scheme == "http" and not (plain or mapped.is_loopback):
            raise Forbidden("http:// is for this machine alone; use https://")
        if not private and not public(address):
            raise Forbidden(f"{place.hostname} is a private address")
    return list(dict.fromkeys(found))


def _port(place: SplitResult) -> int:
    return place.port or (443 if place.scheme == "https" else 80)


# ── one request ──


def request(method: str, url: str, body: bytes, headers: dict[str, str], *, private: bool = False, plain: bool = False,
            seconds: float = SECONDS, most: int = MOST) -> Answer:
    """Send `body`, and what is answered within `seconds` in all, `most` bytes of it. Forbidden, Unreached.

    `private` lets it go to this machine and its network; `plain`, over http:// to others than this machine.
    """
    ends = time.monotonic() + seconds
    place = split(url, private=private, plain=plain)
    path = (place.path or "/") + (f"?{place.query}" if place.query else "")
    usual = {"Host": place.netloc, "User-Agent": "Orkosi", "Connection": "close"} | ({"Content-Length": str(len(body))} if method != "GET" else {})
    head = "".join(f"{name}: {value}\r\n" for name, value in (usual | headers).items())
    if len(head.splitlines()) > len(usual | headers):
        raise Unreached("what goes into its headers has a line break in it")
    try:
        with _connected(place, resolved(place, ends, private=private, plain=plain), ends) as sock:
            sock.settimeout(_left(ends))
            sock.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("ascii") + body)
            with http.client.HTTPResponse(_Timed(sock, ends), method=method) as answer:  # type: ignore[arg-type]
                answer.begin()
                return Answer(answer.status, answer.getheaders(), answer.read(most))
    except TimeoutError:
        raise Unreached(f"no whole answer within {seconds:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise Unreached(f"its certificate is not accepted: {clean(error.verify_message, 200)}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreached(f"it does not answer: {clean(str(error) or type(error).__name__, 200)}") from None


def _connected(place: SplitResult, addresses: list[str], ends: float) -> socket.socket:
    error: OSError | None = None
    for address in addresses:
        try:
            sock = socket.create_connection((address, _port(place)), timeout=_left(ends))
        except OSError as failed:
            error = failed
            continue
        if place.scheme == "http":
            return sock
        try:
            return _trust().wrap_socket(sock, server_hostname=place.hostname)
        except OSError:  # which every failure of TLS is
            sock.close()
            raise
    raise error or OSError("it has no address")


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Timed(io.RawIOBase):
    """A socket to read from until one deadline, however many reads that takes."""

    def __init__(self, sock: socket.socket, ends: float) -> None:
        self.sock, self.ends = sock, ends

    def makefile(self, *args: Any) -> io.BufferedReader:
        """What `HTTPResponse` reads from."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """It is, always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Some bytes. TimeoutError after the deadline."""
        self.sock.settimeout(_left(self.ends))
        return self.sock.recv_into(buffer)
