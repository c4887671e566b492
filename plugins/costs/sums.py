"""Proving the sums of costs: what was counted of each agent, against its runs."""
from orkosi import across_tenants, db


@across_tenants
def check() -> list[str]:
    """Where the sums and the rows differ, in sentences. A number beyond belief was counted as the largest that is not."""
    kept = {row[:2]: row[2:] for row in db.all(tuple, """
        SELECT tenant_id, agent, sum(runs), sum(done), sum(tokens_in), sum(tokens_out), sum(cost_micros) FROM cost_sums GROUP BY tenant_id, agent""")}
    rows = {row[:2]: row[2:] for row in db.all(tuple, """
        SELECT tenant_id, agent, count(*), sum(CASE WHEN status = 'done' THEN 1 ELSE 0 END),
               sum(CASE WHEN tokens_in < 1000000000000 THEN tokens_in ELSE 1000000000000 END),
               sum(CASE WHEN tokens_out < 1000000000000 THEN tokens_out ELSE 1000000000000 END),
               sum(CASE WHEN cost_micros < 1000000000000 THEN cost_micros ELSE 1000000000000 END)
          FROM agent_runs WHERE counted = 1 GROUP BY tenant_id, agent""")}
    names = ("runs", "runs that are done", "tokens in", "tokens out", "cost_micros")
    return [f"tenant {key[0]}, agent {key[1]}: {there} {name} by the rows, and the sum says {summed}" for key in sorted(kept.keys() | rows.keys())
            for name, there, summed in zip(names, rows.get(key, (0,) * 5), kept.get(key, (0,) * 5), strict=True) if there != summed]
