"""The tunnel's door: a second listener in the loop of the server.

Surprise: its connections are counted apart from the others, so that the world cannot take the places of who is here.
"""
import copy
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from waitress import wasyncore

from orkosi import settings
from plugins.server import tunnel
from plugins.server.http import Channel

if TYPE_CHECKING:
    from plugins.server.loop import Server

BODY, HEADERS = 256 << 10, 16 << 10  # bytes
PLACES = 200  # connections: the rest of the server's are for who is here


class Tunnelled(Channel):
    """A connection from the tunnel."""

    door: "Door"

    def environment(self, request: Any) -> dict[str, Any]:
        """What a request says, with the address that the tunnel gives for its client, and no cookie: nobody has a session here."""
        environ = super().environment(request)
        environ[tunnel.THROUGH] = True
        environ.pop("HTTP_COOKIE", None)
        said = environ.get(f"HTTP_{settings.tunnel_address_header.upper().replace('-', '_')}", "")
        environ["REMOTE_ADDR"] = tunnel.client_of(said) or environ["REMOTE_ADDR"]
        return environ

    def handle_close(self) -> None:
        self.door.open.discard(self)
        super().handle_close()


class Door(wasyncore.dispatcher):
    """What listens for the tunnel, in the loop of the server."""

    def __init__(self, server: "Server", port: int):
        self.server, self.open = server, set[Tunnelled]()
        self.adj = copy.copy(server.adj)
        self.adj.max_request_body_size, self.adj.max_request_header_size = BODY, HEADERS
        super().__init__(map=server._map)
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self.set_reuse_addr()
            self.bind(("127.0.0.1", port))
            self.listen(server.adj.backlog)
        except OSError:
            self.close()
            raise

    @property
    def port(self) -> int:
        """Where it listens."""
        found: int = self.socket.getsockname()[1]
        return found

    def readable(self) -> bool:
        return not self.server.finishing and len(self.open) < PLACES

    def writable(self) -> bool:
        return False

    def handle_accept(self) -> None:
        with suppress(OSError):  # gone before it was let in
            if (came := self.accept()) is not None:
                channel = Tunnelled(self.server, *came, self.adj, map=self.server._map)
                channel.door = self
                self.open.add(channel)
