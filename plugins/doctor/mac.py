"""Mac: what is taken for granted about macOS, and no other system can tell. On a Mac, each is tried; elsewhere, they are listed.

This is the acceptance test for the machine it runs on. Each has the command by which one sees it by hand.
"""
import os
import re
import subprocess
import sys

from orkosi import Struct

from . import State

PATIENCE = 30  # seconds for one command


class Assumption(Struct):
    """Something that must hold, how to see it, and what the command then prints."""
    name: str
    command: str
    expected: str  # a regular expression that is found in what it prints
    otherwise: str  # what it means where it is not


class Tried(Struct):
    """An assumption, and what came of it; None where this is no Mac."""
    name: str
    command: str
    state: State | None
    said: str
    otherwise: str


ME = os.getuid()
ASSUMPTIONS = (
    Assumption("macOS 13 or newer", "sw_vers -productVersion", r"^(1[3-9]|2\d)", "older ones were never tried"),
    Assumption("Apple silicon, and a Python for it", f"uname -m; {sys.executable} -c 'import platform; print(platform.machine())'", r"arm64\narm64",
               "packages are missing for Intel, and a translated Python is slow"),
    Assumption("launchd has a session of this user", f"launchctl print gui/{ME} >/dev/null && echo session", "session",
               "nobody is logged in at the screen: the server runs the agents itself"),
    Assumption("that session is the screen's", "launchctl managername", "Aqua", "over ssh, agents of launchd are not seen: log in at the screen"),
    Assumption("the Mac does not sleep", "pmset -g | grep -E '^ *sleep'", r"sleep\s+0", "sudo pmset -a sleep 0: leases run out in its sleep"),
    Assumption("it starts again after a power cut", "pmset -g | grep autorestart", r"autorestart\s+1", "sudo pmset -a autorestart 1"),
    Assumption("low power mode is off", "pmset -g | grep -E 'lowpowermode|powermode' || echo none", r"none|mode\s+0",
               "launchd starts jobs late in it"),
    Assumption("FileVault, or automatic log-in", "fdesetup status; defaults read /Library/Preferences/com.apple.loginwindow autoLoginUser 2>&1",
               r"On\.|^\w+$", "both exclude each other: with FileVault somebody must type a password after a power cut"),
    Assumption("the data folder is where launchd may read", "pwd -P", r"^(?!.*/(Downloads|Desktop|Documents|Mobile Documents)/)",
               "launchd's jobs get no access to Downloads, Desktop, Documents and iCloud"),
    Assumption("nothing is quarantined", "xattr -lr . 2>/dev/null | grep -c quarantine || true", r"^0$", "xattr -dr com.apple.quarantine ."),
    Assumption("a commit reaches the disk",
               f"{sys.executable} -c \"import fcntl, tempfile; f = tempfile.TemporaryFile(); print(fcntl.fcntl(f, 51))\"",
               r"^0$", "F_FULLFSYNC is refused: a power cut may undo what was acknowledged"),
    Assumption("two folders can be exchanged in one step",
               f"{sys.executable} -c \"import ctypes, os, tempfile; d = tempfile.mkdtemp(); os.mkdir(d + '/a'); os.mkdir(d + '/b'); "
               "print(ctypes.CDLL(None).renamex_np((d + '/a').encode(), (d + '/b').encode(), 2))\"", r"^0$",
               "a restore then has a moment without a folder"),
    Assumption("processes show their environment to their owner",
               "ORKOSI_SEEN=yes sleep 5 & ps -x -E -ww -o command= | grep -c ORKOSI_SEEN=yes", r"[1-9]",
               "what a brain leaves running in another session is not found"),
    Assumption("a name is found at once",
               f"{sys.executable} -c \"import socket, time; t = time.time(); socket.gethostname(); print(time.time() - t < 1)\"",
               "True", "the network's names are slow here"),
    Assumption("enough connections may wait", "sysctl -n kern.ipc.somaxconn", r"^(12[89]|1[3-9]\d|[2-9]\d\d|\d{4,})",
               "more than that at once are refused"),
    Assumption("enough files may be open", "launchctl limit maxfiles", r"maxfiles\s+\d{3,}", "see SoftResourceLimits in the plist"),
    Assumption("the tools of agents are found",
               "PATH=/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:$HOME/.local/bin; command -v claude codex gemini opencode || "
               "echo none", r"/|none", "set agent_path"),
)


def tried() -> list[Tried]:
    """Every assumption, tried where this is a Mac."""
    return [_try(one) for one in ASSUMPTIONS]


def _try(one: Assumption) -> Tried:
    if sys.platform != "darwin":
        return Tried(one.name, one.command, None, "this is no Mac", one.otherwise)
    try:
        done = subprocess.run(["/bin/sh", "-c", one.command], capture_output=True, text=True, errors="replace", timeout=PATIENCE,
                              stdin=subprocess.DEVNULL)
        said = (done.stdout + done.stderr).strip()
    except subprocess.TimeoutExpired:
        said = f"no answer within {PATIENCE} s"
    return Tried(one.name, one.command, "ok" if re.search(one.expected, said, re.M) else "fail", said[:300], one.otherwise)
