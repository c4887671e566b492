"""The tunnel: what is open to who comes through Cloudflare Tunnel or Tailscale - the public API, webhooks and hooks, and nothing else.

It has a listener of its own (door.py), since what is said of a client's address can be believed only where nobody but the tunnel
says it: at the first one, agents and whoever else is on this machine could. Surprise: all else does not exist for who comes in there,
which is said before anybody asks who they are; and they have their own, tighter limits.
"""
import ipaddress

from orkosi import Endpoint, NotFound, Request, clean
from plugins.server.limits import limiter

OPEN = ("/api/v1/public/", "/api/billing/webhook", "/hooks/")
THROUGH = "orkosi.tunnel"  # in the environment of a request that came in there
SECURE = ("Strict-Transport-Security", "max-age=31536000")


def client_of(said: str) -> str:
    """An address as the limits count it: IPv6 by its /64, which is what one household has; "" for what is none."""
    try:
        found = ipaddress.ip_address(said.strip())
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv4Address) or found.is_loopback or found.is_link_local:  # those last have all of a network in one /64
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)).network_address)


def require(request: Request, endpoint: Endpoint | None, again: bool) -> None:
    """Count a request from the tunnel, but for one that only asks again, and see that it is for what is open there. NotFound, TooMany."""
    if not again:
        limiter.take("tunnel", request.address)
    if not (endpoint.path if endpoint else request.path).startswith(OPEN):
        raise NotFound(f"There is no {clean(request.path)} here; what is, is below {' and '.join(OPEN)}")
