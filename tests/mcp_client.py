"""The official SDK as a client, run by a Python that has it: `mcp_client.py URL TOKEN MODE`; URL may be a program. It calls every tool, and prints
what it saw as JSON: the SDK itself holds each answer against the schema that was listed."""
import asyncio
import json
import os
import sys


async def main(url, token, mode):
    from mcp.client.client import Client
    if url.startswith("http"):
        import httpx2
        from mcp.client.streamable_http import streamable_http_client
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
            await talk(Client(streamable_http_client(url, http_client=http), mode=mode))
    else:
        from mcp.client.stdio import StdioServerParameters, stdio_client
        program = json.loads(url)
        await talk(Client(stdio_client(StdioServerParameters(command=program[0], args=program[1:], env=dict(os.environ))), mode=mode))


async def talk(connecting):
    seen = {"calls": {}, "progress": []}
    async with connecting as client:
        tools = (await client.list_tools()).tools
        seen["version"], seen["tools"] = client.protocol_version, [one.name for one in tools]

        async def call(name, progress=None, /, **arguments):
            made = await client.call_tool(name, arguments, progress_callback=progress)
            seen["calls"][name] = {"error": bool(made.is_error), "text": made.content[0].text}
            return made.structured_content and made.structured_content["data"]

        async def progressed(progress, total, message):
            seen["progress"].append([progress, total, message])

        task = await call("task_create", title="By the SDK", assignee="ada", description="é \" \n")
        for name in ("whoami", "task_list", "rule_list", "credential_list", "log_read", "agent_list", "run_list", "needs"):
            await call(name)
        await call("task_show", id=task["id"])
        await call("task_update", id=task["id"], note="seen")
        await call("search", q="SDK")
        await call("file_search", q="oak")
        await call("file_read", id=1)
        await call("budget_show", name="ada")
        await call("log_write", agent="ada", message="a line of the SDK")
        await call("credential_get", key="SAW_KEY")
        job = await call("job_submit", task_type="saw", queue_name="sdk", payload={"deep": [1, {"a": None}]})
        await call("job_show", id=job["id"])
        for end in ("job_release", "job_fail", "job_complete"):
            held = await call("job_claim", queue_name="sdk", worker_id="w", wait_seconds=20)
            await call("job_heartbeat", id=held["id"], lease_token=held["lease_token"])
            more = {"job_fail": {"error": "x", "retryable": False}}.get(end, {})
            await call(end, id=held["id"], lease_token=held["lease_token"], **more)
            if end == "job_fail":
                await call("job_submit", task_type="saw", queue_name="sdk")
        await call("task_ask", id=task["id"], question="Which?")
        await call("task_reject", id=task["id"], note="That")
        await call("task_ask", id=task["id"], question="And now?")
        await call("task_approve", id=task["id"])
        await call("run_note", id=1, note="by the SDK")
        part = await call("task_create", title="A part", parent_id=2)
        await call("task_wait", progressed, id=2, wait_seconds=5)
        seen["part"] = part["id"]
        seen["resources"] = [one.uri for one in (await client.list_resources()).resources]
        seen["read"] = (await client.read_resource(f"orkosi://tasks/{task['id']}")).contents[0].text
        seen["templates"] = [one.uri_template for one in (await client.list_resource_templates()).resource_templates]
    print(json.dumps(seen))


asyncio.run(main(*sys.argv[1:]))
