"""What is found in logs: by discovery, bursts of errors; by the search, lines with words."""
from collections import Counter
from collections.abc import Iterator

from orkosi import Hit, across_tenants, db, now
from plugins.fields import terms
from plugins.findings import Finding, finds

from . import LogQuery, page, plugin

MANY, HOUR, MOST = 20, 3600, 5000


@finds("logs")
def bursts() -> Iterator[Finding]:
    """Whoever logged many errors in the last hour, with the newest of them."""
    counts, newest = Counter[str](), dict[str, str]()
    for agent, file, message in _errors():
        who = agent or file or "the server"
        counts[who] += 1
        newest.setdefault(who, message)
    for who, many in sorted(counts.items()):
        if many >= MANY:
            yield Finding(f"{who} logs many errors", f"logs:burst:{who}"[:300], f"{many} in the last hour. The newest: {newest[who][:2000]}", "P1")


@across_tenants
def _errors() -> list[tuple[str | None, str | None, str]]:
    """The newest ones; log lines are the host's, whoever they tell of."""
    return db.all(tuple, """
        SELECT agent, file, message FROM (SELECT agent, file, message, created_at FROM log_lines WHERE level = 'error'
                                           ORDER BY id DESC LIMIT :most) AS newest WHERE created_at >= :since""", most=MOST, since=now(-HOUR))


@plugin.search("logs")
def search(q: str, limit: int) -> list[Hit]:
    """The newest lines that have every term."""
    found = page(LogQuery(q=q, limit=limit)).items if terms(q) else []
    return [Hit(q, line.message, " ".join(filter(None, (line.created_at, line.level, line.agent or line.file)))) for line in found]
