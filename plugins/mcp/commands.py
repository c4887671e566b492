"""`orkosi.py mcp --stdio`: the same for clients that start a program: a bridge from its standard input to the running server.

Surprise: it knows nothing of MCP but what a message must say of itself by HTTP. A call that waits holds none of the others up, and a client that
cancels one, in the revision without a handshake, hangs up on it.
"""
import base64
import contextlib
import http.client
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from orkosi import DATA, Unavailable, settings
from plugins import operator

from . import plugin, rpc

MANY = 16        # calls at once
PATIENCE = 330.0  # seconds: a little longer than the longest wait


@plugin.command("mcp")
@click.option("--stdio", is_flag=True, required=True, help="Speak on standard input and output.")
@click.option("--url", help="Where the server is; by default that of the data folder.")
@click.option("--key-file", type=click.Path(path_type=Path), help="A file with an API key; by default ORKOSI_KEY_FILE, or the operator's own.")
@DATA
def mcp(stdio: bool, url: str | None, key_file: Path | None, data: Path | None) -> None:
    """Speak MCP on standard input and output, for clients that start a program; the server must run."""
    settings.load(data=data)
    file = key_file or Path(os.environ.get("ORKOSI_KEY_FILE") or operator.file_of(settings.data))
    try:
        where = url or os.environ.get("ORKOSI_URL") or (settings.data / "server.url").read_text().strip()
        key = file.read_text().strip()
    except OSError as error:
        raise Unavailable(f"No server runs for {settings.data}, or there is no key in {file} ({error.strerror}); start it with: "
                          "python3 orkosi.py serve") from None
    bridge = Bridge(where.rstrip("/").removesuffix("/api"), key)
    with ThreadPoolExecutor(MANY) as hands:
        for line in sys.stdin.buffer:
            if line.strip():
                bridge.take(line, hands)


class Bridge:
    """A client's messages on their way to the server, and its answers on their way back."""

    def __init__(self, url: str, key: str):
        self.url, self.key, self.version = urlsplit(url), key, ""
        self._writing, self._open = threading.Lock(), dict[Any, http.client.HTTPConnection]()

    def take(self, line: bytes, hands: ThreadPoolExecutor) -> None:
        """Send one message. What begins a conversation, and what has no answer, goes before all that follows."""
        try:
            message = json.loads(line)
        except ValueError:
            message = {}
        said = message if isinstance(message, dict) else {}
        if said.get("method") == "notifications/cancelled":
            params = said.get("params")
            self._cancel(params.get("requestId") if isinstance(params, dict) else None)
        if "id" not in said or said.get("method") == "initialize":
            self.pass_on(line, said)
        else:
            hands.submit(self.pass_on, line, said)

    def _cancel(self, id: Any) -> None:
        connection = self._open.get(id) if not self.version and isinstance(id, int | str) else None
        if connection and connection.sock:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(2)

    def pass_on(self, line: bytes, message: dict[str, Any]) -> None:
        """Send a message, and write what is answered, also in pieces."""
        id = message.get("id")
        kind = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self.url.hostname or "", self.url.port, timeout=PATIENCE)
        if isinstance(id, int | str):
            self._open[id] = connection
        try:
            connection.request("POST", f"{self.url.path}/mcp", line.strip(), self._headers(message))
            answer = connection.getresponse()
            if (answer.getheader("Content-Type") or "").startswith("text/event-stream"):
                for piece in answer:
                    if piece.startswith(b"data: "):
                        self._write(piece[6:].strip())
            else:
                self._answered(answer.read(), message)
        except (OSError, http.client.HTTPException, AttributeError) as error:
            if id is not None:
                self._fail(id, f"The server at {self.url.geturl()} does not answer: {error}. Start it with: python3 orkosi.py serve")
        finally:
            self._open.pop(id if isinstance(id, int | str) else None, None)
            connection.close()

    def _headers(self, message: dict[str, Any]) -> dict[str, str]:
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        meta = params.get("_meta")
        version = (meta if isinstance(meta, dict) else {}).get(f"{rpc.META}protocolVersion") or self.version
        name = params.get(rpc.NAMED.get(str(message.get("method")), ""))
        said = {"MCP-Protocol-Version": version, "Mcp-Method": message.get("method"), "Mcp-Name": name}
        return {"Authorization": f"Bearer {self.key}", "Content-Type": rpc.JSON, "Accept": f"{rpc.JSON}, text/event-stream"} | {
            header: _encoded(value) for header, value in said.items() if isinstance(value, str) and value}

    def _answered(self, raw: bytes, message: dict[str, Any]) -> None:
        if not raw:
            return
        try:
            said = json.loads(raw)
        except ValueError:
            said = {}
        if "jsonrpc" not in said:  # refused before it was MCP's
            if "id" not in message and message:
                return  # nobody waits for an answer to that
            self._fail(message.get("id"), str((said.get("error") or {}).get("message") or "The server answered something that is no JSON"))
            return
        if message.get("method") == "initialize" and "result" in said:
            self.version = said["result"]["protocolVersion"]
        self._write(raw)

    def _fail(self, id: Any, message: str) -> None:
        self._write(json.dumps({"jsonrpc": "2.0", "id": id, "error": {"code": -32000, "message": message}}).encode())

    def _write(self, raw: bytes) -> None:
        with self._writing, contextlib.suppress(BrokenPipeError):
            sys.stdout.buffer.write(raw + b"\n")
            sys.stdout.buffer.flush()


def _encoded(text: str) -> str:
    """A value as a header can say it."""
    if text.isascii() and text.isprintable() and text == text.strip() and not text.startswith("=?base64?"):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="
