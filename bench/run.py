"""Measure Orkosi beside its peers: `python3 bench/run.py [--quick] [--rounds N] [--seconds N] [--write]`.

Prints machine, date and versions, a table of medians, and the rounds underneath. Every number is of this run, on
this machine; a peer that is not installed is named and skipped (peers/README.md says how to install them).
Nothing here is a test: a number decides nothing, and only a measurement that could not be made ends with 1.
"""
import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(HOME), str(HOME / "bench")]

INTRODUCTION = """# Results

The last table that `python3 bench/run.py --write` wrote. Over HTTP: `wrk -t1 -c8` unless a row says otherwise, services
and watchers on, every acknowledged write flushed (FULL). The numbers are medians of the rounds; a ratio is the median of the
rounds' ratios, since ours and the peer's number of one round were measured one right after the other. Peers and what is asked of
them: `peers/README.md`.
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of a second each: whether the bench runs, not how fast Orkosi is")
    parser.add_argument("--rounds", type=int, help="how often everything is measured (5)")
    parser.add_argument("--seconds", type=int, help="how long each measurement takes (5)")
    parser.add_argument("--only", default="engine,web,flush,crowd,scale,seeing,pages,gigabyte",
                        help="parts, with commas between: engine, web, flush, crowd, scale, seeing, pages, gigabyte")
    parser.add_argument("--write", action="store_true", help="write bench/RESULTS.md as well")
    given = parser.parse_args()
    given.rounds = max(1, given.rounds or (1 if given.quick else 5))
    given.seconds = max(1, given.seconds or (1 if given.quick else 5))
    return given


def facts(given: argparse.Namespace) -> str:
    import apsw
    import peers
    machine = f"{platform.platform()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d %H:%M')}"
    known = {"Python": platform.python_version(), "SQLite": apsw.sqlite_lib_version(), "apsw": apsw.apsw_version(), **peers.versions()}
    return (f"{machine}; {given.rounds} round{'s' if given.rounds > 1 else ''}, {given.seconds} s a measurement"
            + f"\n\n{', '.join(f'{name} {version}' for name, version in known.items())}\n"
            + ("\nQuick: nothing is warmed up, so that a peer on Node or Go looks slower than it is.\n" if given.seconds == 1 else ""))


def measure(table, given: argparse.Namespace, folder: Path) -> None:
    import crowd
    import engine
    import flush
    import gigabyte
    import load
    import pages
    import scale
    import seeing
    import web
    parts = given.only.split(",")
    calls, many = (6_400, 5_000) if given.quick else (32_000, 1_000_000)
    if "engine" in parts:
        with table.guard("engine"):
            engine.measure(table, given.rounds, calls, many)
    for name, part in (("web", web), ("flush", flush), ("crowd", crowd)):
        if name not in parts:
            continue
        if not load.here():
            table.skip(f"all of {name}.py", "wrk is not installed")
            continue
        with table.guard(name):
            part.measure(table, folder, given.rounds, given.seconds)
    if "scale" in parts:
        with table.guard("scale"):
            scale.measure(table, folder, given.rounds, given.seconds, given.quick)
    if "seeing" in parts:
        with table.guard("seeing"):
            seeing.measure(table, folder, given.rounds, given.seconds, given.quick)
    if "pages" in parts:
        with table.guard("pages"):
            pages.measure(table, folder, given.rounds, given.seconds, given.quick)
    if "gigabyte" in parts:
        with table.guard("gigabyte"):
            gigabyte.measure(table, folder, given.rounds, 20 if given.quick else 1000)


def main() -> int:
    from table import Table
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process it started is ended, too
    os.environ["ORKOSI_NO_INSTALL"] = "1"
    table, head = Table(), facts(given)
    print(head, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        measure(table, given, Path(folder))
    text = table.text()
    print(text)
    if given.write:
        (HOME / "bench" / "RESULTS.md").write_text(f"{INTRODUCTION}\n{head}\n{text}")
    return 1 if table.failed else 0


if __name__ == "__main__":
    venv = HOME / ".venv" / "bin" / "python"
    try:
        import apsw  # noqa: F401
    except ImportError:
        if not venv.exists():
            sys.exit("Run 'python3 orkosi.py settings' once first: it installs what this needs")
        os.execv(venv, [str(venv), *sys.argv])
    sys.exit(main())
