"""Adapters: the tools that an agent's brain may be, and what each of them needs.

Owns nothing; how each tool is run, the runner knows.
"""
from typing import Annotated, Literal
from urllib.parse import urlsplit

from orkosi import Meta, Struct
from plugins.fields import wrong

AdapterName = Literal["claude-code", "codex", "gemini", "opencode", "ollama", "openai-compatible", "shell"]
BaseUrl = Annotated[str, Meta(min_length=8, max_length=500, description="Where an adapter's model is, if not at its maker's: http(s)://…")]


class Adapter(Struct, frozen=True):
    """One tool: its program, how one gets it, the credential it signs in with, where its model is, and whether it must be told which."""
    program: str = ""
    install: str = ""
    key: str = ""
    base_url: str = ""
    needs_model: bool = False


ADAPTERS: dict[str, Adapter] = {
    "claude-code": Adapter("claude", "npm install -g @anthropic-ai/claude-code", "ANTHROPIC_API_KEY", "https://api.anthropic.com"),
    "codex": Adapter("codex", "npm install -g @openai/codex", "OPENAI_API_KEY", "https://api.openai.com/v1"),
    "gemini": Adapter("gemini", "npm install -g @google/gemini-cli", "GEMINI_API_KEY", "https://generativelanguage.googleapis.com", True),
    "opencode": Adapter("opencode", "npm install -g opencode-ai", "OPENAI_API_KEY", "https://api.openai.com/v1", True),
    "ollama": Adapter(base_url="http://127.0.0.1:11434", needs_model=True),
    "openai-compatible": Adapter(needs_model=True),
    "shell": Adapter(),
}


def _is_address(text: str) -> bool:
    try:
        place = urlsplit(text)
        return place.scheme in ("http", "https") and bool(place.hostname)
    except ValueError:
        return False


def acceptable(adapter: str | None, command: list[str] | None, base_url: str | None, model: str | None) -> None:
    """Invalid where these do not make a brain together."""
    if base_url is not None and not _is_address(base_url):
        raise wrong("base_url", "Send an address such as http://127.0.0.1:11434/v1")
    if adapter is None:
        if base_url is not None:
            raise wrong("base_url", "Only an adapter has a model to be found there; send `adapter`, too")
        return
    tool = ADAPTERS[adapter]
    if adapter == "shell" and not command:
        raise wrong("command", "The adapter shell needs a command: a program that gets the prompt on standard input")
    if adapter != "shell" and command:
        raise wrong("command", f"The adapter {adapter} brings its own; leave the command out, or the adapter")
    if base_url is not None and adapter == "shell":
        raise wrong("base_url", "The adapter shell knows no model")
    if not base_url and adapter == "openai-compatible":
        raise wrong("base_url", "The adapter openai-compatible needs to know where its model is, such as http://127.0.0.1:8000/v1")
    if tool.needs_model and not model:
        raise wrong("model", f"The adapter {adapter} needs to be told which model")


def advice(name: str, adapter: str) -> str:
    """What to do where an adapter's program is not on this machine."""
    tool = ADAPTERS[adapter]
    return f"Agent {name}: {tool.program}, the program of the adapter {adapter}, is not on its PATH; install it with: {tool.install}"
