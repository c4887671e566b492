"""ollama, openai-compatible and shell: one question, one answer.

The first two ask a model over HTTP, without tools: the answer is the result. An answer that was cut off at its model's length is one
to review. shell hands the prompt to any program, whose output is the result if it exits 0.
"""
import http.client
import json
import os
import time
from typing import Any, NoReturn

from .tool import conclude, run
from .watch import Fault, Watch, fault_of
from .work import Ended, Work

CONTEXT = 16384  # tokens that a local model is given: by itself it takes 4,096, and forgets the beginning of what is longer


def ollama(work: Work) -> NoReturn:
    """Ask a model of a local Ollama."""
    body = {"model": work.model, "messages": messages(work), "stream": False, "options": {"num_ctx": CONTEXT}}
    said = ask(work, "/api/chat", body)
    ended = Ended(tokens_in=said.get("prompt_eval_count") or 0, tokens_out=said.get("eval_count") or 0)
    if said.get("error") or said.get("done") is not True:
        ended.error, ended.later = str(said.get("error") or "The model's answer ended before it was whole"), not said.get("error")
    else:
        ended.text, ended.review = str((said.get("message") or {}).get("content") or ""), said.get("done_reason") == "length"
    work.end(ended)


def openai_compatible(work: Work) -> NoReturn:
    """Ask a model behind /chat/completions."""
    said = ask(work, "/chat/completions", {"model": work.model, "messages": messages(work), "stream": False})
    usage, choice = said.get("usage") or {}, (said.get("choices") or [{}])[0]
    ended = Ended(tokens_in=usage.get("prompt_tokens") or 0, tokens_out=usage.get("completion_tokens") or 0)
    if choice.get("finish_reason") is None:
        ended.error, ended.later = "The model's answer ended before it was whole", True
    else:
        ended.text, ended.review = str((choice.get("message") or {}).get("content") or ""), choice["finish_reason"] == "length"
    work.end(ended)


def messages(work: Work) -> list[dict[str, str]]:
    """Who the agent is, and its task."""
    soul = work.soul_text()
    return [*([{"role": "system", "content": soul}] if soul else []), {"role": "user", "content": work.prompt()}]


def ask(work: Work, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The model's answer; where there is none, the run ends here, and says whether that may pass."""
    watch = Watch(work.base_url, max(0.1, min(work.patience * 4, work.until - time.monotonic())), 1)  # it says nothing until it is done
    connection = watch.connect()
    key = os.environ.get("OPENAI_API_KEY")
    try:
        connection.request("POST", watch.base.path.rstrip("/") + path, json.dumps(body).encode(), {
            "Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key and work.adapter != "ollama" else {}))
        answer = connection.getresponse()
        raw = read(answer, work.until)
        fault = fault_of(answer.status, answer.headers, raw) if answer.status >= 400 else None
        if fault is None:
            found = json.loads(raw)
            if isinstance(found, dict):
                return found
            fault = Fault("The model's server answers no object", False)
    except TimeoutError:
        fault = Fault(f"The model said nothing for {watch.patience:g} s", True)
    except http.client.IncompleteRead:
        fault = Fault("The model's answer ended before it was whole", True)
    except (OSError, http.client.HTTPException) as error:
        fault = Fault(f"The model at {watch.base.netloc} cannot be reached: {error}", True)
    except ValueError:
        fault = Fault("The model's answer is no JSON, or but half of it", True)
    finally:
        connection.close()
    work.end(Ended(error=fault.message, later=fault.later, retry_in=fault.retry_in))


def read(answer: http.client.HTTPResponse, until: float) -> bytes:
    """All of an answer, unless its time is up: each piece may come in time, and the whole never."""
    raw, length = bytearray(), answer.getheader("Content-Length")
    while piece := answer.read1(65536):
        raw += piece
        if time.monotonic() > until:
            raise TimeoutError
    if length is not None and len(raw) < int(length):
        raise http.client.IncompleteRead(bytes(raw))
    return bytes(raw)


def shell(work: Work) -> NoReturn:
    """Hand the prompt to the agent's own command."""
    argv = json.loads(os.environ.get("ORKOSI_COMMAND") or "[]")
    ran = run(work, argv, work.environment(), work.prompt(with_soul=True), None)
    error = "" if ran.code == 0 else f"{argv[0]} ended with {ran.code}\n{ran.err[-2000:]}".strip()
    conclude(work, None, ran, Ended(text=ran.out, error=error, later=ran.code == 75))
