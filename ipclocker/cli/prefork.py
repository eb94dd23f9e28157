"""prefork: copies of a FastCGI program, kept alive."""

from functools import partial
from socket import SOCK_STREAM
from typing import Annotated, Callable, Optional

import click
import typer

from ..daemon.log import set_up
from ..daemon.sd_notify import for_programs, take_notifier
from ..errors import UsageError
from ..net.socket_activation import take_inherited
from ..prefork.fastcgi_program import UP_AFTER, FastCgiManager
from ..prefork.listen_socket import BACKLOG, MODE, Inherited, Listening, parse_access, parse_place
from ..prefork.parameters import MOST_PROCESSES, Parameters
from ..process.signal_names import signal_number
from ..process.spawn import caller_environment
from .typer_support import parse, seconds, version_option

EXAMPLE = "prefork --listen unix:/run/php.socket --processes 8 -- php-cgi"


def main(words: list[str]) -> int:
    """Run prefork; the exit code."""
    run: Callable[[], int] = parse(prefork, "prefork", words, EXAMPLE)
    return run()


def prefork(
    command: Annotated[
        Optional[list[str]],
        typer.Argument(help="The program and its arguments, executed as they are.", show_default=False),
    ] = None,
    listen: Annotated[
        Optional[str],
        typer.Option(
            metavar="PLACE",
            help="The socket: HOST:PORT (an IPv6 address in brackets), unix:PATH, or fd:NUMBER, a descriptor that "
            "prefork was started with. It has to be given.",
            show_default=False,
        ),
    ] = None,
    processes: Annotated[int, typer.Option(metavar="N", min=1, max=MOST_PROCESSES, help="How many copies.")] = 10,
    start_delay: Annotated[
        Optional[float],
        typer.Option(
            parser=seconds,
            metavar="SECONDS",
            help="Pause between two starts, and how long a copy lives until it is taken to be up. "
            f"[default: no pause, up after {UP_AFTER:g}]",
            show_default=False,
        ),
    ] = None,
    die_timeout: Annotated[
        float,
        typer.Option(
            parser=seconds, metavar="SECONDS", help="How long to wait for copies to end before SIGKILL; 0: for ever."
        ),
    ] = 60.0,
    stop_signal: Annotated[
        str,
        typer.Option(
            metavar="SIGNAL",
            help="The signal on which the program finishes its request and ends: USR1 for those of libfcgi.",
        ),
    ] = "TERM",
    rolling: Annotated[
        bool,
        typer.Option("--rolling/--no-rolling", help="On SIGHUP, stop each copy when another is up, or all at once."),
    ] = True,
    pid_file: Annotated[
        Optional[str],
        typer.Option(help="Write the manager's process id there; removed at the end.", show_default=False),
    ] = None,
    title: Annotated[
        Optional[str], typer.Option(help="Name of the manager's process, as ps shows it.", show_default=False)
    ] = None,
    socket_mode: Annotated[
        Optional[str],
        typer.Option(metavar="MODE", help=f"Mode of the UNIX socket. [default: {MODE:o}]", show_default=False),
    ] = None,
    socket_owner: Annotated[
        Optional[str],
        typer.Option(metavar="OWNER", help="Owner of the UNIX socket: USER, USER:GROUP or :GROUP.", show_default=False),
    ] = None,
    backlog: Annotated[
        int, typer.Option(metavar="N", min=1, max=65_535, help="How many connections may wait to be accepted.")
    ] = BACKLOG,
    log_file: Annotated[Optional[str], typer.Option(help="Log there. [default: stderr]", show_default=False)] = None,
    version: Annotated[bool, version_option()] = False,
) -> Callable[[], int]:
    """Keep copies of a FastCGI program running that share a socket.

    Each copy has the listening socket as its descriptor 0, as the FastCGI specification asks. One that ends is
    replaced, after a pause that grows if it fails again and again. Stays in the foreground.

    Signals: TERM or INT tells the copies to stop, and ends when they have; HUP renews them; TTIN adds one, TTOU takes
    one away. If prefork is killed, the copies get the stop signal.

    Exit codes: 0 all copies ended when they were told to, 1 some had to be killed, 64 the command line is wrong,
    126 the program can't be executed, 127 there is no such program.
    """
    if not command:
        raise click.UsageError("the program is missing: give it after --")
    if listen is None:
        raise click.UsageError("the socket is missing: give --listen HOST:PORT, unix:PATH or fd:NUMBER")
    access = parse_access(socket_mode, socket_owner) if socket_mode is not None or socket_owner is not None else None
    parameters: Parameters = {
        "n_processes": processes,
        "die_timeout": die_timeout,
        "rolling": rolling,
        "pid_fname": pid_file,
        "pm_title": title,
    }
    if start_delay is not None:
        parameters["start_delay"] = start_delay
    inherited = take_inherited(SOCK_STREAM)
    if len(inherited) > 1:
        raise UsageError(f"{len(inherited)} sockets were handed over: a FastCGI program serves on one")
    if inherited:  # whose mode and owner are for him to say who has made it
        listening = partial(Listening, Inherited(inherited[0].detach()), None, backlog)
    else:
        listening = partial(Listening, parse_place(listen), access, backlog)
    return partial(_run, command, listening, signal_number(stop_signal), log_file, parameters)


def _run(
    command: list[str],
    listen: Callable[[], Listening],
    stop_signal: int,
    log_file: Optional[str],
    parameters: Parameters,
) -> int:
    if log_file is not None:
        set_up("prefork", foreground=True, log_file=log_file, debug=False)
    manager = take_notifier()
    listening = listen()
    try:
        program = FastCgiManager(
            command,
            for_programs(caller_environment()),
            listening,
            stop_signal=stop_signal,
            logs=log_file is not None,
            service_manager=manager,
            **parameters,
        )
        return program.pm_manage()
    finally:
        listening.close()
