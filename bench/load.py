"""Load: requests a second and their delays, by `wrk`, and a plain client for what wrk cannot ask."""
import contextlib
import http.client
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

FRESH = "local fresh = function() n = n + 1; return n .. '-' .. math.random(1000000000) end"
MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


class Call(NamedTuple):
    """A request. An @ in the body becomes a number that no other has."""
    path: str
    body: str | None = None
    token: str = ""
    share: int = 100  # of a hundred, where several are mixed


class Found(NamedTuple):
    rate: float
    p50: float  # ms
    p99: float


def here() -> bool:
    return shutil.which("wrk") is not None


def script(calls: list[Call]) -> str:
    """wrk's script: what never changes is made once, so that wrk itself costs little."""
    lines, choose, limit = ["local made = {}", "init = function()", "  math.randomseed(os.time())"], [], 0
    for number, call in enumerate(calls, 1):
        method = "GET" if call.body is None else "POST"
        headers = "{" + (f"['Authorization'] = [==[{call.token}]==], " if call.token else "") + ("['Content-Type'] = 'application/json'" if call.body else "") + "}"
        body = "nil" if call.body is None else f"[==[{call.body}]==]"
        lines.append(f"  made[{number}] = wrk.format('{method}', '{call.path}', {headers}, {body})")
        limit += call.share
        made = f"made[{number}]"
        if "@" in (call.body or ""):
            text = f"([==[{call.body}]==]):gsub('@', fresh)"
            made = f"wrk.format('{method}', '{call.path}', {headers}, ({text}))"
        choose.append(f"  if dice <= {limit} then return {made} end")
    return "\n".join([*lines, "end", "local n = 0", FRESH, "request = function()", "  local dice = math.random(100)", *choose, "end", ""])


@contextlib.contextmanager
def under_load(url: str, calls: list[Call], seconds: int, connections: int = 8) -> Iterator[subprocess.Popen]:
    """wrk, at work until the end of the block at most."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script(calls))
        file.flush()
        program = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency", "-s", file.name, url]
        process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


def answer_of(process: subprocess.Popen, seconds: int) -> Found:
    """What wrk has found. An answer that is no success, or none at all, fails the measurement."""
    out, _ = process.communicate(timeout=seconds + 30)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    delays = {share: float(value) * MS[unit] for share, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)", out)}
    bad = re.search(r"Non-2xx or 3xx responses: \d+|Socket errors: .*", out)
    if bad or not rate or len(delays) != 2:
        raise RuntimeError(bad[0] if bad else f"wrk said {out[-300:]!r}")
    return Found(float(rate[1]), delays["50"], delays["99"])


def wrk(url: str, calls: list[Call], seconds: int, connections: int = 8) -> Found:
    with under_load(url, calls, seconds, connections) as process:
        return answer_of(process, seconds)


class Client:
    """One connection, one request after the other."""

    def __init__(self, url: str, token: str):
        place = urlsplit(url)
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
        self._headers = {"Authorization": token, "Content-Type": "application/json"}

    def ask(self, path: str, body: object = None) -> tuple[int, Any]:
        self.send(path, body)
        return self.receive()

    def send(self, path: str, body: object = None) -> None:
        self._connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), self._headers)

    def receive(self) -> tuple[int, Any]:
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")

    def status(self) -> int:
        """The status of an answer that need not be understood."""
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def post(self, path: str, body: object) -> Any:
        """The data of a success."""
        status, found = self.ask(path, body)
        if status not in (200, 201):
            raise RuntimeError(f"{path} answered {status}: {found}")
        return found["data"]

    def close(self) -> None:
        self._connection.close()
