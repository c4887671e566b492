"""Adapters: agents' tools as brains. `python -P -m plugins.runner.adapters NAME` is one run of one, told as every brain is told.

Each file here knows one tool: its command line, its settings, and what of its output means that it is done. What they share is
in `work` (the task and the report), `prompt`, `watch` (who stands between the tool and its model) and `tool` (running it).
Surprise: an exit code of 0 is no success. Done is output that parses, ends as the tool ends a finished run, has no error in it,
and is not empty.
"""
