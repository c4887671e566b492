"""claude-code: Anthropic's `claude -p`.

Done is a `result` without `is_error`; `subtype` is "success" for errors of the API, too. Tokens are the sum over `modelUsage`, of
this process alone, also where it goes on with a session. Hooks of the workspace would run unasked, and `@/any/file` in a task
would send that file to the model; both are off.
"""
import json
import uuid
from typing import Any, NoReturn

from .tool import Ran, conclude, guarded, is_root, run
from .work import Ended, Work

QUIET = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",
         "CLAUDE_CODE_MAX_RETRIES": "2", "API_TIMEOUT_MS": "300000"}


def work_on(work: Work) -> NoReturn:
    """One run."""
    watch = guarded(work, "/v1/models?limit=1", lambda key: {"x-api-key": key, "anthropic-version": "2023-06-01"})
    environment = work.environment(ANTHROPIC_BASE_URL=watch.url, **QUIET, **({"IS_SANDBOX": "1"} if is_root() else {}))
    argv = [work.tool.program, "-p", "--output-format", "json", "--permission-mode", "bypassPermissions", "--setting-sources", "user",
            "--strict-mcp-config", *attached(work), *(["--model", work.model] if work.model else []),
            *(["--append-system-prompt-file", str(work.soul)] if work.soul.is_file() else [])]
    before, fresh = work.session().get("session"), str(uuid.uuid4())
    work.keep_session(before or fresh)
    ran = run(work, [*argv, *(["--resume", before] if before else ["--session-id", fresh])], environment, work.prompt(), watch)
    if before and ran.code and ran.stopped is None and not ran.out.strip():  # it knows that session no more
        work.keep_session(fresh)
        ran = run(work, [*argv, "--session-id", fresh], environment, work.prompt(), watch)
    conclude(work, watch, ran, understood(ran))


def attached(work: Work) -> list[str]:
    """How it is told of Orkosi's own tools; the key comes by its environment."""
    if not work.door:
        return []
    file = work.scratch / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"orkosi": {
        "type": "http", "url": work.door, "headers": {"Authorization": "Bearer ${ORKOSI_MCP_TOKEN}"}}}}))
    return ["--mcp-config", str(file)]


def understood(ran: Ran) -> Ended:
    """What its output says."""
    try:
        said: dict[str, Any] = json.loads(ran.out)
        usage = list(said.get("modelUsage", {}).values())
        ended = Ended(cost_micros=round(1e6 * (said.get("total_cost_usd") or 0)), tokens_out=sum(one["outputTokens"] for one in usage),
                      tokens_in=sum(one["inputTokens"] + one["cacheReadInputTokens"] + one["cacheCreationInputTokens"] for one in usage))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Ended(error=ran.err.strip()[-500:] or "claude wrote nothing that can be read")
    text = str(said.get("result") or "")
    if said.get("is_error") or said.get("type") != "result":
        ended.error = text[:500] or f"claude ended with {said.get('subtype')}"
        ended.later = said.get("subtype") == "success" and said.get("api_error_status") is None
    else:
        ended.text = text
    return ended
