"""lockstat: who holds which lock and who waits for it; locks broken, tokens verified."""

import json
import sys
from collections.abc import Callable, Iterable
from textwrap import indent
from typing import Annotated, Any, NamedTuple, Optional

import typer

from ..docs.exit_codes import exit_codes
from ..errors import OK, TEMPORARY, UNAVAILABLE, UsageError
from ..lock import report
from ..lock.client.breaker import LockBreaker
from ..lock.client.connection import ServerConnection
from ..lock.client.inspector import Inspector
from ..lock.client.settings import LockSettings
from ..lock.snapshot import FREE, HELD, Outcome
from ..process.stderr import print_stderr
from ..version import VERSION
from .tool_specs import Declaration
from .typer_support import parse, seconds, version_option

NOTHING_HELD, STALE = 1, 1  # exit codes

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the lock.", show_default=False)]
Dhost = Annotated[
    Optional[str],
    typer.Option(
        "--dhost",
        "--host",
        help="Host of lockerd, or several with colons between: the first that answers is asked; IPv6 addresses in "
        "brackets. [default: IPCLOCKER_HOST, else localhost]",
        show_default=False,
    ),
]
Port = Annotated[
    Optional[str],
    typer.Option(
        help="Port number or service name of lockerd, or the name of its UNIX socket (it has a slash). "
        "[default: IPCLOCKER_PORT, else the service lockerd, else 1751]",
        show_default=False,
    ),
]
Path = Annotated[Optional[str], typer.Option(help="Name of lockerd's UNIX socket.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON; lockstat --help has its keys.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show on stderr what is said to the server and back.")]
Version = Annotated[bool, version_option()]


def list_locks(
    dhost: Dhost = None,
    port: Port = None,
    path: Path = None,
    as_json: Json = False,
    debug: Debug = False,
    version: Version = False,
) -> dict[str, int]:
    """Show all locks that are held, sorted by name.

    A line for each: its name, its holder's name, host (or address) and pid, since when, by this host's clock, it is
    held, the hold time or lease in seconds, the token, and how many wait for it. A last column says what is out
    of the ordinary. A classic server tells names and holders only; the rest is -.
    """
    snapshot = _inspector(dhost, port, path, debug).look()
    if as_json:
        _print_json(report.document(snapshot))
    elif snapshot.locks:
        _print(report.table(snapshot))
    else:
        _print(f"no lock is held on {snapshot.server}\n")
    return {"code": OK}


def show(
    name: Name,
    dhost: Dhost = None,
    port: Port = None,
    path: Path = None,
    as_json: Json = False,
    debug: Debug = False,
    version: Version = False,
) -> dict[str, int]:
    """Show all about one lock: its holder, what it runs, since when, and who waits for it, in their order.

    The exit code is 0 if the lock is held, 1 if it is free, 69 if no server answers.
    """
    snapshot = _inspector(dhost, port, path, debug).look(name)
    if as_json:
        _print_json(report.document(snapshot))
    elif snapshot.locks:
        _print(report.details(snapshot.locks[0], snapshot))
    else:
        _print(f"lock {name} is free\n")
    return {"code": OK if snapshot.locks else NOTHING_HELD}


def break_locks(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of locks.", show_default=False)],
    force: Annotated[
        bool,
        typer.Option("--force", help="Free a lease at once, too, though what it protects may still run."),
    ] = False,
    timeout: Annotated[
        Optional[float],
        typer.Option(
            parser=seconds,
            metavar="SECONDS",
            help="Longest wait for a lease to be given back. [default: until it must be over]",
            show_default=False,
        ),
    ] = None,
    dhost: Dhost = None,
    port: Port = None,
    path: Path = None,
    as_json: Json = False,
    debug: Debug = False,
    version: Version = False,
) -> dict[str, int]:
    """Take locks from their holders.

    The holder of a lease is told; it ends what it runs, and then the lock is free, which this waits for. Any other
    lock is free at once, and its holder is told that it has lost it.

    The exit code is 0 if each lock was taken from its holder, 1 if one was free, 75 if one is still held when the
    wait is over, 69 if no server answers.
    """
    inspector = _inspector(dhost, port, path, debug)
    breaking = LockBreaker(inspector, _tell, timeout)
    outcomes = _print_outcomes(breaking.force(names) if force else breaking.recall(names), as_json)
    if as_json:
        _print_json(report.outcomes_document(inspector.server, outcomes))
    found = {outcome.what for outcome in outcomes}
    return {"code": TEMPORARY if HELD in found else NOTHING_HELD if FREE in found else OK}


def verify(
    name: Name,
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The token of a grant of it.", show_default=False)],
    dhost: Dhost = None,
    port: Port = None,
    path: Path = None,
    as_json: Json = False,
    debug: Debug = False,
    version: Version = False,
) -> dict[str, int]:
    """Say whether a token is the one under which a lock is held just now.

    For storage that is to refuse whoever has lost the lock: they send their token along (IPCLOCKER_TOKEN in the
    environment of lockersh's command).

    The exit code is 0 if it is current, 1 if it is stale, 64 if it is no number, 69 if no server answers or a
    classic one does, which knows no tokens.
    """
    if not (token.isascii() and token.isdigit() and len(token) <= 20):
        raise UsageError(f"the token '{token}' is no number: give the one that came with the lock")
    inspector = _inspector(dhost, port, path, debug)
    current = inspector.is_current(name, int(token))
    if current is None:
        print_stderr(f"lockstat: the lock server {inspector.server} knows no tokens: ask one that is no classic server")
        return {"code": UNAVAILABLE}
    if as_json:
        named = {"server": report.json_text(inspector.server), "name": report.json_text(name)}
        _print_json({**named, "token": int(token), "current": current})
    else:
        _print(f"token {int(token)} of lock {name} is {'current' if current else 'stale'}\n")
    return {"code": OK if current else STALE}


