"""gemini: Google's `gemini`.

Done is a `response` with neither `error` nor `warnings` beside it, of a model whose every answer was whole: it glues halves
together, and exits 0. Its errors stand as JSON at the end of its standard error. It has no costs.
"""
import json
import uuid
from typing import Any, NoReturn

from .tool import Ran, conclude, guarded, run
from .work import Ended, Work

SETTINGS = {"security": {"auth": {"selectedType": "gemini-api-key"}}, "privacy": {"usageStatisticsEnabled": False},
            "general": {"enableAutoUpdate": False}, "model": {"maxSessionTurns": 100}}


def work_on(work: Work) -> NoReturn:
    """One run."""
    watch = guarded(work, "/v1beta/models?pageSize=1", lambda key: {"x-goog-api-key": key})
    folder = work.home / ".gemini"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "settings.json").write_text(json.dumps(SETTINGS | attached(work)))
    (folder / "GEMINI.md").write_text(work.soul_text() + "\n")
    environment = work.environment(GOOGLE_GEMINI_BASE_URL=watch.url, GEMINI_CLI_TRUST_WORKSPACE="true", GEMINI_CLI_NO_RELAUNCH="true",
                                   GEMINI_CLI_HOME=str(work.home))
    argv = [work.tool.program, "-o", "json", "--approval-mode", "yolo", "-m", work.model]
    before, fresh = work.session().get("session"), str(uuid.uuid4())
    work.keep_session(before or fresh)
    ran = run(work, [*argv, *(["--resume", before] if before else ["--session-id", fresh])], environment, work.prompt(), watch)
    if before and ran.code == 42 and ran.stopped is None:  # it knows that session no more
        work.keep_session(fresh)
        ran = run(work, [*argv, "--session-id", fresh], environment, work.prompt(), watch)
    ended = understood(ran)
    if watch.cut and not ended.error:
        ended.error, ended.later = "An answer of its model ended before it was whole", True
    conclude(work, watch, ran, ended)


def attached(work: Work) -> dict[str, Any]:
    """How it is told of Orkosi's own tools; the key comes by its environment."""
    return {"mcpServers": {"orkosi": {"httpUrl": work.door, "headers": {"Authorization": "Bearer $ORKOSI_MCP_TOKEN"}}}} if work.door else {}


def understood(ran: Ran) -> Ended:
    """What its output says; its errors come without any."""
    said = _json_at_end(ran.out) or _json_at_end(ran.err)
    if not said:
        return Ended(error=ran.err.strip()[-500:] or f"gemini ended with {ran.code}, and wrote nothing that can be read")
    tokens = [model.get("tokens") or {} for model in ((said.get("stats") or {}).get("models") or {}).values()]
    ended = Ended(text=str(said.get("response") or ""), tokens_in=sum(one.get("prompt", 0) for one in tokens),
                  tokens_out=sum(one.get("candidates", 0) + one.get("thoughts", 0) for one in tokens))
    if trouble := said.get("error") or said.get("warnings"):
        ended.error = str(trouble.get("message") if isinstance(trouble, dict) else trouble)[:500]
    return ended


def _json_at_end(text: str) -> dict[str, Any]:
    """The JSON object that a text ends with; {} where it ends with none."""
    text = text.strip()
    at = text.find("{")
    while at >= 0:
        try:
            found = json.loads(text[at:])
            return found if isinstance(found, dict) else {}
        except ValueError:
            following = text.find("\n{", at)
            at = following + 1 if following >= 0 else -1
    return {}
