"""opencode: `opencode run`, with any model that speaks as OpenAI's do.

Done is a last step that ended with `stop`, and no error. Text is that of the last message: those before may be halves. Tokens
are the sum over its steps, of this run alone. Costs are only known of models whose prices it is told.
"""
import json
from typing import Any, NoReturn

from .tool import Ran, conclude, guarded, lines, run
from .watch import Watch
from .work import Ended, Work

QUIET = {f"OPENCODE_DISABLE_{what}": "1" for what in ("AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "DEFAULT_PLUGINS", "PROJECT_CONFIG")}


def work_on(work: Work) -> NoReturn:
    """One run."""
    watch = guarded(work, "/models", lambda key: {"Authorization": f"Bearer {key}"})
    config = work.home / ".config" / "orkosi-opencode.json"
    config.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    config.write_text(json.dumps(settings(work, watch)))
    folders = {f"XDG_{kind}_HOME": str(work.home / place) for kind, place in (
        ("CONFIG", ".config"), ("DATA", ".local/share"), ("STATE", ".local/state"), ("CACHE", ".cache"))}
    environment = work.environment(OPENCODE_CONFIG=str(config), **QUIET, **folders)
    title = f"task {work.told['task']['id']}" if work.told.get("task") else "job"
    argv = [work.tool.program, "run", "--format", "json", "--title", title]
    before = work.session().get("session")
    ran = run(work, [*argv, *(["-s", before] if before else [])], environment, work.prompt(), watch)
    if before and ran.stopped is None and not lines(ran.out):  # it knows that session no more
        ran = run(work, argv, environment, work.prompt(), watch)
    if session := next((one["sessionID"] for one in lines(ran.out) if isinstance(one.get("sessionID"), str)), None):
        work.keep_session(session)
    conclude(work, watch, ran, understood(ran))


def settings(work: Work, watch: Watch) -> dict[str, object]:
    """Its whole configuration: one provider, no questions."""
    model = f"orkosi/{work.model}"
    options = {"baseURL": watch.url, "apiKey": f"{{env:{work.tool.key}}}", "timeout": 300_000, "chunkTimeout": round(2000 * work.patience)}
    return {"model": model, "small_model": model, "autoupdate": False, "share": "disabled",
            "instructions": [str(work.soul)] if work.soul.is_file() else [],
            **attached(work), "permission": {"*": "allow", "external_directory": "deny", "question": "deny"},
            "provider": {"orkosi": {"npm": "@ai-sdk/openai-compatible", "name": "orkosi", "options": options,
                                    "models": {work.model: {"name": work.model}}}}}


def attached(work: Work) -> dict[str, Any]:
    """How it is told of Orkosi's own tools; the key comes by its environment."""
    return {"mcp": {"orkosi": {"type": "remote", "url": work.door, "oauth": False, "timeout": 330_000, "headers": {
        "Authorization": "Bearer {env:ORKOSI_MCP_TOKEN}"}}}} if work.door else {}


def understood(ran: Ran) -> Ended:
    """What its output says."""
    said = lines(ran.out)
    steps = [one["part"] for one in said if one.get("type") == "step_finish"]
    texts = [one["part"] for one in said if one.get("type") == "text"]
    tokens = [step.get("tokens") or {} for step in steps]
    ended = Ended(cost_micros=round(1e6 * sum(step.get("cost") or 0 for step in steps)),
                  tokens_in=sum(one.get("input", 0) + sum((one.get("cache") or {}).values()) for one in tokens),
                  tokens_out=sum(one.get("output", 0) + one.get("reasoning", 0) for one in tokens))
    error = next((one["error"] for one in reversed(said) if one.get("type") == "error"), None)
    if error:
        ended.error = str((error.get("data") or {}).get("message") or error.get("name") or error)[:500]
    elif not steps or steps[-1].get("reason") != "stop":
        ended.error = ran.err.strip()[-500:] or f"opencode ended with {ran.code} before its model was done"
    else:
        last = steps[-1].get("messageID")
        ended.text = "".join(part.get("text", "") for part in texts if part.get("messageID") == last)
    return ended
