"""lockersh: a command run under a lock. What takes long to import comes when the command's process is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from ..errors import OK, TEMPORARY, LockBusy
from ..process.spawn import CommandProcess, ExecSpec
from .command_line import flag, number, option, seconds
from .shared_options import COMMAND, NO_SHELL, PATH, TRACE, lockerd_host, lockerd_port, signal_option
from .staying import StayingCommandLine

if TYPE_CHECKING:
    from ..lock.client.settings import LockSettings
    from ..run.options import RunOptions


class Lockersh(
    StayingCommandLine, name="lockersh", example="lockersh --dhost lockhost --lock nightly -- make -C /proj regress"
):
    """Run a command under a lock that holds across hosts.

    Waits until the lock is granted, runs the command in the foreground, gives the lock back when the command
    ends, and ends as it did: with its exit status, or by the same signal. The command's environment has the
    lock's name in IPCLOCKER_LOCK, the grant's number in IPCLOCKER_TOKEN, and its lock space in IPCLOCKER_SPACE.

    Behind -- the words are executed exactly as they are. Without --, as the Perl program has it, they are joined by
    spaces: if that has shell characters, /bin/sh -c runs it, else it is executed directly.

    With --for PID there is no command: the lock is taken for a process that runs already, usually the script that
    calls this (--for $$), and lockersh returns. The lock is free again when that process has ended, or after --release.

    Other exit codes: 64 the command line is wrong, 69 no server, 70 an internal fault, 75 the lock is busy, 76 the
    lock was lost and the command ended, 77 not for this user, 126 the command can't be executed, 127 there is no such
    command.
    """

    command: list[str] = COMMAND
    exact: bool
    lock: list[str] = option(
        "Name of the lock. Given several times, or with colons between names: the first that is free.",
        "-l",
        "--lock",
        many=True,
    )
    together: bool = flag("Take all of these locks, or none; not the first that is free.", "--all")
    dhost: str | None = lockerd_host(
        "Host of lockerd, or several with colons between, to be tried in turn; IPv6 addresses in brackets. [HOST]:PORT "
        "is that port of a host."
    )
    port: str | None = lockerd_port()
    path: str | None = PATH
    timeout: float | None = seconds("Longest wait for the lock; 0 tries once.", "-w", "--timeout", otherwise="for ever")
    nonblock: bool = flag("Try once, as with --timeout 0.", "-n", "--nonblock")
    hold_timeout: float = seconds(
        "Longest time to hold the lock; then the server takes it away, though the command may still run.",
        default=0.0,
        otherwise="for ever",
    )
    lease: float = seconds(
        "Hold the lock for so long at a time (3 at least), renew that, and end the command before it is over if it "
        "can't be renewed.",
        default=0.0,
        otherwise="hold it until the command ends",
    )
    slots: int = number(
        "N",
        "How many may hold the lock while this run is one of them, as for N licences. All who take it should give the "
        "same number.",
        default=1,
        lowest=1,
    )
    shared: bool = flag(
        "Share the lock with all others that do so, as readers do. A run without it, as a writer, has the lock alone.",
        "-s",
        "--shared",
    )
    min_hold: float = seconds(
        "Keep the lock taken for so long from when it was obtained, though the command may end before. Only lockstat "
        "break shortens that.",
        default=0.0,
    )
    lost_signal: int = signal_option("What a command gets that is to end because the lock is lost.")
    on_lost: str = option(
        "If the lock is lost: say so; end the command, too; or run LINE by /bin/sh. With --lease the command is ended "
        "anyway.",
        value="warn|kill|LINE",
        default="warn",
    )
    nested: bool = flag(
        "Within a run of the same lock, run the command under that lock, and end it when that is not held any more; "
        "else this is an error, since it would wait for itself. Other options about the lock have no effect then."
    )
    for_process: int | None = number(
        "PID", "Run nothing; hold the lock for this process until it ends, whatever it does.", "--for", lowest=1
    )
    release: bool = flag("With --for: give back what was taken so, and return when it is free.")
    prints: bool = flag("With --for: print the variables that a command would have, as assignments for sh.", "--print")
    no_shell: bool = NO_SHELL
    locklist: bool = flag("Run nothing; print the locks that are held and their holders.")
    conflict_exit_code: int = number(
        "CODE",
        "Exit code if the lock stays busy.",
        "-E",
        "--conflict-exit-code",
        default=TEMPORARY,
        lowest=0,
        highest=255,
    )
    connect_tries: int = number(
        "N",
        "While no host answers, go on for N times --connect-delay, with a try each 0.2 to 5 s; 1: try once.",
        default=3,
        lowest=1,
    )
    connect_delay: float = seconds("See --connect-tries.", default=30.0)
    release_tries: float = seconds(
        "How long to try to give the lock back to a server that does not answer; longer if another one may serve in "
        "its place.",
        default=5.0,
    )
    quiet: bool = flag("Say nothing but errors; that the lock is busy is none then.", "-q", "--quiet")
    verbose: bool = flag("Say on stderr when the lock is waited for and obtained.", "-v", "--verbose")
    debug: bool = TRACE

    def run(self) -> int:
        """Run the command, or list locks; the exit code, unless it ends as the command did."""
        names = [name for given in self.lock for name in given.split(":")]
        if self.locklist:
            from ..run.under_lock import list_locks

            list_locks(self._settings(names or ["lock"]))
            return OK
        if not names or not all(names):
            raise self.wrong("the name of a lock is missing: give --lock NAME")
        if self.for_process is None:
            if self.release or self.prints:
                raise self.wrong(f"{'--release' if self.release else '--print'} goes with --for PID")
            if not any(self.command):
                raise self.wrong("the command is missing: give it after the options, behind --")
        if self.lease and self.hold_timeout:
            raise self.wrong("--lease and --hold-timeout are two ways to hold a lock: give one of them")
        if self.nonblock and self.timeout:
            raise self.wrong("-n tries once, and --timeout waits: give one of them")
        if self.quiet and self.verbose:
            raise self.wrong("--quiet and --verbose are opposites: give one of them")
        if self.shared and self.slots != 1:
            raise self.wrong("--shared has no limit, and --slots is one: give one of them")
        if self.lease or self.on_lost == "kill":
            from ..process.tree import require_sight

            require_sight("--lease" if self.lease else "--on-lost kill")
        if self.for_process is not None:
            return self._for_process(names, self.for_process)
        return self._stay(names, CommandProcess("lockersh", ExecSpec(self.command, self.exact or self.no_shell)))

    def _for_process(self, names: list[str], pid: int) -> int:
        """Take a lock for a process that runs already, or give it back; the exit code."""
        if self.command or self.nested:
            raise self.wrong(f"--for runs no command: leave {'--nested' if self.nested else 'that'} out")
        if self.release and self.prints:
            raise self.wrong("there is nothing to --print after a --release: leave one of them out")
        from ..run.for_process.front import hold_for, release_for

        if self.release:
            return release_for(pid, names)
        settings = self._settings(names, pid)
        return self._or_busy(lambda: hold_for(pid, settings, self._options(), self.prints, self.debug))

    def _stay(self, names: list[str], child: CommandProcess) -> int:
        # Only now: meanwhile the child makes itself ready, and carries none of this.
        from ..run.under_lock import run_locked

        settings = self._settings(names, child.pid)
        return self._or_busy(lambda: run_locked(child, settings, self._options()))

    def _or_busy(self, call: Callable[[], int]) -> int:
        try:
            return call()
        except LockBusy as busy:
            if self.quiet:
                return self.conflict_exit_code
            busy.exit_code = self.conflict_exit_code
            raise

    def _options(self) -> RunOptions:
        from ..run.options import RunOptions

        return RunOptions(
            0.0 if self.nonblock else self.timeout,
            self.release_tries,
            self.lost_signal,
            self.on_lost,
            self.verbose,
            self.nested,
            self.quiet,
        )

    def _settings(self, names: list[str], pid: int | None = None) -> LockSettings:
        from ..lock.client.settings import LockSettings

        if self.debug:
            from ..run.under_lock import trace_links

            trace_links()
        return LockSettings(
            host=self.dhost,
            port=self.port,
            path=self.path,
            lock=names,
            all=self.together,
            timeout=self.hold_timeout,
            lease=self.lease,
            slots=self.slots,
            shared=self.shared,
            min_hold=self.min_hold,
            command=" ".join(self.command),
            connect_tries=self.connect_tries,
            connect_delay=self.connect_delay,
            pid=pid,
            autounlock=True,
        )


COMMAND_LINES = (Lockersh,)
