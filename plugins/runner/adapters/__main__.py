"""One run of one adapter, by its name."""
import sys

from . import claude_code, codex, gemini, one_shot, opencode
from .work import Work

WAYS = {"claude-code": claude_code.work_on, "codex": codex.work_on, "gemini": gemini.work_on, "opencode": opencode.work_on,
        "ollama": one_shot.ollama, "openai-compatible": one_shot.openai_compatible, "shell": one_shot.shell}

if __name__ == "__main__":
    WAYS[sys.argv[1]](Work(sys.argv[1]))
