"""A launchctl that behaves as the real one does where that matters, and runs real processes.

`FAKE_LAUNCHD` names its folder: a folder for each loaded label, `calls` with every call's arguments, and what a test lays there:
`nobody` (no session), `pend` (what is to start at load is held back), `busy` (seconds for which a label that left refuses a bootstrap).
What is imitated, each from Apple's sources or reports of others: a bootout returns at once and the label stays until its process has
ended; a bootstrap then fails with 5 or 37 for a while; two of one label at once: the second fails with 5; `kickstart -k` is a
SIGKILL of the process alone; `last exit code = 78: EX_CONFIG`; after a signal there is no exit code, but the signal; a missing session is
112 for print and 125 for bootstrap; a plist that others may write is refused with 122.
"""
import contextlib
import fcntl
import json
import os
import pathlib
import plistlib
import signal
import subprocess
import sys
import time

STATE = pathlib.Path(os.environ["FAKE_LAUNCHD"])
DOMAIN = f"gui/{os.getuid()}"


def say(code, text=""):
    print(text, file=sys.stderr if code else sys.stdout)
    sys.exit(code)


def facts(label):
    try:
        return json.loads((STATE / label / "facts").read_text())
    except (OSError, ValueError):
        return None


def keep(label):
    """The part of launchd that looks after one label: a process of its own, for as long as it is loaded."""
    place, spec = STATE / label, plistlib.loads((STATE / label / "plist").read_bytes())
    known = {"pid": None, "runs": 0, "exit": None, "signal": None, "path": (place / "path").read_text()}
    child, began = None, -1e9
    due = time.monotonic() if spec.get("RunAtLoad") and not (STATE / "pend").exists() else float("inf")

    def write():
        fresh = place / "facts.new"
        fresh.write_text(json.dumps(known))
        fresh.replace(place / "facts")
    write()
    while True:
        if child and child.poll() is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # what is left of its group; another session lives on
            known |= {"pid": None, "exit": child.returncode if child.returncode >= 0 else None, "signal": -child.returncode if child.returncode < 0 else None}
            child = None
            due = max(time.monotonic(), began + spec.get("ThrottleInterval", 10)) if spec.get("KeepAlive") else began + spec.get("StartInterval", float("inf"))
            write()
        if (place / "out").exists():
            if child:
                group = child.pid
                child.terminate()
                try:
                    child.wait(min(spec.get("ExitTimeOut", 20), 20))
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            (STATE / "left" / label).write_text("")
            for file in place.iterdir():
                file.unlink()
            place.rmdir()
            return
        if (place / "start").exists():
            (place / "start").unlink()
            due = due if child else time.monotonic()
        if not child and time.monotonic() >= due:
            out = open(spec.get("StandardOutPath", os.devnull), "ab")
            began, due = time.monotonic(), float("inf")
            child = subprocess.Popen(spec["ProgramArguments"], cwd=spec.get("WorkingDirectory", "/"), stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                     env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": os.environ.get("HOME", "/")} | spec.get("EnvironmentVariables", {}),
                                     umask=spec.get("Umask", 0o022), start_new_session=True)
            known |= {"pid": child.pid, "runs": known["runs"] + 1}
            write()
        time.sleep(0.02)


def bootstrap(domain, path):
    if domain != DOMAIN or (STATE / "nobody").exists():
        say(125, "Bootstrap failed: 125: Domain does not support specified action")
    if os.stat(path).st_mode & 0o022:
        say(122, "Bootstrap failed: 122: Path had bad ownership/permissions")
    raw = pathlib.Path(path).read_bytes()
    label = plistlib.loads(raw)["Label"]
    left, busy = STATE / "left" / label, float((STATE / "busy").read_text()) if (STATE / "busy").exists() else 0.3
    if (STATE / label).exists():
        say(37 if (STATE / label / "out").exists() else 5, "Bootstrap failed: 5: Input/output error")
    if left.exists() and time.time() - left.stat().st_mtime < busy:
        say(5, "Bootstrap failed: 5: Input/output error")
    (STATE / label).mkdir()
    (STATE / label / "plist").write_bytes(raw)
    (STATE / label / "path").write_text(path)
    subprocess.Popen([sys.executable, __file__, "--keep", label], start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL)
    while facts(label) is None:
        time.sleep(0.01)


def show(label, known):
    running = known["pid"] is not None
    lines = [f"{DOMAIN}/{label} = {{", f"\tactive count = {int(running)}", f"\tpath = {known['path']}", "\ttype = LaunchAgent",
             f"\tstate = {'running' if running else 'not running'}", "", "\tprogram = /bin/sh", f"\truns = {known['runs']}"]
    if running:
        lines.append(f"\tpid = {known['pid']}")
    if known["signal"]:
        lines.append(f"\tlast terminating signal = {signal.strsignal(known['signal'])}: {known['signal']}")
    else:
        said = {None: "(never exited)", 78: "78: EX_CONFIG"}.get(known["exit"], known["exit"])
        lines.append(f"\tlast exit code = {said}")
    say(0, "\n".join([*lines, "}"]))


def main(verb, *arguments):
    STATE.mkdir(exist_ok=True)
    (STATE / "left").mkdir(exist_ok=True)
    if verb == "--keep":
        return keep(arguments[0])
    with open(STATE / "calls", "a") as calls:
        fcntl.flock(calls, fcntl.LOCK_EX)  # launchd takes one call after the other
        calls.write(json.dumps([verb, *arguments]) + "\n")
        calls.flush()
        if verb == "bootstrap":
            return bootstrap(*arguments)
        if verb == "list":
            labels = sorted(one.name for one in STATE.iterdir() if facts(one.name))
            return say(0, "\n".join(["PID\tStatus\tLabel", *(
                f"{known['pid'] or '-'}\t{-known['signal'] if known['signal'] else known['exit'] or 0}\t{label}" for label in labels for known in [facts(label)])]))
        if (STATE / "nobody").exists():
            say(112, f"Could not find domain for {DOMAIN}")
        target = arguments[-1]
        if target == DOMAIN:
            return say(0, f"{DOMAIN} = {{\n\ttype = user\n}}")
        label = target.removeprefix(f"{DOMAIN}/")
        known = facts(label)
        if known is None:
            say({"bootout": 3, "kill": 3}.get(verb, 113), f'Could not find service "{label}" in domain for user gui: {os.getuid()}')
        if verb == "bootout":
            (STATE / label / "out").write_text("")
        elif verb == "kickstart":
            if "-k" in arguments and known["pid"]:
                os.kill(known["pid"], signal.SIGKILL)
                while facts(label)["pid"] == known["pid"]:
                    time.sleep(0.01)
            (STATE / label / "start").write_text("")
            while not (facts(label) or {"pid": 1})["pid"] and (STATE / label / "start").exists():
                time.sleep(0.01)
        elif verb == "kill":
            if known["pid"] is None:
                say(3, "No process to signal.")
            os.kill(known["pid"], getattr(signal, arguments[0]))
        elif verb == "print":
            show(label, known)
        else:
            say(64, "Unrecognized subcommand")
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
