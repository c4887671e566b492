"""Hosts: the names under which this server may be asked.

A page from elsewhere can point a name of its own at this machine (DNS rebinding), and a browser would then
let it read the answers. So a name that is not ours is refused. An address is never refused: nobody can point
an address elsewhere.
"""
import ipaddress
import re
from functools import cached_property
from urllib.parse import urlsplit

from orkosi import settings
from plugins.fields import wrong


class Hosts:
    """The names of this server, as the settings say when it starts."""

    @cached_property
    def names(self) -> set[str]:
        ours = [settings.host, urlsplit(settings.public_url).hostname or "", *settings.hosts.split(",")]
        return {"localhost", *(name.strip().lower().rstrip(".") for name in ours)}

    def require(self, header: str) -> None:
        """Whether a `Host` header names this server; none, as of old programs, is let through. Invalid."""
        name = re.sub(r":\d*$", "", header).lower().rstrip(".")
        if not header or name in self.names:
            return
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            raise wrong("Host", f"{name[:100]!r} is no name of this server; an operator may add it to the setting `hosts`") from None
