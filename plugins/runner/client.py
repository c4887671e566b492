"""A worker's side of the API: the server over HTTP, by the address it has written into its data folder, or by a given one.

Surprise: the address is read anew for every request, for the server may come back on another port
while a brain is at work.
"""
import http.client
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


class Unreachable(OSError):
    """The server does not answer, or says that it cannot just now."""


SAID = ("vault_sealed", "decryption_failed")  # asking again soon does not mend these: whoever asked must hear it


class Client:
    def __init__(self, data: Path, key_file: Path, url: str | None = None):
        self.address, self.key_file, self.fixed = data / "server.url", key_file, url and url.rstrip("/").removesuffix("/api")
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # never through a proxy

    @property
    def url(self) -> str:
        if self.fixed:
            return self.fixed
        try:
            return self.address.read_text().strip()
        except OSError:
            raise Unreachable("The server is not running: there is no server.url in its data folder") from None

    def call(self, method: str, path: str, body: Any = None, timeout: float = 10.0) -> tuple[int, Any]:
        """(status, the answer's `data` or `error`). Unreachable also where the server answers 429 or 5xx, but for `SAID`."""
        request = urllib.request.Request(f"{self.url}/api{path}", method=method, data=None if body is None else json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", f"Bearer {self.key_file.read_text().strip()}")
        try:
            with self._open(request, timeout=timeout) as answer:
                return answer.status, json.loads(answer.read()).get("data")
        except urllib.error.HTTPError as error:
            said = error.read()
            told = _error(said)
            if (error.code == 429 or error.code >= 500) and told.get("code") not in SAID:
                raise Unreachable(f"{method} {path}: {error.code}") from None
            return error.code, told
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(f"{method} {path}: {error}") from None


def _error(said: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(said)["error"])
    except (ValueError, KeyError, TypeError):
        return {"code": "unknown", "message": said[:200].decode(errors="replace")}
