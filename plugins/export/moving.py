"""Moving: one tenant, with all that it has, out of one Orkosi and into another.

Surprise: numbers that are taken there are shifted, all of a table by the same amount, so that what refers to what is a sum and no search.
Keys and passwords go along as the hashes that they are, and work there; log-ins and links that were mailed do not. A plan that is paid for
goes along as Stripe's customer and subscription: the other Orkosi has to use the same account at Stripe. What this machine's vault sealed
stays behind: hooks and webhooks come without their secrets, and do nothing before they are given new ones.
"""
import gzip
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from orkosi import HOST_TENANT, VERSION, Conflict, Invalid, NotFound, across_tenants, db, jsoned, writes
from plugins import folders, tenants

from . import quoted

MOST = 64 << 20  # characters of a line

# Every table of a tenant's own, what it refers to first; a column → the table whose numbers it holds.
MOVED: dict[str, dict[str, str]] = {
    "users": {}, "organizations": {}, "org_members": {"user_id": "users"}, "api_keys": {"created_by": "users"}, "teams": {},
    "team_members": {"user_id": "users"}, "queues": {}, "jobs": {}, "agents": {}, "agent_templates": {}, "products": {},
    "tasks": {"job_id": "jobs", "parent_id": "tasks", "root_id": "tasks"}, "task_links": {"task_id": "tasks", "blocked_by": "tasks"},
    "hooks": {}, "hook_deliveries": {"hook_id": "hooks", "task_id": "tasks", "job_id": "jobs"}, "hook_bodies": {"task_id": "tasks"},
    "agent_runs": {"task_id": "tasks", "job_id": "jobs", "replay_of": "agent_runs"}, "automations": {}, "files": {}, "rules": {},
    "changelog": {"task_id": "tasks"}, "schedules": {"job_id": "jobs", "task_id": "tasks"}, "notifications": {"user_id": "users"},
    "notification_reads": {"notification_id": "notifications"}, "notification_read_alls": {"up_to": "notifications"}, "token_accounts": {},
    "token_ledger": {}, "stripe_customers": {"user_id": "users"}, "subscriptions": {}, "plan_grants": {}, "plan_days": {},
    "purchases": {"user_id": "users"}, "topups": {"user_id": "users"}, "credit_accounts": {"user_id": "users"},
    "credit_ledger": {"user_id": "users"}, "cost_sums": {}, "idle_days": {}, "agent_budgets": {}, "activity": {},
    "webhooks": {"seen": "activity"}, "webhook_deliveries": {"webhook_id": "webhooks", "event_id": "activity", "job_id": "jobs"}}
# Every other table that says whose its rows are, and why they stay behind.
LEFT = {
    **dict.fromkeys(("tenant_shares", "task_sums"), "triggers keep it, from the rows that come along"),
    **dict.fromkeys(("factory", "factory_workers", "factory_jobs", "integrations", "integration_checks", "discovery_engines", "discovery_runs",
                     "discovery_tasks", "file_versions", "credentials", "credential_reads"), "the host's alone"),
    "invites": "the links that were mailed lead to the other Orkosi", "checkouts": "a page at Stripe that leads back to the other Orkosi",
    "public_answers": "kept for a day, for requests that are sent again to where they were sent"}
SEALED = {"hooks": ("vault_key_id", "nonce", "sealed")}  # by the vault of the machine: it opens nowhere else
WITHIN = {"org_members": ("org_id", "organizations"), "team_members": ("team_id", "teams")}
NEEDED = {("org_members", "user_id"), ("team_members", "user_id")}  # without which a row is nothing: whoever is at home elsewhere stays there
PERSONS = {"tasks": "created_by", "rules": "created_by", "token_ledger": "actor", "notification_reads": "reader",
           "notification_read_alls": "reader", "plan_grants": "granted_by", "hooks": "created_by"}
ENTITIES = {"task": "tasks", "user": "users", "run": "agent_runs", "notification": "notifications", "rule": "rules", "schedule": "schedules",
            "agent": "agents", "product": "products", "automation": "automations", "file": "files", "tokens": "token_ledger",
            "template": "agent_templates", "hook": "hooks", "webhook": "webhooks"}


# ── out ──


