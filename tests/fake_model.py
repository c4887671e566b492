"""A scripted model server on loopback: what an agent's tool believes to be its model.

It speaks OpenAI (/responses, /chat/completions), Anthropic (/messages), Gemini (…:generateContent, …:streamGenerateContent) and Ollama
(/api/chat). What it answers is a script: the last line `#fake STEP ;; STEP …` in what the user said. A conversation's place in its
script is the number of tool results since the user last spoke, so nothing is remembered but how often a fault was given.

    say TEXT           the answer (the default, and what ends every script)
    big BYTES          an answer of that size
    write PATH TEXT    call the tool that writes a file       sh COMMAND      call the tool that runs a command
    loop COMMAND       call it again and again, for ever
    mcp TOOL JSON      call a tool of an MCP server, under whatever name the client offers it
    status CODE [N] [RETRY_AFTER]   answer the first N (all) requests with this error
    hang [N]           accept the request, answer nothing     cut [N]         break the stream off in its middle
    stall [N]          send half of it, then nothing          short [N]       send half of it and end as if that were all
    drip SECONDS       let so long pass before the answer
Every answer costs 1200 tokens in, of which 200 were cached, and 50 out. A key that begins with `wrong` is refused.
"""
import json
import re
import shlex
import threading
import time
import uuid
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

IN, CACHED, OUT = 1200, 200, 50
FAULTS = ("status", "hang", "cut", "stall", "short")
TOOLS = ("write", "sh", "loop", "mcp")


class Ask:
    """A request, whatever its dialect."""

    def __init__(self, prompt, results, tools, stream, model, schema=None):
        self.prompt, self.results, self.tools = prompt, results, tools  # results: of tools, since the user last spoke
        self.stream, self.model, self.schema = stream, model, schema


# ── the script ──

def steps(text):
    found = re.findall(r"#fake (.*?)(?:\\n|\n|$)", text)
    return [step.strip() for step in found[-1].split(";;")] if found else []


def decide(ask, script, given):
    """The step that is due: (verb, rest)."""
    left = ask.results
    for place, step in enumerate(script):
        verb, _, rest = step.partition(" ")
        if verb in FAULTS:
            times = int((rest.split() + ["", ""])[verb == "status"] or 10**9)
            key = (tuple(script), place, bool(ask.tools))
            if given[key] < times:
                given[key] += 1
                return verb, rest
        elif verb in TOOLS and verb != "loop":
            if not left:
                return verb, rest
            left -= 1
        else:
            return verb, rest
    return "say", "Hello from the fake model"


def tool_call(ask, verb, rest):
    """(name, arguments) in the tool's own vocabulary, or None where the client offers no such tool."""
    if verb == "mcp":
        wanted, _, arguments = rest.partition(" ")
        name = next((name for name in ask.tools if re.search(rf"(?:\A|orkosi[_.]+){wanted}\Z", name)), None)
        return name and (name, json.loads(arguments.replace('\\"', '"')))
    if verb == "write":
        path, _, text = rest.partition(" ")
        for name, arguments in (("Write", {"file_path": path, "content": text}), ("write_file", {"file_path": path, "content": text}),
                                ("write", {"filePath": path, "content": text})):
            if name in ask.tools:
                return name, arguments
        rest = f"printf %s {shlex.quote(text)} > {shlex.quote(path)}"  # codex has no such tool: its shell does it
    for name, arguments in (("Bash", {"command": rest, "description": "fake"}), ("exec_command", {"cmd": rest}),
                            ("shell_command", {"command": rest}), ("shell", {"command": ["/bin/sh", "-c", rest]}),
                            ("run_shell_command", {"command": rest, "description": "fake"}), ("bash", {"command": rest, "description": "fake"})):
        if name in ask.tools:
            return name, arguments
    return None


