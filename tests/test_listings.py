"""Every list of the house is served by an index: no full scan, and no sorting of what was found."""
import itertools
import re
import sys

import pytest

import orkosi
from orkosi import Listing, db

LISTINGS = {f"{name.removeprefix('plugins.')}.{key}": value for name, module in sorted(sys.modules.items())
            if name.startswith("plugins.") and not name.endswith(".api")
            for key, value in vars(module).items() if isinstance(value, Listing)} if orkosi.load() else {}


@pytest.mark.parametrize("name", LISTINGS)
def test_a_list_is_served_by_an_index(data, name):
    listing = LISTINGS[name]
    alone = [(), *((one,) for one in listing.filters), *itertools.combinations(listing.filters, 2)]
    for given, several in [(given, ()) for given in alone] + [(given, given) for given in alone if given]:
        rows, _, weight = listing.sql(given, several)
        for sql in (rows, weight):
            names = set(re.findall(r":(\w+)", sql)) - {"tenant"}
            plan = [row[3] for row in db.all(tuple, "EXPLAIN QUERY PLAN " + sql, **dict.fromkeys(names, "[1]" if several else "1"))]
            plan = [step for step in plan if not re.match(r"SCAN \(subquery|CO-ROUTINE", step)]  # the page itself, of which the weight is taken
            assert not [step for step in plan if "TEMP B-TREE" in step or (step.startswith("SCAN") and "VIRTUAL" not in step)], (given, several, plan)