def write(copy: Path, tenant: int, file: Path) -> dict[str, int]:
    """Write a tenant of a finished copy into a file that nobody else reads; how many rows of each table. NotFound, Invalid, Conflict."""
    con = apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        found: Any = con.execute("SELECT name, founder_id, created_at FROM tenants WHERE id = :id", {"id": tenant}).fetchone()
        if found is None:
            raise NotFound(f"There is no tenant {tenant}")
        if tenant == HOST_TENANT:
            raise Invalid("The host is moved with its whole data folder: stop the server, and zip it")
        counts = {table: 0 for table in MOVED}
        fresh = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fresh, "wb") as raw, gzip.open(raw, "wt", encoding="utf-8") as out:
            version = con.pragma("user_version")
            out.write(json.dumps({"orkosi": VERSION, "schema": version, "tenant": tenant, "name": found[0], "founder_id": found[1],
                                  "created_at": found[2]}) + "\n")
            for table in MOVED:
                for row in _rows(con, table, tenant):
                    out.write(json.dumps([table, row], ensure_ascii=False) + "\n")
                    counts[table] += 1
        return counts
    except FileExistsError:
        raise Conflict(f"{file} is there already; name another") from None
    finally:
        con.close()


def _rows(con: apsw.Connection, table: str, tenant: int) -> Iterator[dict[str, Any]]:
    where = "tenant_id = ?"
    if table in WITHIN:
        column, parent = WITHIN[table]
        where = f"{column} IN (SELECT id FROM {quoted(parent)} WHERE tenant_id = ?)"
    info: list[Any] = con.execute(f"PRAGMA table_info({quoted(table)})").fetchall()
    names = [row[1] for row in info]
    order = ", ".join(quoted(row[1]) for row in sorted(info, key=lambda row: row[5]) if row[5])
    for row in con.execute(f"SELECT {', '.join(map(quoted, names))} FROM {quoted(table)} WHERE {where} ORDER BY {order}", (tenant,)):
        made = dict(zip(names, row, strict=True)) | dict.fromkeys(SEALED.get(table, ()))
        yield {name: {"hex": value.hex()} if isinstance(value, bytes) else value for name, value in made.items()}


# ── in ──


