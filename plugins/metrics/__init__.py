"""Metrics: the company and its server in Prometheus' words.

Owns no table, and keeps nothing: each number is read when it is asked for, from kept sums, short partial indexes and gauges. Surprise: what
is called `_total` is a sum that only grows, except that a company that deletes an agent keeps what it has cost.
"""
import os
from collections.abc import Iterator
from typing import NamedTuple

from orkosi import VERSION, Plugin, db, now, seconds, settings
from plugins import health, queue, webhooks
from plugins.agents import state
from plugins.agents.rows import everyone
from plugins.health import machine
from plugins.server import gauges
from plugins.server.feeds import feeds

plugin = Plugin("Metrics", layer="views", needs=("health", "webhooks"))


class Family(NamedTuple):
    """One metric: its name, its type, what it says, and its samples by labels."""
    name: str
    kind: str
    about: str
    samples: list[tuple[dict[str, str], float]]


def text() -> str:
    """Everything, in the text format 0.0.4."""
    return "".join(_written(family) for family in families())


def _written(family: Family) -> str:
    lines = [f"# HELP {family.name} {family.about}", f"# TYPE {family.name} {family.kind}"]
    for labels, value in family.samples:
        told = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
        lines.append(f"{family.name}{{{told}}} {value:.15g}" if told else f"{family.name} {value:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def one(value: float) -> list[tuple[dict[str, str], float]]:
    """A sample without labels."""
    return [({}, value)]


def families() -> Iterator[Family]:
    """Every metric."""
    yield Family("orkosi_info", "gauge", "Which version runs", [({"version": VERSION}, 1)])
    yield Family("orkosi_uptime_seconds", "gauge", "Since this process started", one(health.uptime()))
    yield from _server()
    yield from _queues()
    yield from _webhooks()
    yield from _company()


def _server() -> Iterator[Family]:
    yield Family("orkosi_resident_memory_bytes", "gauge", "Memory of this process", one(machine.resident()))
    yield Family("orkosi_requests_total", "counter", "Answers by class of status",
                 [({"status": name}, many) for name, many in sorted(gauges.answered.items())])
    yield Family("orkosi_loop_lag_seconds", "gauge", "How late the loop was at most in the last minute", one(gauges.lag()))
    yield Family("orkosi_connections", "gauge", "Open connections", one(gauges.connections()))
    yield Family("orkosi_parked_requests", "gauge", "Requests that wait for something, without a thread", one(gauges.parked()))
    yield Family("orkosi_streams", "gauge", "Open streams of events and log lines", one(len(feeds.open)))
    yield Family("orkosi_lane_waiting", "gauge", "Requests that wait for a thread", [({"lane": name}, many) for name, many in gauges.lanes().items()])
    yield Family("orkosi_commits_total", "counter", "Transactions that this process has committed", one(db.commits))
    yield Family("orkosi_flush_seconds", "gauge", "How long the last flush of the database took", one(db.flusher.took if db.flusher else 0.0))
    sizes = [({"file": name}, float(os.path.getsize(path))) for name in ("orkosi.db", "orkosi.db-wal", "logs.db", "logs.db-wal")
             if (path := settings.data / name).exists()]
    yield Family("orkosi_database_bytes", "gauge", "Sizes of the database's files", sizes)


def _queues() -> Iterator[Family]:
    found = [queue.stats(name) for name in queue.names()]
    yield Family("orkosi_jobs", "gauge", "Jobs by queue and state; what is over is counted to 10,000",
                 [({"queue": of.queue_name, "state": name}, many) for of in found for name, many in of.counts.items()])
    yield Family("orkosi_queue_paused", "gauge", "Whether a queue is paused", [({"queue": of.queue_name}, int(of.paused)) for of in found])
    yield Family("orkosi_queue_oldest_waiting_seconds", "gauge", "For how long the oldest waiting job of a queue has waited",
                 [({"queue": of.queue_name}, _age(of.oldest_waiting_at)) for of in found])


def _webhooks() -> Iterator[Family]:
    statuses: tuple[webhooks.DeliveryStatus, ...] = ("waiting", "dead")
    found = [(webhook, status) for webhook in webhooks.everything() for status in statuses]
    yield Family("orkosi_webhook_deliveries", "gauge", "Deliveries that wait, or were given up in the last 14 days, by webhook; counted to 10,000",
                 [({"webhook": str(webhook.id), "status": status}, webhooks.count(webhook.id, status)) for webhook, status in found])


def _age(moment: str | None) -> float:
    return max(0.0, seconds(now()) - seconds(moment)) if moment else 0.0


def _company() -> Iterator[Family]:
    states = state.statuses(everyone())
    yield Family("orkosi_agents", "gauge", "Agents by state", [({"state": name}, states.count(name)) for name in sorted(set(states))])
    tasks = db.all(tuple, "SELECT status, priority, n FROM task_sums WHERE tenant_id = :tenant AND n > 0 ORDER BY status, priority")
    yield Family("orkosi_tasks", "gauge", "Tasks by status and priority",
                 [({"status": status, "priority": priority}, many) for status, priority, many in tasks])
    rows = db.all(tuple, """SELECT agent, sum(runs), sum(wasted), sum(tokens_in), sum(tokens_out), sum(cost_micros) FROM cost_sums
                             WHERE tenant_id = :tenant GROUP BY agent ORDER BY agent""")
    yield Family("orkosi_runs_total", "counter", "Runs of an agent that ended", [({"agent": row[0]}, row[1]) for row in rows])
    yield Family("orkosi_runs_wasted_total", "counter", "Of those, the ones that failed or made no progress",
                 [({"agent": row[0]}, row[2]) for row in rows])
    yield Family("orkosi_tokens_total", "counter", "Tokens of an agent's runs",
                 [({"agent": row[0], "direction": word}, row[at]) for row in rows for word, at in (("in", 3), ("out", 4))])
    yield Family("orkosi_cost_dollars_total", "counter", "What an agent's runs have cost", [({"agent": row[0]}, row[5] / 1e6) for row in rows])
