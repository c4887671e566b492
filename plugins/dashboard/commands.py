"""The command of the dashboard: the sums, proved against the rows."""
from pathlib import Path

import click

from orkosi import DATA, Problem, acting, settings, system
from plugins import storage, tokens
from plugins.billing import credits
from plugins.costs import sums as of_costs
from plugins.dashboard import plugin
from plugins.tasks import sums as of_tasks


class Differ(Problem):
    """A sum and its rows do not agree."""
    code = "sums_differ"


@plugin.command("sums")
@click.argument("action", type=click.Choice(["check"]))
@DATA
def sums(action: str, data: Path | None) -> None:
    """Prove every kept sum against its rows: tasks, what runs cost, balances of tokens and credits."""
    settings.load(data=data)
    storage.must_be_there()
    storage.open_data()
    try:
        with acting(system()):
            wrong = [*of_tasks.check(), *of_costs.check(), *tokens.reconcile(), *credits.reconcile()]
    finally:
        storage.close_data()
    for line in wrong:
        click.echo(line, err=True)
    if wrong:
        raise Differ(f"{len(wrong)} sums do not agree with their rows; `orkosi.py doctor --full` looks whether the file is damaged")
    click.echo("Tasks, costs, tokens and credits: every sum agrees with its rows")
