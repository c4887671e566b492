"""MCP: the door for agents' own tools, which find Orkosi among their tools (Model Context Protocol over HTTP).

DESIGN

A tool is an endpoint that says so (`tool="task_create"`), called in this process under its own policy: what the gate refuses by HTTP, it refuses
here, in the same words. `words.py` says of each when to use it. Nothing is kept between two requests: both revisions that are spoken, the one with
a handshake (2025-11-25) and the one without (2026-07-28), work without sessions, so a restart of the server interrupts no client.

A refusal is an answer of the tool, for the model to read; only what is wrong with the protocol itself is an error of the protocol. What waits
stands aside as any parked request does, and holds no thread.

Owns no table. Surprise: whoever asks is told only of the tools that they may call, so two keys see two lists.
"""
from orkosi import Plugin

plugin = Plugin("MCP", layer="views", needs=("server", "tasks", "docs", "fields", "users", "operator", "activity"))

STATELESS, HANDSHAKE = "2026-07-28", "2025-11-25"  # revisions of the protocol
VERSIONS = (STATELESS, HANDSHAKE)
OLDER = ("2025-06-18", "2025-03-26")  # what is said here is the same in these, and some agents' tools know no newer one