def read(file: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """The head of such a file, and its rows by table. Invalid where it is none, or is cut off."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    try:
        with os.fdopen(folders.open_plain(file), "rb") as raw, gzip.open(raw, "rt", encoding="utf-8") as lines:
            head = json.loads(lines.readline(MOST))
            while line := lines.readline(MOST):
                table, row = json.loads(line)
                rows[table].append({name: bytes.fromhex(value["hex"]) if isinstance(value, dict) else value for name, value in row.items()})
        if not isinstance(head, dict) or {"schema", "tenant", "name"} - head.keys() or rows.keys() - MOVED.keys():
            raise ValueError("it is something else")
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, gzip.BadGzipFile) as error:
        raise Invalid(f"{file} is no tenant that 'tenant export' wrote: {error}") from None
    return head, rows


@writes
@across_tenants
def take(head: dict[str, Any], rows: dict[str, list[dict[str, Any]]]) -> int:
    """Take a tenant in, whole or not at all; its number here. Conflict where somebody of it has an account here already, or the schema differs."""
    version = int(db.value("PRAGMA user_version"))
    if head["schema"] != version:
        raise Conflict(f"That was written with schema {head['schema']}, and this Orkosi has {version}; bring both to the same version")
    for user in rows.get("users", []):
        if db.value("SELECT 1 FROM users WHERE email_key = :email OR username_key = :name", email=user["email_key"], name=user["username_key"]):
            raise Conflict(f"{user['username']} has an account here already; erase or rename one of the two")
    for hook in rows.get("hooks", []):
        if db.value("SELECT 1 FROM hooks WHERE token_hash = :hash", hash=hook["token_hash"]):
            raise Conflict(f"The hook {hook['name']} is here already, under the same address; delete that one")
    tenant = tenants.take_in(head["tenant"], head["name"], head["created_at"])
    shift = Shift(rows, tenant)
    for table in MOVED:
        for row in rows.get(table, []):
            if (moved := shift.row(table, row)) is not None:
                names = ", ".join(map(quoted, moved))
                db.run(f"INSERT INTO {quoted(table)} ({names}) VALUES ({', '.join(f':{name}' for name in moved)})", **moved)
    if founder := shift.number("users", head.get("founder_id")):
        tenants.founded_by(tenant, founder)
    return tenant


def without_secrets(rows: dict[str, list[dict[str, Any]]]) -> str:
    """What to do for the hooks and webhooks of a tenant that was taken in; "" where it has none that need it."""
    hooks, webhooks = sum(one["kind"] != "none" for one in rows.get("hooks", [])), len(rows.get("webhooks", []))
    said = [f'its hooks that are signed ({hooks}) are turned off: PATCH /api/hooks/ID {{"secret": …, "enabled": true}}'] if hooks else []
    if webhooks:
        said.append(f'its webhooks ({webhooks}) are paused: PATCH /api/webhooks/ID {{"rotate_secret": true, "status": "active"}}')
    return f". Secrets do not come along. Until they have new ones, {', and '.join(said)}" if said else ""


class Shift:
    """The numbers of a tenant's rows here: as they were, or, where one of a table is taken, all of it shifted behind the last."""

    def __init__(self, rows: dict[str, list[dict[str, Any]]], tenant: int):
        self.tenant = tenant
        self.there = {table: {row["id"] for row in found if isinstance(row.get("id"), int)} for table, found in rows.items()}
        self.by = {table: self._by(table, ids) for table, ids in self.there.items()}

    @staticmethod
    def _by(table: str, ids: set[int]) -> int:
        last = int(db.value(f"SELECT ifnull(max(id), 0) FROM {quoted(table)}")) if ids else 0
        return last if ids and min(ids) <= last else 0

    def number(self, table: str, old: Any) -> int | None:
        """The number here of a row that came along; None of one that did not."""
        return old + self.by[table] if isinstance(old, int) and old in self.there.get(table, ()) else None

    def row(self, table: str, row: dict[str, Any]) -> dict[str, Any] | None:
        """A row as it is to stand here; None where what it needs stayed behind."""
        made = dict(row)
        if "tenant_id" in made:
            made["tenant_id"] = self.tenant
        if isinstance(made.get("id"), int):
            made["id"] += self.by[table]
        for column, target in MOVED[table].items():
            made[column] = 0 if row[column] == 0 else self.number(target, row[column])  # no user is 0: that is the tenant
            if column == "up_to":  # up to where all is read, whether that is a row or not
                made[column] = row[column] + self.by.get(target, 0)
            if column == "seen":  # where the log begins anew, so does what is told of it
                made[column] = min(row[column], max(self.there.get(target, ()), default=0)) + self.by.get(target, 0)
            if made[column] is None and (table, column) in NEEDED:
                return None
        if person := PERSONS.get(table):
            made[person] = re.sub(r"\Auser:(\d+)\Z", self._person, str(row[person]))
        return self._told(table, made)

    def _person(self, found: re.Match[str]) -> str:
        number = self.number("users", int(found[1]))
        return "system" if number is None else f"user:{number}"

    def _told(self, table: str, made: dict[str, Any]) -> dict[str, Any]:
        """Numbers that stand within texts, and what needs a secret that stayed behind."""
        if table == "jobs" and made["task_type"] == "task":
            made["payload"] = self._within(made["payload"], r'("task_id": ?)(\d+)', "tasks")
        elif table == "notifications":
            made["link"] = self._within(made["link"], r"(\A/api/tasks/)(\d+)\Z", "tasks")
        elif table in ("token_ledger", "credit_ledger"):
            made["reference_id"] = self._within(made["reference_id"], r"(\Arun_)(\d+)(?=\Z|:)", "agent_runs")
        elif table == "activity":
            if made["actor_type"] == "user":
                made["actor_id"] = self._within(made["actor_id"], r"(\A)(\d+)\Z", "users")
            if target := ENTITIES.get(made["entity_type"] or ""):
                made["entity_id"] = self._within(made["entity_id"], r"(\A)(\d+)\Z", target)
        elif table == "hooks" and made["kind"] != "none":
            made |= {"enabled": 0} | dict.fromkeys(SEALED["hooks"])
        elif table == "webhooks" and made["status"] == "active":
            made |= {"status": "paused", "paused_for": "asked"}
        elif table == "webhook_deliveries":
            self._delivery(made)
        return made

    def _delivery(self, made: dict[str, Any]) -> None:
        """What was sent stays as it was said; what is yet to be sent speaks of what it is about by its number here."""
        if target := ENTITIES.get(made["entity"].partition(":")[0]):
            made["entity"] = self._within(made["entity"], r"(\A\w+:)(\d+)\Z", target)
        if made["status"] in ("waiting", "sending"):
            made |= {"status": "waiting", "job_id": None}
            body = json.loads(made["body"])
            if made["event_id"] is not None:
                body["data"] = self._told("activity", body["data"]) | {"id": made["event_id"]}
                made["body"] = jsoned(body)

    def _within(self, text: str | None, pattern: str, table: str) -> str | None:
        return text and re.sub(pattern, lambda found: f"{found[1]}{self.number(table, int(found[2])) or found[2]}", text)