def ping(
    dhost: Dhost = None,
    port: Port = None,
    path: Path = None,
    as_json: Json = False,
    debug: Debug = False,
    version: Version = False,
) -> dict[str, int]:
    """Say whether a lock server answers, how fast, which version it is and since when it runs.

    The exit code is 0 if one does, 69 if not.
    """
    pong = _inspector(dhost, port, path, debug).ping()
    if as_json:
        _print_json(report.ping_document(pong))
    else:
        _print(report.ping_line(pong) + "\n")
    return {"code": OK}


class _Command(NamedTuple):
    function: Callable[..., dict[str, int]]
    words: str
    what: str
    example: str


_COMMANDS = {
    "list": _Command(list_locks, "list", "show all locks that are held", "lockstat list --dhost lockhost"),
    "show": _Command(show, "show NAME", "show all about one lock, and who waits for it", "lockstat show nightly"),
    "break": _Command(break_locks, "break NAME...", "take locks from their holders", "lockstat break nightly"),
    "verify": _Command(verify, "verify NAME TOKEN", "whether a token is current", "lockstat verify nightly $TOKEN"),
    "ping": _Command(ping, "ping", "whether a server answers, and how fast", "lockstat ping --dhost lockhost"),
}

# Parts of the help of the whole, which are parts of the manual page, too.
SECTIONS = {
    "JSON": r"""
With --json, one object; more keys may come.
list, show  server, time, locks: none or more of
              name, holder, token, since, age, hold, lease, left, recalled,
              outlived, confirmed, host, pid, address, command, waiters: of
                user, since, age, host, pid, address, command
break       server, locks: of name, holder,
              outcome: broken, recalled, free or held (still)
verify      server, name, token, current
ping        server, seconds, version, started, age
since, started and time are seconds since 1970, the other times seconds.
What is not known, or does not apply, is null. In text a byte that is no
UTF-8, and the backslash, is written \xNN."""
}
_HELP = """Usage: lockstat COMMAND [OPTIONS] [NAMES]

  Show who holds which lock and who waits for it, and break locks.

Commands:
{commands}

  Each has --help, and --dhost, --port and --path to say where lockerd is:
  IPCLOCKER_HOST and IPCLOCKER_PORT, else localhost and 1751, if not given.

Exit codes:
{codes}

{sections}

  Example: lockstat list --dhost lockhost

  Version: {version}"""


def main(words: list[str]) -> int:
    """Run lockstat; the exit code."""
    name = words[0] if words else ""
    if name in _COMMANDS:
        command = _COMMANDS[name]
        return int(parse(command.function, f"lockstat {name}", words[1:], command.example, interspersed=True)["code"])
    if name in ("--help", "help"):
        commands = "\n".join(f"  {command.words:<19} {command.what}" for command in _COMMANDS.values())
        codes = "\n".join(f"  {code:<3} {meaning}" for code, meaning in exit_codes("lockstat"))
        sections = "\n\n".join(f"{title}:{indent(text, '  ')}" for title, text in SECTIONS.items())
        print(_HELP.format(commands=commands, codes=codes, sections=sections, version=VERSION))
    elif name == "--version":
        print(f"Version: {VERSION}")
    else:
        problem = f"there is no command '{name}'" if words else "the command is missing"
        raise UsageError(f"{problem}: say first one of {', '.join(_COMMANDS)}, then options; see lockstat --help")
    return OK


def declarations() -> list[Declaration]:
    """What the manual page and the completion are made of: the whole, and its sub-commands."""
    whole = Declaration("lockstat", None, _COMMANDS["list"].example, usage="COMMAND [OPTIONS] [NAMES]")
    return [
        whole,
        *(Declaration(f"lockstat {name}", command.function, command.example) for name, command in _COMMANDS.items()),
    ]


def _inspector(dhost: Optional[str], port: Optional[str], path: Optional[str], debug: bool) -> Inspector:
    if debug:
        ServerConnection.trace = _show_traffic
    return Inspector(LockSettings(host=dhost, port=port, path=path, connect_tries=1))


def _show_traffic(direction: str, data: bytes) -> None:
    for line in report.text(data).split("\n")[:-1]:
        _tell(f"{direction} {line}")


def _print_outcomes(outcomes: Iterable[Outcome], as_json: bool) -> list[Outcome]:
    """All of them, each told as soon as it is there: on stdout, unless as JSON; a failure on stderr."""
    every = []
    for outcome in outcomes:
        every.append(outcome)
        if outcome.what == HELD:
            _tell(report.outcome_line(outcome))
        elif not as_json:
            _print(report.outcome_line(outcome) + "\n")
            sys.stdout.flush()
    return every


def _print(text: str) -> None:
    """Write bytes as they came, but to a terminal nothing that it would take for a command."""
    sys.stdout.buffer.write(report.encode(report.escape_controls(text) if sys.stdout.isatty() else text))


def _print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")


def _tell(text: str) -> None:
    print_stderr(f"lockstat: {report.escape_controls(text) if sys.stderr.isatty() else text}")
