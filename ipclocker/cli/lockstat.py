"""lockstat: who holds which lock and who waits for it; locks broken, tokens verified."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from textwrap import indent
from typing import Any

from ..docs.exit_codes import exit_codes
from ..docs.tool_spec import HELP_OPTION, VERSION_OPTION, Command
from ..errors import OK, TEMPORARY, UNAVAILABLE, UsageError
from ..lock import report
from ..lock.client.breaker import LockBreaker
from ..lock.client.connection import ServerConnection
from ..lock.client.inspector import Inspector
from ..lock.client.ping import ping_hosts, serving
from ..lock.client.settings import LockSettings
from ..lock.snapshot import FREE, HELD, Outcome
from ..net.text import encode_text
from ..process.stderr import print_stderr
from ..version import VERSION
from .command_line import CommandLine, argument, flag, seconds
from .shared_options import PATH, TRACE, lockerd_host, lockerd_port

NOTHING_HELD, STALE = 1, 1  # exit codes


class _Client(CommandLine):
    """The options that all sub-commands take."""

    dhost: str | None = lockerd_host(
        "Host of lockerd, or several with colons between: the first that answers is asked; IPv6 addresses in brackets. "
        "[HOST]:PORT is that port of a host.",
        "--dhost",
        "--host",
    )
    port: str | None = lockerd_port()
    path: str | None = PATH
    as_json: bool = flag("Print JSON; lockstat --help has its keys.", "--json")
    debug: bool = TRACE

    def settings(self) -> LockSettings:
        """Whom to ask, and how."""
        if self.debug:
            ServerConnection.trace = _show_traffic
        return LockSettings(host=self.dhost, port=self.port, path=self.path, connect_tries=1)

    def inspector(self) -> Inspector:
        """The one that answers."""
        return Inspector(self.settings())

    def show(self, document: dict[str, Any], text: str) -> None:
        """Print what was found out: as JSON if that was asked for, else as text."""
        if self.as_json:
            _print_json(document)
        else:
            _print(text)


class List(_Client, name="lockstat list", example="lockstat list --dhost lockhost", interspersed=True):
    """Show all locks that are held, sorted by name.

    A line for each: its name, its holder's name, host (or address) and pid, since when, by this host's clock, it is
    held, the hold time or lease in seconds, the token, and how many wait for it. A last column says what is out
    of the ordinary. A classic server tells names and holders only; the rest is -.
    """

    def run(self) -> int:
        """Print all locks; the exit code."""
        snapshot = self.inspector().look()
        text = report.table(snapshot) if snapshot.locks else f"no lock is held on {snapshot.server}\n"
        self.show(report.document(snapshot), text)
        return OK


class Show(_Client, name="lockstat show", example="lockstat show nightly", interspersed=True):
    """Show all about one lock: its holder, what it runs, since when, and who waits for it, in their order.

    The exit code is 0 if the lock is held, 1 if it is free, 69 if no server answers.
    """

    name: str = argument("NAME", "Name of the lock.", required=True)

    def run(self) -> int:
        """Print the lock; the exit code."""
        snapshot = self.inspector().look(self.name)
        free = f"lock {self.name} is free\n"
        text = report.details(snapshot.locks[0], snapshot) if snapshot.locks else free
        self.show(report.document(snapshot), text)
        return OK if snapshot.locks else NOTHING_HELD


class Break(_Client, name="lockstat break", example="lockstat break nightly", interspersed=True):
    """Take locks from their holders.

    The holder of a lease is told; it ends what it runs, and then the lock is free, which this waits for. Any other
    lock is free at once, and its holder is told that it has lost it.

    The exit code is 0 if each lock was taken from its holder, 1 if one was free, 75 if one is still held when the
    wait is over, 69 if no server answers.
    """

    names: list[str] = argument("NAME...", "Names of locks.", many=True, required=True)
    force: bool = flag("Free a lease at once, too, though what it protects may still run.")
    timeout: float | None = seconds("Longest wait for a lease to be given back.", otherwise="until it must be over")

    def run(self) -> int:
        """Break the locks; the exit code."""
        inspector = self.inspector()
        breaker = LockBreaker(inspector, _tell, self.timeout)
        outcomes = breaker.force(self.names) if self.force else breaker.recall(self.names)
        every = _print_outcomes(outcomes, self.as_json)
        if self.as_json:
            _print_json(report.outcomes_document(inspector.server, every))
        found = {outcome.what for outcome in every}
        return TEMPORARY if HELD in found else NOTHING_HELD if FREE in found else OK


class Verify(_Client, name="lockstat verify", example="lockstat verify nightly $TOKEN", interspersed=True):
    """Say whether a token is the one under which a lock is held just now.

    For storage that is to refuse whoever has lost the lock: they send their token along (IPCLOCKER_TOKEN in the
    environment of lockersh's command).

    The exit code is 0 if it is current, 1 if it is stale, 64 if it is no number, 69 if no server answers or a
    classic one does, which knows no tokens.
    """

    name: str = argument("NAME", "Name of the lock.", required=True)
    token: str = argument("TOKEN", "The token of a grant of it.", required=True)

    def run(self) -> int:
        """Say whether the token is current; the exit code."""
        if not (self.token.isascii() and self.token.isdigit() and len(self.token) <= 20):
            raise UsageError(f"the token '{self.token}' is no number: give the one that came with the lock")
        inspector, token = self.inspector(), int(self.token)
        current = inspector.is_current(self.name, token)
        if current is None:
            print_stderr(
                f"lockstat: the lock server {inspector.server} knows no tokens: ask one that is no classic server"
            )
            return UNAVAILABLE
        named = {"server": report.json_text(inspector.server), "name": report.json_text(self.name)}
        text = f"token {token} of lock {self.name} is {'current' if current else 'stale'}\n"
        self.show({**named, "token": token, "current": current}, text)
        return OK if current else STALE


class Ping(_Client, name="lockstat ping", example="lockstat ping --dhost lockhost", interspersed=True):
    """Say whether a lock server answers, how fast, which version it is and since when it runs.

    Of several hosts, a line for each says whether it serves, stands by (another one serves the lock space that they
    share), or is silent, and why.

    The exit code is 0 if one serves, 69 if not.
    """

    def run(self) -> int:
        """Ask the servers; the exit code."""
        hosts = ping_hosts(self.settings())
        first = serving(hosts)
        self.show(report.hosts_document(hosts, first), report.hosts_text(hosts))
        return OK


# The sub-commands, as the help of the whole has them.
_COMMANDS = {
    "list": "show all locks that are held",
    "show NAME": "show all about one lock, and who waits for it",
    "break NAME...": "take locks from their holders",
    "verify NAME TOKEN": "whether a token is current",
    "ping": "whether servers answer, and how fast",
}

# Parts of the help of the whole, which are parts of the manual page, too.
SECTIONS = {
    "JSON": r"""
With --json, one object; more keys may come.
list, show  server, time, locks: none or more of
              name, holder, token, since, age, hold, lease, left, recalled,
              outlived, confirmed, mode: exclusive, slots or shared, slots,
              min_hold, kept, host, pid, address, command, holders: of
                holder, token, slots, kept, since, age, host, pid, address,
                command, waiters: of
                user, mode, slots, since, age, host, pid, address, command
break       server, locks: of name, holder,
              outcome: broken, recalled, free or held (still)
verify      server, name, token, current
ping        server, seconds, version, started, age: of the first that
              serves; hosts: of server, state: serves, stands by or
              silent, seconds, version, started, age, space,
              replicated, problem
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


class Lockstat(CommandLine):
    """The first word of the sub-commands, which alone shows the help of them all."""

    SPEC = Command(
        "lockstat", "COMMAND [OPTIONS] [NAMES]", "", (), (HELP_OPTION, VERSION_OPTION), "lockstat list --dhost lockhost"
    )

    @classmethod
    def main(cls, words: list[str]) -> int:
        """Show the help or the version; the exit code. Raises UsageError if it is something else that is asked for."""
        name = words[0] if words else ""
        if name in (*HELP_OPTION.names, "help"):
            commands = "\n".join(f"  {command:<19} {what}" for command, what in _COMMANDS.items())
            codes = "\n".join(f"  {code:<3} {meaning}" for code, meaning in exit_codes("lockstat"))
            sections = "\n\n".join(f"{title}:{indent(text, '  ')}" for title, text in SECTIONS.items())
            print(_HELP.format(commands=commands, codes=codes, sections=sections, version=VERSION))
        elif name in VERSION_OPTION.names:
            print(f"Version: {VERSION}")
        else:
            problem = f"there is no command '{name}'" if words else "the command is missing"
            known = ", ".join(command.split()[0] for command in _COMMANDS)
            raise UsageError(f"{problem}: say first one of {known}, then options; see lockstat --help")
        return OK


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
    sys.stdout.buffer.write(encode_text(report.escape_controls(text) if sys.stdout.isatty() else text))


def _print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")


def _tell(text: str) -> None:
    print_stderr(f"lockstat: {report.escape_controls(text) if sys.stderr.isatty() else text}")


COMMAND_LINES = (Lockstat, List, Show, Break, Verify, Ping)
