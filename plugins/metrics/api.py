"""The wire of metrics."""
from orkosi import Document, may
from plugins import metrics
from plugins.metrics import plugin


@plugin.get("/api/metrics", auth=may("viewer", "agents:read", host=True))
def index() -> Document:
    """Tell a Prometheus how the company and its server are

    Text of version 0.0.4: queues, agents, tasks, runs, costs, the loop, lanes, memory and files."""
    return Document(metrics.text().encode(), "text/plain; version=0.0.4; charset=utf-8")
