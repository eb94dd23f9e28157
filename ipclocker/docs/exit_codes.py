"""The meanings of all exit codes: one table, which the manual pages show and the README is checked against."""

from __future__ import annotations

from ..errors import (
    CANNOT_EXECUTE,
    GAVE_UP,
    INTERNAL,
    LOST,
    NOT_ALLOWED,
    NOT_FOUND,
    OK,
    OUTPUT,
    TEMPORARY,
    UNAVAILABLE,
    USAGE,
)

MEANINGS = {
    OK: "it was done",
    USAGE: "the command line is wrong",
    UNAVAILABLE: "no server could be reached",
    INTERNAL: "a fault of ours",
    OUTPUT: "the output could not be written; lockerd: its state can't be read or written, or etcd can't be used",
    TEMPORARY: "the lock is busy",
    LOST: "the lock was lost while the command ran",
    NOT_ALLOWED: "this user may not do that",
    GAVE_UP: "a program that was to be kept alive died too often",
    CANNOT_EXECUTE: "the command can't be executed",
    NOT_FOUND: "there is no such command",
}
THE_COMMANDS_OWN = (
    "the command's own",
    "it was run, and this is how it ended; by signal N: the same signal, 128 + N to a shell",
)
_RUNS_A_COMMAND = dict.fromkeys((USAGE, INTERNAL, OUTPUT, CANNOT_EXECUTE, NOT_FOUND), "")
_PLUGIN = {
    0: "OK: the server answers",
    1: "WARNING: it is slower than --warning",
    2: "CRITICAL: it does not answer, or is slower than --critical",
    3: "UNKNOWN: the check could not be done, or the command line is wrong",
}
_EACH = {OK: "", USAGE: "", INTERNAL: "", OUTPUT: ""}
_SERVER = {**_EACH, OK: "it serves in the background, or was told to end", UNAVAILABLE: "a host's name is not known"}

# The codes of each tool, with their meaning there if that is a narrower one.
_OF = {
    "check-lockerd": _PLUGIN,
    "check-pidstatd": _PLUGIN,
    "doctor": {**_EACH, OK: "nothing failed; there may be warnings", 1: "a check failed"},
    "lockerd": _SERVER,
    "lockersh": {
        **_RUNS_A_COMMAND,
        OK: "with --for: the process has the lock, or with --release has it no more",
        USAGE: "the command line is wrong; with --for: there is no such process, it has ended, or it has the lock on "
        "other terms",
        UNAVAILABLE: "no lock server could be reached; with --release: nothing is held by --for, or it could not be "
        "given back yet",
        OUTPUT: "the output could not be written; with --for: there is no place for a socket",
        TEMPORARY: "the lock is busy, or held by the run that this one is part of, unless --conflict-exit-code says "
        "another one",
        LOST: "the lock was lost and the command was ended; with --release: it was lost before",
        NOT_ALLOWED: "with --for: the process is another user's",
    },
    "lockstat": {
        OK: "done; show: it is held; verify: the token is current",
        1: "show, break: the lock is free; verify: the token is stale",
        USAGE: "",
        UNAVAILABLE: "no server answers; verify: the server is a classic one",
        INTERNAL: "",
        OUTPUT: "the output could not be written",
        TEMPORARY: "break: the lock is still held",
    },
    "pidstat": {
        **_EACH,
        OK: "all of the processes exist",
        1: "one does not exist",
        2: "one is unknown, or its host does not answer",
    },
    "pidstatd": _SERVER,
    "pidwatch": {**_RUNS_A_COMMAND, OK: "with --foreground: it watches in the background"},
    "prefork": {
        **_EACH,
        OK: "it was told to end, and all copies have",
        1: "some copies had to be killed",
        CANNOT_EXECUTE: "",
        NOT_FOUND: "",
    },
    "supervise": {
        **_SERVER,
        1: "start, restart: a program is not up; stop: one has not ended",
        UNAVAILABLE: "status, start, stop, restart: no supervisor answers",
        GAVE_UP: "with --fatal-exit: a program died too often",
    },
    "uriexec": _RUNS_A_COMMAND,
}
_WITH_A_COMMAND = {tool for tool, codes in _OF.items() if CANNOT_EXECUTE in codes}


def exit_codes(tool: str) -> list[tuple[str, str]]:
    """List the exit codes of a tool, in their order, with their meanings; "ipclocker" is the whole."""
    codes = MEANINGS if tool == "ipclocker" else _OF.get(tool, _EACH)
    rows = [(str(code), codes[code] or MEANINGS[code]) for code in sorted(codes)]
    return [THE_COMMANDS_OWN, *rows] if tool in _WITH_A_COMMAND or tool == "ipclocker" else rows
