"""lockersh's command line, which is read in a process of its own (process/spawn.py)."""

from typing import Annotated, Any, Optional

import click
import typer

from ..errors import TEMPORARY
from ..process.command_line import command_line
from ..process.signal_names import signal_number
from ..process.spawn import ExecSpec, caller_environment
from .typer_support import parse, seconds, version_option

EXAMPLE = "lockersh --dhost lockhost --lock nightly make -C /proj regress"


def prepare(words: list[str]) -> tuple[dict[str, Any], Optional[ExecSpec]]:
    """What the staying process is to know, and what the command's is to become."""
    prepared: tuple[dict[str, Any], Optional[ExecSpec]] = parse(lockersh, "lockersh", words, EXAMPLE)
    return prepared


def lockersh(
    command: Annotated[
        Optional[list[str]],
        typer.Argument(help="The command. It begins with the first word that is no option.", show_default=False),
    ] = None,
    lock: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Name of the lock. Given several times, or with colons between names: the first that is free.",
            show_default=False,
        ),
    ] = None,
    together: Annotated[
        bool, typer.Option("--all", help="Take all of these locks, or none; not the first that is free.")
    ] = False,
    dhost: Annotated[
        Optional[str],
        typer.Option(
            help="Host of lockerd, or several with colons between, to be tried in turn; IPv6 addresses in brackets. "
            "[default: IPCLOCKER_HOST, else localhost]",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        Optional[str],
        typer.Option(
            help="Port number or service name of lockerd, or the name of its UNIX socket (it has a slash). "
            "[default: IPCLOCKER_PORT, else the service lockerd, else 1751]",
            show_default=False,
        ),
    ] = None,
    path: Annotated[Optional[str], typer.Option(help="Name of lockerd's UNIX socket.", show_default=False)] = None,
    timeout: Annotated[
        Optional[float],
        typer.Option(
            parser=seconds,
            metavar="SECONDS",
            help="Longest wait for the lock; 0 tries once. [default: for ever]",
            show_default=False,
        ),
    ] = None,
    hold_timeout: Annotated[
        float,
        typer.Option(
            parser=seconds,
            metavar="SECONDS",
            help="Longest time to hold the lock; then the server takes it away, though the command may still run. "
            "[default: for ever]",
            show_default=False,
        ),
    ] = 0.0,
    lease: Annotated[
        float,
        typer.Option(
            parser=seconds,
            metavar="SECONDS",
            help="Hold the lock for so long at a time (3 at least), renew that, and end the command before it is over "
            "if it can't be renewed. [default: hold it until the command ends]",
            show_default=False,
        ),
    ] = 0.0,
    lost_signal: Annotated[
        str, typer.Option(metavar="SIGNAL", help="What a command gets that is to end because the lock is lost.")
    ] = "TERM",
    on_lost: Annotated[
        str,
        typer.Option(
            metavar="warn|kill|LINE",
            help="If the lock is lost: say so; end the command, too; or run LINE by /bin/sh. With --lease the command "
            "is ended anyway.",
        ),
    ] = "warn",
    no_shell: Annotated[
        bool, typer.Option("--no-shell", help="Execute the words as they are, whatever characters they have.")
    ] = False,
    locklist: Annotated[
        bool, typer.Option("--locklist", help="Run nothing; print the locks that are held and their holders.")
    ] = False,
    conflict_exit_code: Annotated[
        int, typer.Option(metavar="CODE", min=0, max=255, help="Exit code if the lock stays busy.")
    ] = TEMPORARY,
    connect_tries: Annotated[
        int, typer.Option(metavar="N", min=1, help="How often to try all hosts before giving up.")
    ] = 3,
    connect_delay: Annotated[
        float,
        typer.Option(
            parser=seconds,
            metavar="SECONDS",
            help="Pause between these tries: at random, up to twice as long.",
        ),
    ] = 30.0,
    release_tries: Annotated[
        float,
        typer.Option(
            parser=seconds,
            metavar="SECONDS",
            help="How long to try to give the lock back to a server that does not answer.",
        ),
    ] = 5.0,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Say on stderr when the lock is waited for and obtained.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show on stderr what is said to the server and back.")] = False,
    version: Annotated[bool, version_option()] = False,
) -> tuple[dict[str, Any], Optional[ExecSpec]]:
    """Run a command under a lock that holds across hosts.

    Waits until the lock is granted, runs the command in the foreground, gives the lock back when the command
    ends, and ends as it did: with its exit status, or by the same signal. The command's environment has the
    lock's name in IPCLOCKER_LOCK and the number of the grant in IPCLOCKER_TOKEN. A command with shell characters
    is run by /bin/sh -c, others directly.

    Other exit codes: 64 the command line is wrong, 69 no server, 70 an internal fault, 75 the lock is busy, 76 the
    lock was lost and the command ended, 126 the command can't be executed, 127 there is no such command.
    """
    names = [name for given in lock or [] for name in given.split(":")]
    if locklist:
        order = None
    elif not names or not all(names):
        raise click.UsageError("the name of a lock is missing: give --lock NAME")
    elif not command or not any(command):
        raise click.UsageError("the command is missing: give it after the options")
    elif lease and hold_timeout:
        raise click.UsageError("--lease and --hold-timeout are two ways to hold a lock: give one of them")
    else:
        order = ExecSpec(command_line(command, caller_environment(), no_shell))
    return {
        "lock": names or ["lock"],
        "host": dhost,
        "port": port,
        "path": path,
        "wait": timeout,
        "all": together,
        "hold": hold_timeout,
        "lease": lease,
        "lost_signal": signal_number(lost_signal),
        "on_lost": on_lost,
        "command": " ".join(command or []),
        "connect_tries": connect_tries,
        "connect_delay": connect_delay,
        "release_within": release_tries,
        "busy_code": conflict_exit_code,
        "verbose": verbose,
        "debug": debug,
        "locklist": locklist,
    }, order
