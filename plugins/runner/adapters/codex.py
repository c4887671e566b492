"""codex: OpenAI's `codex exec`.

Done is a `turn.completed` after an `agent_message`. Its `usage` is the total of the thread: where a session goes on, what the
attempts before it had used is taken off; a turn that failed says none, and then the thread's own record on the disk does. It has
no costs. Commands run in its sandbox, which lets them write into the workspace and use the network.
"""
import json
import tomllib
from pathlib import Path
from typing import Any, NoReturn

from .tool import Ran, conclude, guarded, lines, run
from .watch import Watch
from .work import Ended, Work

WAIT = 330  # seconds: a little longer than the longest wait for parts


def work_on(work: Work) -> NoReturn:
    """One run."""
    watch = guarded(work, "/models", lambda key: {"Authorization": f"Bearer {key}"})
    folder = work.home / ".codex"
    settings(work, watch, folder)
    before = work.session()
    argv = [work.tool.program, "exec", "--strict-config", "-s", "workspace-write"]
    rest = ["--json", "--skip-git-repo-check", *(["-m", work.model] if work.model else [])]
    environment = work.environment(CODEX_HOME=str(folder))
    ran = run(work, [*argv, *(["resume", *rest, before["session"], "-"] if before else [*rest, "-"])], environment, work.prompt(), watch)
    if before and not thread_of(ran) and ran.stopped is None:  # it knows that thread no more
        before = {}
        ran = run(work, [*argv, *rest, "-"], environment, work.prompt(), watch)
    ended, total = understood(ran, folder)
    ended.tokens_in, ended.tokens_out = max(0, total[0] - before.get("tokens_in", 0)), max(0, total[1] - before.get("tokens_out", 0))
    if thread := thread_of(ran):
        work.keep_session(thread, tokens_in=total[0], tokens_out=total[1])
    conclude(work, watch, ran, ended)


def settings(work: Work, watch: Watch, folder: Path) -> None:
    """Write its settings, and who the agent is."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = "\n".join(f"{name} = {json.dumps(value)}" for name, value in {
        "check_for_update_on_startup": False, "model_provider": "orkosi", "analytics.enabled": False, "sandbox_workspace_write.network_access": True,
        "features.plugins": False, "features.apps": False, "features.unbounded_connection_retries": False,
        "model_providers.orkosi.name": "orkosi", "model_providers.orkosi.base_url": watch.url, "model_providers.orkosi.env_key": work.tool.key,
        "model_providers.orkosi.wire_api": "responses", "model_providers.orkosi.request_max_retries": 2,
        "model_providers.orkosi.stream_max_retries": 2, "model_providers.orkosi.stream_idle_timeout_ms": round(2000 * work.patience),
        **attached(work)}.items())
    tomllib.loads(text)
    (folder / "config.toml").write_text(text + "\n")
    (folder / "AGENTS.md").write_text(work.soul_text() + "\n")


def attached(work: Work) -> dict[str, Any]:
    """How it is told of Orkosi's own tools; the key comes by its environment."""
    return {"mcp_servers.orkosi.url": work.door, "mcp_servers.orkosi.bearer_token_env_var": "ORKOSI_MCP_TOKEN",
            "mcp_servers.orkosi.default_tools_approval_mode": "approve", "mcp_servers.orkosi.tool_timeout_sec": WAIT} if work.door else {}


def thread_of(ran: Ran) -> str:
    """The thread that it began, or went on with."""
    return next((str(one["thread_id"]) for one in lines(ran.out) if one.get("type") == "thread.started"), "")


def understood(ran: Ran, folder: Path) -> tuple[Ended, tuple[int, int]]:
    """What its output says, and the tokens of its whole thread."""
    said = lines(ran.out)
    texts = [one["item"]["text"] for one in said if one.get("type") == "item.completed" and one["item"].get("type") == "agent_message"]
    none: dict[str, Any] = {}
    turn = next((one for one in reversed(said) if one.get("type") in ("turn.completed", "turn.failed")), none)
    if turn.get("type") == "turn.completed":
        return Ended(text=texts[-1] if texts else ""), (turn["usage"]["input_tokens"], turn["usage"]["output_tokens"])
    error = str((turn.get("error") or {}).get("message") or ran.err.strip()[-500:] or f"codex ended with {ran.code}")
    return Ended(error=error), on_record(folder, thread_of(ran))


def on_record(folder: Path, thread: str) -> tuple[int, int]:
    """The tokens of a thread, as its own record has them."""
    for path in (folder / "sessions").rglob(f"rollout-*{thread}.jsonl") if thread else ():
        counts = [one["payload"]["info"]["total_token_usage"] for one in lines(path.read_text(errors="replace"))
                  if (one.get("payload") or {}).get("type") == "token_count" and one["payload"].get("info")]
        if counts:
            return counts[-1]["input_tokens"], counts[-1]["output_tokens"]
    return 0, 0
