"""pidwatch's command line. It is read in a process of its own (process/spawn.py)."""

import os
from typing import Annotated, Any, Optional

import click
import typer

from ..errors import UsageError
from ..pid.endpoint import pid_endpoint
from ..process.command_line import command_line
from ..process.identity import MAX_PID
from ..process.signal_names import signal_number
from ..process.spawn import ExecSpec, caller_environment
from ..process.stderr import print_stderr
from ..process.termination import KillPolicy
from ..run.remote_monitor import WatchTarget
from .typer_support import parse, seconds, version_option

EXAMPLE = "ssh worker pidwatch --kill-tree --host $(hostname) --pid $$ make -C /proj regress"


def prepare(words: list[str]) -> tuple[dict[str, Any], Optional[ExecSpec]]:
    """What the staying process is to know, and what this one becomes."""
    prepared: tuple[dict[str, Any], Optional[ExecSpec]] = parse(pidwatch, "pidwatch", words, EXAMPLE)
    return prepared


def some_seconds(text: str) -> float:
    """A number of seconds above 0."""
    number = seconds(text)
    if not number:
        raise click.BadParameter("0 is too short a time.")
    return number


def pidwatch(
    command: Annotated[
        Optional[list[str]],
        typer.Argument(help="The command. It begins with the first word that is no option.", show_default=False),
    ] = None,
    pid: Annotated[
        Optional[int],
        typer.Option(
            metavar="PID", min=1, max=MAX_PID, help="The process to watch. It has to be given.", show_default=False
        ),
    ] = None,
    host: Annotated[
        Optional[str],
        typer.Option(
            help="The host of that process, where pidstatd has to run unless it is this host. [default: this host]",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        Optional[str],
        typer.Option(
            help="UDP port number or service name of pidstatd there. [default: the service pidstatd, else 1752]",
            show_default=False,
        ),
    ] = None,
    foreground: Annotated[
        Optional[int],
        typer.Option(
            metavar="PID",
            min=1,
            max=MAX_PID,
            help="Run no command, but end this process of this host. Returns at once and watches from the background, "
            "for as long as that process is there.",
            show_default=False,
        ),
    ] = None,
    cd: Annotated[
        Optional[str],
        typer.Option(
            metavar="FOLDER", help="Run the command in that folder; where it is, if that can't be.", show_default=False
        ),
    ] = None,
    signal: Annotated[
        str, typer.Option(metavar="SIGNAL", help="The signal that ends the command: HUP, SIGHUP, -HUP or 1.")
    ] = "HUP",
    killer: Annotated[
        Optional[str],
        typer.Option(
            metavar="PROGRAM",
            help="Program that sends the signal. It is called as kill is: PROGRAM -HUP PID.",
            show_default=False,
        ),
    ] = None,
    kill_tree: Annotated[
        bool, typer.Option("--kill-tree", help="Signal also all processes below the command at that time.")
    ] = False,
    grace: Annotated[
        Optional[float],
        typer.Option(
            parser=seconds,
            metavar="SECONDS",
            help="Follow with SIGKILL for what is left of them after that time. [default: never]",
            show_default=False,
        ),
    ] = None,
    interval: Annotated[
        float,
        typer.Option(
            parser=some_seconds, metavar="SECONDS", help="Longest time between two questions to another host."
        ),
    ] = 0.5,
    down_after: Annotated[
        Optional[float],
        typer.Option(
            parser=some_seconds,
            metavar="SECONDS",
            help="Take the process for gone when its host has not answered for that time. [default: never]",
            show_default=False,
        ),
    ] = None,
    no_shell: Annotated[
        bool, typer.Option("--no-shell", help="Execute the words as they are, whatever characters they have.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show on stderr what is found out and done.")] = False,
    version: Annotated[bool, version_option()] = False,
) -> tuple[dict[str, Any], Optional[ExecSpec]]:
    """Run a command, and end it when a process, which may be of another host, is gone.

    Runs the command in the foreground, as if pidwatch were not there, and ends as it did: with its exit status, or
    by the same signal, which is also what pidwatch ends by (HUP) when the process was gone. If it is gone at the
    start, the command is ended as it begins. A command with shell characters is run by /bin/sh -c, others directly;
    it is the shell, then, that gets the signal, and what it runs does with --kill-tree only.

    As a barrier: `pidwatch --host HOST --pid PID sleep 9999999` returns when the process is gone.

    The end of a process of this host is seen at once, and so is another process under its number. Of another host's
    process nothing but the number is known, and its host is asked. If that does not answer, or does not know, that is
    said once and the command goes on.

    Other exit codes: 64 the command line is wrong, 70 an internal fault, 126 the command can't be executed,
    127 there is no such command. With --foreground: 0.
    """
    way = KillPolicy(signal_number(signal), _program(killer), kill_tree, grace)
    target = WatchTarget(_needed(pid), _one_host(host), _port(port), interval, down_after)
    found: dict[str, Any] = {"target": tuple(target), "way": tuple(way), "foreground": foreground, "debug": debug}
    if foreground is not None:
        if command:
            raise click.UsageError("with --foreground there is no command: leave out one of them")
        return found, None
    if not command or not any(command):
        raise click.UsageError("the command is missing: give it after the options")
    folder, found["additions"] = _folder(cd)
    return found, ExecSpec(command_line(command, caller_environment(), no_shell), folder)


def _needed(pid: Optional[int]) -> int:
    if pid is None:
        raise click.UsageError("the process to watch is missing: give --pid PID")
    return pid


def _one_host(host: Optional[str]) -> str:
    if host is None:
        return "localhost"
    if not host or len(host.split()) != 1:
        raise UsageError(f"'{host}' is no host: give its name or its address by --host")
    return host.strip("[]")


def _port(port: Optional[str]) -> int:
    where = pid_endpoint(port)
    if where.path is not None:
        raise UsageError(f"the port '{port}' is a UNIX socket's: another host is asked at a UDP port")
    return where.port


def _program(killer: Optional[str]) -> Optional[str]:
    """The killer's name, as it will be good in another folder, too."""
    if killer is None or "/" not in killer:
        return killer
    return os.path.abspath(killer)


def _folder(folder: Optional[str]) -> tuple[Optional[str], dict[str, str]]:
    """A folder if the command can run there, and what that changes in its environment; says so if it can't."""
    if folder is None:
        return None, {}
    try:
        os.chdir(folder)
    except OSError as error:
        print_stderr(f"pidwatch: cannot go to the folder '{folder}': {error.strerror}; the command runs where it is")
        return None, {}
    # As a shell's `cd` does: by this, not by the folder itself, a program knows of the links in its name.
    return folder, {"PWD": folder if os.path.isabs(folder) else os.getcwd()}