def answer(verb, rest):
    if verb == "big":
        return " ".join(map(str, range(int(rest) // 5)))[:int(rest)]
    return rest if verb == "say" else "There is no such tool" if verb in TOOLS else "Hello"


def example(schema):
    """The smallest value that fits a JSON schema: for clients' side questions."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = str(schema.get("type", "object")).lower()
    if kind == "object":
        return {name: example(sub) for name, sub in schema.get("properties", {}).items()}
    return {"array": [], "string": "x", "boolean": False}.get(kind, schema.get("minimum", 0))


# ── the dialects: how each asks, and how each is answered (a content type and the pieces of the body) ──

def text_of(content):
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content or () if isinstance(part, dict))


def since_user(items, said, is_result):
    """What the user said, joined, and the tool results after that."""
    prompt, results = [], 0
    for item in items:
        if is_result(item):
            results += 1
        elif text := said(item):
            prompt, results = prompt + [text], 0
    return "\n".join(prompt), results


def sse(events, named=True):
    return "text/event-stream", [(f"event: {e['type']}\n" if named else "").encode() + b"data: " + json.dumps(e).encode() + b"\n\n"
                                 for e in events]


def plain(body):
    raw = json.dumps(body).encode()
    return "application/json", [raw[:len(raw) // 2], raw[len(raw) // 2:]]


def halves(text):
    return [text[:len(text) // 2], text[len(text) // 2:]] if len(text) > 1 else [text]


class Responses:
    @staticmethod
    def read(body):
        items = body["input"] if isinstance(body["input"], list) else [{"role": "user", "content": body["input"]}]
        prompt, results = since_user(items, lambda i: text_of(i.get("content")) if i.get("role") == "user" else "",
                                     lambda i: str(i.get("type", "")).endswith("_output"))
        tools = [name for tool in body.get("tools") or () for name in (
            [f"{tool['name']}.{sub['name']}" for sub in tool["tools"]] if tool["type"] == "namespace" else [tool.get("name", tool["type"])])]
        return Ask(prompt, results, tools, body.get("stream"), body.get("model"), (body.get("text") or {}).get("format", {}).get("schema"))

    @staticmethod
    def write(ask, text, call):
        if call:
            name, arguments = call
            item = {"id": "fc_" + uuid.uuid4().hex, "call_id": "call_" + uuid.uuid4().hex, "status": "completed"}
            space, _, short = name.rpartition(".")
            item |= {"type": "function_call", "name": short, "arguments": json.dumps(arguments)} | ({"namespace": space} if space else {})
        else:
            item = {"type": "message", "id": "msg_" + uuid.uuid4().hex, "role": "assistant", "status": "completed",
                    "content": [{"type": "output_text", "text": text, "annotations": []}]}
        usage = {"input_tokens": IN, "output_tokens": OUT, "total_tokens": IN + OUT, "input_tokens_details": {"cached_tokens": CACHED},
                 "output_tokens_details": {"reasoning_tokens": 0}}
        begun = {"id": "resp_" + uuid.uuid4().hex, "object": "response", "created_at": int(time.time()), "model": ask.model,
                 "status": "in_progress", "output": []}
        done = begun | {"status": "completed", "output": [item], "usage": usage}
        if not ask.stream:
            return plain(done)
        blank = item | ({"content": []} if item["type"] == "message" else {})
        deltas = [] if call else [{"type": "response.output_text.delta", "item_id": item["id"], "output_index": 0, "content_index": 0,
                                   "delta": half} for half in halves(text)]
        return sse([{"type": "response.created", "response": begun},
                    {"type": "response.output_item.added", "output_index": 0, "item": blank}, *deltas,
                    {"type": "response.output_item.done", "output_index": 0, "item": item},
                    {"type": "response.completed", "response": done}])


class Chat:
    @staticmethod
    def read(body):
        prompt, results = since_user(body["messages"], lambda m: text_of(m.get("content")) if m["role"] == "user" else "",
                                     lambda m: m["role"] == "tool")
        return Ask(prompt, results, [tool["function"]["name"] for tool in body.get("tools") or ()], body.get("stream"),
                   body.get("model"))

    @staticmethod
    def write(ask, text, call):
        made = [{"index": 0, "id": "call_" + uuid.uuid4().hex, "type": "function",
                 "function": {"name": call[0], "arguments": json.dumps(call[1])}}] if call else None
        head = {"id": "chatcmpl-" + uuid.uuid4().hex, "created": int(time.time()), "model": ask.model}
        usage = {"prompt_tokens": IN, "completion_tokens": OUT, "total_tokens": IN + OUT, "prompt_tokens_details": {"cached_tokens": CACHED}}
        why = "tool_calls" if call else "stop"
        if not ask.stream:
            message = {"role": "assistant", "content": None if call else text} | ({"tool_calls": made} if made else {})
            return plain(head | {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": why}], "usage": usage})
        head |= {"object": "chat.completion.chunk"}
        deltas = [{"role": "assistant", "tool_calls": made}] if made else [{"role": "assistant", "content": half} for half in halves(text)]
        kind, pieces = sse([head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
                           + [head | {"choices": [{"index": 0, "delta": {}, "finish_reason": why}]}, head | {"choices": [], "usage": usage}], False)
        return kind, pieces + [b"data: [DONE]\n\n"]


class Messages:
    @staticmethod
    def read(body):
        def is_result(message):
            return not isinstance(message["content"], str) and any(part.get("type") == "tool_result" for part in message["content"])
        prompt, results = since_user(body["messages"], lambda m: text_of(m["content"]) if m["role"] == "user" else "", is_result)
        return Ask(prompt, results, [tool["name"] for tool in body.get("tools") or ()], body.get("stream"), body.get("model"),
                   ((body.get("output_config") or {}).get("format") or body.get("output_format") or {}).get("schema"))

    @staticmethod
    def write(ask, text, call):
        block = {"type": "tool_use", "id": "toolu_" + uuid.uuid4().hex, "name": call[0], "input": call[1]} if call else {"type": "text", "text": text}
        why, usage = "tool_use" if call else "end_turn", {"input_tokens": IN - CACHED, "cache_read_input_tokens": CACHED,
                                                          "cache_creation_input_tokens": 0, "output_tokens": OUT}
        message = {"id": "msg_" + uuid.uuid4().hex, "type": "message", "role": "assistant", "model": ask.model, "content": [block],
                   "stop_reason": why, "stop_sequence": None, "usage": usage}
        if not ask.stream:
            return plain(message)
        blank = block | ({"input": {}} if call else {"text": ""})
        deltas = ([{"type": "input_json_delta", "partial_json": half} for half in halves(json.dumps(call[1]))] if call
                  else [{"type": "text_delta", "text": half} for half in halves(text)])
        return sse([{"type": "message_start", "message": message | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}},
                    {"type": "content_block_start", "index": 0, "content_block": blank},
                    *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
                    {"type": "content_block_stop", "index": 0},
                    {"type": "message_delta", "delta": {"stop_reason": why, "stop_sequence": None}, "usage": usage}, {"type": "message_stop"}])


class Gemini:
    @staticmethod
    def read(body):
        prompt, results = since_user(body["contents"], lambda c: text_of(c["parts"]) if c.get("role", "user") == "user" else "",
                                     lambda c: any("functionResponse" in part for part in c["parts"]))
        tools = [f["name"] for tool in body.get("tools") or () for f in tool.get("functionDeclarations") or ()]
        wanted = body.get("generationConfig") or {}
        return Ask(prompt, results, tools, False, None, wanted.get("responseJsonSchema") or wanted.get("responseSchema"))

    @staticmethod
    def write(ask, text, call):
        parts = [[{"functionCall": {"name": call[0], "args": call[1]}}]] if call else [[{"text": half}] for half in halves(text)]
        usage = {"promptTokenCount": IN, "cachedContentTokenCount": CACHED, "candidatesTokenCount": OUT, "totalTokenCount": IN + OUT}
        whole = [{"candidates": [{"index": 0, "content": {"role": "model", "parts": p}}], "modelVersion": ask.model or "fake"} for p in parts]
        whole[-1]["candidates"][0]["finishReason"] = "STOP"
        whole[-1]["usageMetadata"] = usage
        if ask.stream:
            return sse(whole, False)
        whole[-1]["candidates"][0]["content"]["parts"] = [part for p in parts for part in p]
        return plain(whole[-1])


class Ollama:
    @staticmethod
    def read(body):
        if "messages" in body:
            ask = Chat.read(body)
        else:
            ask = Ask(body.get("prompt", ""), 0, [], None, body.get("model"))
        ask.stream, ask.schema = body.get("stream", True), body.get("format") if isinstance(body.get("format"), dict) else None
        ask.chat = "messages" in body
        return ask

    @staticmethod
    def write(ask, text, call):
        def piece(text, call=None):
            said = {"message": {"role": "assistant", "content": text} | ({"tool_calls": [{"function": {"name": call[0], "arguments": call[1]}}]}
                                                                        if call else {})} if ask.chat else {"response": text}
            return {"model": ask.model, "created_at": "2026-01-01T00:00:00Z"} | said | {"done": False}
        end = {"done": True, "done_reason": "stop", "total_duration": 10**9, "load_duration": 10**6, "prompt_eval_count": IN,
               "prompt_eval_duration": 10**8, "eval_count": OUT, "eval_duration": 8 * 10**8}
        if not ask.stream:
            return plain(piece("" if call else text, call) | end)
        pieces = [piece("", call)] if call else [piece(half) for half in halves(text)]
        return "application/x-ndjson", [json.dumps(p).encode() + b"\n" for p in [*pieces, piece("") | end]]


def dialect(path):
    """The dialect of a path, and an error in it."""
    if path.endswith("/responses"):
        return Responses, lambda code, say: {"error": {"message": say, "type": "fake", "code": None}}
    if path.endswith("/chat/completions"):
        return Chat, lambda code, say: {"error": {"message": say, "type": "fake", "code": None}}
    if path.endswith("/messages"):
        kinds = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
        return Messages, lambda code, say: {"type": "error", "error": {"type": kinds.get(code, "api_error"), "message": say}}
    if path.endswith("enerateContent"):
        states = {401: "UNAUTHENTICATED", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}
        return Gemini, lambda code, say: {"error": {"code": code, "message": say, "status": states.get(code, "INTERNAL")}}
    if path in ("/api/chat", "/api/generate"):
        return Ollama, lambda code, say: {"error": say}
    return None, None


class Model(ThreadingHTTPServer):
    """One model. `asked` has what each question was, `bodies` all that came, `over` ends its silences."""
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.given, self.asked, self.bodies, self.over = Counter(), [], [], threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self):
        self.over.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, code, kind, pieces, headers=()):
        self.send_response(code)
        for name, value in ({"Content-Type": kind, "Content-Length": sum(map(len, pieces))} | dict(headers)).items():
            self.send_header(name, str(value))
        self.end_headers()
        for piece in pieces:
            self.wfile.write(piece)

    def refused(self):
        key = (self.headers.get("Authorization") or self.headers.get("x-api-key") or self.headers.get("x-goog-api-key") or "").removeprefix("Bearer ")
        if key.startswith("wrong"):
            self.send(401, *plain({"error": {"message": "invalid key"}}))
        return key.startswith("wrong")

    def do_GET(self):
        if not self.refused():
            self.send(200, *plain({"object": "list", "data": [{"id": "fake", "object": "model"}], "models": [{"name": "fake"}]}))

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        speaks, error = dialect(path)
        if self.refused():
            return None
        if not speaks:
            return self.send(200, *plain({"input_tokens": IN, "totalTokens": IN}))
        self.server.bodies.append(raw)
        ask = speaks.read(json.loads(raw))
        if speaks is Gemini:
            ask.stream, ask.model = "stream" in path, path.split("/")[-1].split(":")[0]
        verb, rest = decide(ask, steps(ask.prompt), self.server.given)
        call = tool_call(ask, verb, rest) if verb in TOOLS else None
        self.server.asked.append((verb, ask.results, ask.model))
        return self.reply(ask, speaks, error, verb, rest, call)

    def reply(self, ask, speaks, error, verb, rest, call):
        if verb == "hang":
            self.server.over.wait(600)
        if verb == "status":
            code, _, after = (rest.split() + ["", ""])[:3]
            return self.send(int(code), *plain(error(int(code), f"fake {code}")), {"Retry-After": after} if after else {})
        if verb == "drip":
            self.server.over.wait(float(rest))
        kind, pieces = speaks.write(ask, json.dumps(example(ask.schema)) if ask.schema else answer(verb, rest), call)
        if verb in ("cut", "stall"):
            self.send(200, kind, pieces[:len(pieces) // 2], {"Content-Length": sum(map(len, pieces))})
            self.server.over.wait(600 if verb == "stall" else 0)
            self.close_connection = True
            return None
        return self.send(200, kind, pieces[:len(pieces) // 2] if verb == "short" else pieces)
