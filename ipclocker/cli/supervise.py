"""supervise: programs kept alive, and those who keep them asked and told."""

from typing import Annotated, Any, Optional

import click
import typer

from ..supervise.control_socket import COMMANDS
from ..supervise.daemon import DaemonOptions, ProgramSource, run_supervisor
from ..supervise.settings import LEASE, SupervisorSettings
from .shared_options import Debug, LogFile, Nofork, PidFile
from .tool_specs import Declaration
from .typer_support import parse, seconds, version_option

EXAMPLE = "supervise --program 'web: /opt/web/server --port 80' --program /opt/mail/queue --pid-file /run/programs.pid"


def main(words: list[str]) -> int:
    """Run supervise; the exit code."""
    if words and words[0] in COMMANDS:
        from .supervise_control import command

        return command(words[0], words[1:])
    return int(parse(supervise, "supervise", words, EXAMPLE)["code"])


def declarations() -> list[Declaration]:
    """What the manual page and the completion are made of: the supervisor, and what asks and tells it."""
    from . import supervise_control as supervise_words

    return [Declaration("supervise", supervise, EXAMPLE), *supervise_words.declarations()]


def _seconds_option(text: str) -> Any:
    return typer.Option(parser=seconds, metavar="SECONDS", help=text)


def supervise(
    words: Annotated[
        Optional[list[str]], typer.Argument(hidden=True, metavar="status|start|stop|restart [NAME...]")
    ] = None,
    program: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="[NAME: ]COMMAND",
            help="A program to keep alive; may be given several times. It is called NAME, else by the base name of "
            "its first word.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Optional[str],
        typer.Option(help="Programs to keep alive, one a line; # begins a comment.", show_default=False),
    ] = None,
    exit_hook: Annotated[
        Optional[str],
        typer.Option(metavar="COMMAND", help="Run it at the end, when all have ended.", show_default=False),
    ] = None,
    stop_signal: Annotated[str, typer.Option(metavar="SIGNAL", help="What programs are ended by.")] = "TERM",
    stop_timeout: Annotated[
        float, _seconds_option("From that signal until what is left of a program gets SIGKILL.")
    ] = 10.0,
    first_pause: Annotated[float, _seconds_option("Before a program that died is started again.")] = 0.1,
    longest_pause: Annotated[float, _seconds_option("With each further death the pause doubles, up to this.")] = 30.0,
    good_run: Annotated[float, _seconds_option("A program that has lived so long begins with the first pause.")] = 60.0,
    give_up: Annotated[
        Optional[str],
        typer.Option(
            metavar="N/S",
            help="After N deaths in S seconds a program is FATAL: not started again. [default: never]",
            show_default=False,
        ),
    ] = None,
    fatal_exit: Annotated[
        bool, typer.Option("--fatal-exit", help="End when a program is FATAL, with code 79.")
    ] = False,
    output: Annotated[
        Optional[str],
        typer.Option(
            metavar="FILE",
            help="What programs write, in lines with the time and their name. [default: stdout with --nofork, else "
            "the log]",
            show_default=False,
        ),
    ] = None,
    output_dir: Annotated[
        Optional[str],
        typer.Option(
            metavar="FOLDER", help="What each program writes, as it is, in a file NAME.log there.", show_default=False
        ),
    ] = None,
    lock: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Run the programs only while this cluster lock is held. Given several times, or with colons between "
            "names: the first that is free.",
            show_default=False,
        ),
    ] = None,
    lease: Annotated[
        float, _seconds_option("The lock is held for so long at a time, and renewed; 3 at least.")
    ] = LEASE,
    dhost: Annotated[
        Optional[str],
        typer.Option(
            help="Host of lockerd, or several with colons between, as for lockersh. "
            "[default: IPCLOCKER_HOST, else localhost]",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        Optional[str],
        typer.Option(help="Port of lockerd, as for lockersh. [default: IPCLOCKER_PORT, else 1751]", show_default=False),
    ] = None,
    path: Annotated[Optional[str], typer.Option(help="Name of lockerd's UNIX socket.", show_default=False)] = None,
    nofork: Nofork = False,
    pid_file: PidFile = None,
    log_file: LogFile = None,
    debug: Debug = False,
    version: Annotated[bool, version_option()] = False,
) -> dict[str, int]:
    """Keep programs running: start them, and again whenever they die.

    Goes to the background once it is there. SIGTERM and SIGINT end the programs, with all that they have started, and
    then the supervisor. SIGHUP reads the file again: new programs are started, those that are gone are ended, the
    rest restarted. SIGUSR1 opens output files anew.

    supervise status, start, stop and restart, each with --help, ask and tell a supervisor that is running.

    A program is run directly, or by /bin/sh -c if it has characters that mean something to a shell. Its environment
    has its name in IPCLOCKER_PROGRAM.
    """
    if words:
        if words[0] in COMMANDS:
            raise click.UsageError(f"'{words[0]}' has to be the first word: supervise {words[0]} [OPTIONS] [NAME...]")
        raise click.UsageError(f"'{words[0]}' is no option: programs are given by --program, each in quotes")
    listed = ProgramSource(program or [], file)
    settings = SupervisorSettings(
        stop_signal=stop_signal,
        stop_timeout=stop_timeout,
        first_pause=first_pause,
        longest_pause=longest_pause,
        good_run=good_run,
        give_up=give_up,
        fatal_exit=fatal_exit,
        output=output,
        output_dir=output_dir,
        lock=None if not lock else [name for given in lock for name in given.split(":")],
        lease=lease,
        host=dhost,
        port=port,
        path=path,
    )
    return {"code": run_supervisor(settings, listed, exit_hook, DaemonOptions(nofork, pid_file, log_file, debug))}
