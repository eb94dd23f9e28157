"""prefork: copies of a FastCGI program, kept alive."""

from __future__ import annotations

from contextlib import closing
from socket import SOCK_STREAM

from ..daemon.log import set_up
from ..daemon.sd_notify import for_programs, take_notifier
from ..errors import UsageError
from ..net.socket_activation import take_inherited
from ..prefork.fastcgi_program import UP_AFTER, FastCgiManager
from ..prefork.listen_socket import BACKLOG, MODE, ListenSocket, parse_access, parse_listen
from ..prefork.parameters import MOST_PROCESSES, ManagerParameters
from ..process.spawn import caller_environment
from .command_line import CommandLine, argument, flag, number, option, seconds
from .shared_options import signal_option


class Prefork(CommandLine, name="prefork", example="prefork --listen unix:/run/php.socket --processes 8 -- php-cgi"):
    """Keep copies of a FastCGI program running that share a socket.

    Each copy has the listening socket as its descriptor 0, as the FastCGI specification asks. One that ends is
    replaced, after a pause that grows if it fails again and again. Stays in the foreground.

    Signals: TERM or INT tells the copies to stop, and ends when they have, with all that they have started; HUP renews
    them; TTIN adds one, TTOU takes one away. If prefork is killed, the copies get the stop signal.

    Exit codes: 0 all ended when they were told to, 1 some had to be killed, 64 the command line is wrong, 126 the
    program can't be executed, 127 there is no such program.
    """

    command: list[str] = argument("[COMMAND]...", "The program and its arguments, executed as they are.", many=True)
    listen: str | None = option(
        "The socket: HOST:PORT (an IPv6 address in brackets), unix:PATH, or fd:NUMBER, a descriptor that prefork was "
        "started with. It has to be given.",
        value="PLACE",
    )
    processes: int = number("N", "How many copies.", default=10, lowest=1, highest=MOST_PROCESSES)
    start_delay: float | None = seconds(
        "Pause between two starts, and how long a copy lives until it is taken to be up.",
        otherwise=f"no pause, up after {UP_AFTER:g}",
    )
    die_timeout: float = seconds("How long to wait for copies to end before SIGKILL; 0: for ever.", default=60.0)
    stop_signal: int = signal_option(
        "The signal on which the program finishes its request and ends: USR1 for those of libfcgi."
    )
    rolling: bool = flag(
        "On SIGHUP, stop each copy when another is up, or all at once.", "--rolling", "--no-rolling", default=True
    )
    pid_file: str | None = option("Write the manager's process id there; removed at the end.")
    title: str | None = option("Name of the manager's process, as ps shows it.")
    socket_mode: str | None = option("Mode of the UNIX socket.", value="MODE", otherwise=f"{MODE:o}")
    socket_owner: str | None = option("Owner of the UNIX socket: USER, USER:GROUP or :GROUP.", value="OWNER")
    backlog: int = number(
        "N", "How many connections may wait to be accepted.", default=BACKLOG, lowest=1, highest=65_535
    )
    log_file: str | None = option("Log there.", otherwise="stderr")

    def run(self) -> int:
        """Keep the copies running until told to end; the exit code."""
        if not self.command:
            raise self.wrong("the program is missing: give it after --")
        if self.listen is None:
            raise self.wrong("the socket is missing: give --listen HOST:PORT, unix:PATH or fd:NUMBER")
        has_access = self.socket_mode is not None or self.socket_owner is not None
        access = parse_access(self.socket_mode, self.socket_owner) if has_access else None
        inherited = take_inherited(SOCK_STREAM)
        if len(inherited) > 1:
            raise UsageError(f"{len(inherited)} sockets were handed over: a FastCGI program serves on one")
        listen = self.listen
        if inherited:  # whose mode and owner are for him to say who has made it
            listen, access = f"fd:{inherited[0].detach()}", None
        address = parse_listen(listen)
        if self.log_file is not None:
            set_up("prefork", foreground=True, log_file=self.log_file, debug=False)
        with closing(ListenSocket(address, access, self.backlog)) as listening:
            return self._manage(listening)

    def _manage(self, listening: ListenSocket) -> int:
        parameters: ManagerParameters = {
            "n_processes": self.processes,
            "die_timeout": self.die_timeout,
            "rolling": self.rolling,
            "pid_fname": self.pid_file,
            "pm_title": self.title,
        }
        if self.start_delay is not None:
            parameters["start_delay"] = self.start_delay
        manager = FastCgiManager(
            self.command,
            for_programs(caller_environment()),
            listening,
            stop_signal=self.stop_signal,
            logs=self.log_file is not None,
            notifier=take_notifier(),
            **parameters,
        )
        return manager.pm_manage()


COMMAND_LINES = (Prefork,)
