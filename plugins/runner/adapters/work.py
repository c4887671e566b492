"""Work: one run of an adapter - what it is told, where it may work, and how it says what came of it.

A session is the tool's own memory of a task. Its name is kept in the agent's home, so that the next attempt goes on where
this one ended. Surprise: failures report, too, for they cost tokens as well.
"""
import contextlib
import json
import os
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

from orkosi import Struct
from plugins.agents.adapters import ADAPTERS

from . import prompt

DONE, FAILED, LATER = 0, 1, 75
MARGIN = 0.1  # of its time, in which it must end its tool and report, 2 to 20 s


class Ended(Struct, kw_only=True):
    """How a tool ended: `text` is the last it said, `error` what went wrong, and `later` whether that may pass; `review`: somebody must look."""
    text: str = ""
    error: str = ""
    later: bool = False
    review: bool = False
    retry_in: float | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    cost_micros: int = 0


class Work:
    """What one run has to do, out of its standard input and its environment."""

    def __init__(self, adapter: str):
        self.adapter, self.tool = adapter, ADAPTERS[adapter]
        self.told: dict[str, Any] = json.load(sys.stdin)
        get = os.environ.get
        self.name, self.role, self.model = get("ORKOSI_AGENT", ""), get("ORKOSI_ROLE", ""), get("ORKOSI_MODEL", "")
        self.base_url = (get("ORKOSI_BASE_URL") or self.tool.base_url).rstrip("/")
        self.patience, self.most_calls = float(get("ORKOSI_PATIENCE", "120")), int(get("ORKOSI_MOST_CALLS", "200"))
        seconds = float(get("ORKOSI_SECONDS", "3600"))
        self.until = time.monotonic() + seconds - min(20.0, max(2.0, MARGIN * seconds))
        self.home, self.workspace = Path.home(), Path.cwd()
        self.report_file = Path(os.environ["ORKOSI_REPORT"])
        self.scratch = self.report_file.parent
        self.door_key = ""
        self._door: str | None = None
        (self.scratch / "tmp").mkdir(exist_ok=True)
        self.soul = self.workspace / "SOUL.md"
        task = self.told.get("task")
        self._session_file = self.home / ".orkosi" / "sessions" / f"task-{task['id']}.json" if task else None

    @property
    def key(self) -> str:
        """The credential that its tool signs in with."""
        return os.environ.get(self.tool.key, "") if self.tool.key else ""

    def prompt(self, with_soul: bool = False) -> str:
        """What its tool is told."""
        return prompt.composed(self.name, self.role, self.told, self.soul_text() if with_soul else "", bool(self._door))

    def soul_text(self) -> str:
        """Who the agent is."""
        with contextlib.suppress(OSError):
            return self.soul.read_text(errors="replace")[:65536].strip()
        return ""

    def environment(self, **more: str) -> dict[str, str]:
        """What its tool gets: all that a brain gets, a temporary folder of its own, and this."""
        own = {"TMPDIR": str(self.scratch / "tmp")} | ({"ORKOSI_MCP_TOKEN": self.door_key} if self.door else {})
        return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | own | more

    # ── Orkosi among its tools ──

    @property
    def door(self) -> str:
        """Where its tool finds Orkosi's own tools; "" where it is of no use to offer them, which is looked into once."""
        if self._door is None:
            self._door = self._try_door()
        return self._door

    def _try_door(self) -> str:
        """Ask the server whether the key is good: of a wrong one, no tool says a word."""
        url = os.environ.get("ORKOSI_URL", "")
        try:
            self.door_key = Path(os.environ["ORKOSI_KEY_FILE"]).read_text().strip()
            asked = urllib.request.Request(f"{url}/mcp", json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode(), {
                "Authorization": f"Bearer {self.door_key}", "Content-Type": "application/json"})
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=5) as answer:
                json.load(answer)["result"]
        except (OSError, ValueError, KeyError) as error:
            print(f"Orkosi's own tools are not offered: {url}/mcp does not let this agent in ({error})", file=sys.stderr, flush=True)
            return ""
        return f"{url}/mcp"

    # ── its session ──

    def session(self) -> dict[str, Any]:
        """The session of this task that an attempt before this one had with this tool; {} where there is none."""
        try:
            found = json.loads(self._session_file.read_text()) if self._session_file else {}
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) and found.get("adapter") == self.adapter and isinstance(found.get("session"), str) else {}

    def keep_session(self, session: str, **more: Any) -> None:
        """Remember a session for the next attempt."""
        if self._session_file:
            with contextlib.suppress(OSError):
                self._session_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._session_file.write_text(json.dumps({"adapter": self.adapter, "session": session, **more}))

    # ── its end ──

    def report(self, tokens_in: int, tokens_out: int, cost_micros: int, **more: Any) -> None:
        """Write what this run has cost."""
        fresh = self.report_file.with_suffix(".new")
        fresh.write_text(json.dumps({"tokens_in": tokens_in, "tokens_out": tokens_out, "cost_micros": cost_micros, **more}))
        fresh.replace(self.report_file)

    def end(self, ended: Ended) -> NoReturn:
        """Report, say the result or what went wrong, and end as a brain does."""
        error = ended.error or ("" if ended.text.strip() else f"{self.adapter} ended without an answer")
        more: dict[str, Any] = {"status": "review"} if ended.review and not error else {}
        if error and ended.retry_in is not None:
            more["retry_in_seconds"] = min(max(0, round(ended.retry_in)), 86400)
        self.report(ended.tokens_in, ended.tokens_out, ended.cost_micros, **more)
        if error:
            print(error, file=sys.stderr, flush=True)
        else:
            print(ended.text, flush=True)
        sys.exit(DONE if not error else LATER if ended.later else FAILED)
