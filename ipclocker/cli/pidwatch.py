"""pidwatch: a command run for as long as a process elsewhere lives."""

from __future__ import annotations

import os

from ..errors import UsageError
from ..net.address import Host, split_hosts
from ..pid.endpoint import pid_endpoint
from ..process.identity import MAX_PID
from ..process.spawn import CommandProcess, ExecSpec
from ..process.termination import KillPolicy
from ..process.tree import require_sight
from ..run.remote_monitor import WatchTarget, is_this_host
from ..run.while_alive import run_watched, watch_in_background
from .command_line import flag, number, option, seconds, to_some_seconds
from .shared_options import COMMAND, NO_SHELL, pidstatd_port, signal_option
from .staying import StayingCommandLine


class Pidwatch(
    StayingCommandLine,
    name="pidwatch",
    example="ssh worker pidwatch --kill-tree --host $(hostname) --pid $$ -- make -C /proj regress",
):
    """Run a command, and end it when a process, which may be of another host, is gone.

    Runs the command in the foreground, as if pidwatch were not there, and ends as it did: with its exit status, or
    by the same signal, which is also what pidwatch ends by (HUP) when the process was gone. If it is gone at the
    start, the command is ended as it begins.

    Behind -- the words are executed exactly as they are. Without --, as the Perl program has it, they are joined by
    spaces: if that has shell characters, /bin/sh -c runs it, else it is executed directly. It is the shell, then,
    that gets the signal, and what it runs does with --kill-tree only.

    As a barrier: `pidwatch --host HOST --pid PID -- sleep 9999999` returns when the process is gone.

    The end of a process of this host is seen at once, and so is another process under its number. Of another host's
    process nothing but the number is known, and its host is asked. If that does not answer, or does not know, that is
    said once and the command goes on. With --port the server at that port is asked in any case, even about a process
    of this host.

    Other exit codes: 64 the command line is wrong, 70 an internal fault, 126 the command can't be executed,
    127 there is no such command. With --foreground: 0.
    """

    command: list[str] = COMMAND
    exact: bool
    pid: int | None = number("PID", "The process to watch. It has to be given.", lowest=1, highest=MAX_PID)
    host: str | None = option(
        "The host of that process, where pidstatd has to run unless it is this host; or [HOST]:PORT.",
        otherwise="this host",
    )
    port: str | None = pidstatd_port("UDP port number or service name of pidstatd there.")
    foreground: int | None = number(
        "PID",
        "Run no command, but end this process of this host. Returns at once and watches from the background, for as "
        "long as that process is there.",
        lowest=1,
        highest=MAX_PID,
    )
    cd: str | None = option("Run the command in that folder; where it is, if that can't be.", value="FOLDER")
    signal: int = signal_option("The signal that ends the command: HUP, SIGHUP, -HUP or 1.", default="HUP")
    killer: str | None = option(
        "Program that sends the signal. It is called as kill is: PROGRAM -HUP PID.", value="PROGRAM"
    )
    kill_tree: bool = flag("Signal also all processes below the command at that time.")
    grace: float | None = seconds("Follow with SIGKILL for what is left of them after that time.", otherwise="never")
    interval: float = seconds("Longest time between two questions to another host.", read=to_some_seconds, default=0.5)
    down_after: float | None = seconds(
        "Take the process for gone when its host has not answered for that time.",
        read=to_some_seconds,
        otherwise="never",
    )
    no_shell: bool = NO_SHELL
    debug: bool = flag("Show on stderr what is found out and done.")

    def run(self) -> int:
        """Run the command, or watch in the background; the exit code, unless it ends as the command did."""
        if self.pid is None:
            raise self.wrong("the process to watch is missing: give --pid PID")
        host = _one_host(self.host)
        target = WatchTarget(self.pid, host.name, _port_to_ask(host, self.port), self.interval, self.down_after)
        # The killer's name is to be good in another folder, too.
        killer = os.path.abspath(self.killer) if self.killer and "/" in self.killer else self.killer
        if self.kill_tree:
            require_sight("--kill-tree")
        policy = KillPolicy(self.signal, killer, self.kill_tree, self.grace)
        if self.foreground is None:
            if not any(self.command):
                raise self.wrong("the command is missing: give it after the options, behind --")
            spec = ExecSpec(self.command, self.exact or self.no_shell, self.cd)
            run_watched(CommandProcess("pidwatch", spec), target, policy, self.debug)
        if self.command:
            raise self.wrong("with --foreground there is no command: leave out one of them")
        return watch_in_background(self.foreground, target, policy, self.debug)


def _one_host(text: str | None) -> Host:
    if text is None:
        return Host("localhost")
    if len(text.split()) == 1:
        is_ipv6 = text.count(":") > 1 and "[" not in text
        hosts = [Host(text)] if is_ipv6 else split_hosts(text)
        if len(hosts) == 1:
            return hosts[0]
    raise UsageError(f"'{text}' is not a host: give its name or its address by --host")


def _port_to_ask(host: Host, port: str | None) -> int:
    """Find the port of the server to be asked; 0 if it is the kernel that is asked."""
    if host.port is not None:
        return host.port
    where = pid_endpoint(port)
    if port is None and is_this_host(host.name):
        return 0
    if where.path is not None:
        raise UsageError(f"the port '{port}' is a UNIX socket's: another host is asked at a UDP port")
    if not where.port:
        raise UsageError(f"the port '{port}' can't be asked: no server has that number")
    return where.port


COMMAND_LINES = (Pidwatch,)
