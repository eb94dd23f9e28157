"""supervise: programs kept alive."""

from __future__ import annotations

from ..daemon.daemonize import DaemonOptions
from ..supervise.control_socket import COMMANDS
from ..supervise.daemon import ProgramSource, run_supervisor
from ..supervise.settings import SupervisorSettings
from ..supervise.supervisor import LEASE, PARAMETERS
from .command_line import CommandLine, argument, flag, option, seconds
from .shared_options import DEBUG, LOG_FILE, NOFORK, PATH, PID_FILE, lockerd_host, lockerd_port
from .supervise_control import Restart, Start, Status, Stop


class Supervise(
    CommandLine,
    name="supervise",
    example="supervise --program 'web: /opt/web/server --port 80' --program /opt/mail/queue "
    "--pid-file /run/programs.pid",
):
    """Keep programs running: start them, and again whenever they die.

    Goes to the background once it is there. SIGTERM and SIGINT end the programs, with all that they have started, and
    then the supervisor. SIGHUP reads the file again: new programs are started, those that are gone are ended, the
    rest restarted. SIGUSR1 opens output files anew.

    supervise status, start, stop and restart, each with --help, ask and tell a supervisor that is running.

    A program is run directly, or by /bin/sh -c if it has characters that mean something to a shell. Its environment
    has its name in IPCLOCKER_PROGRAM.
    """

    words: list[str] = argument("[status|start|stop|restart [NAME...]]", many=True)
    program: list[str] = option(
        "A program to keep alive; may be given several times. It is called NAME, else by the base name of its first "
        "word.",
        value="[NAME: ]COMMAND",
        many=True,
    )
    file: str | None = option("Programs to keep alive, one a line; # begins a comment.")
    exit_hook: str | None = option("Run it at the end, when all have ended.", value="COMMAND")
    stop_signal: str = option("What programs are ended by.", value="SIGNAL", default="TERM")
    stop_timeout: float = seconds("From that signal until what is left of a program gets SIGKILL.", default=10.0)
    first_pause: float = seconds("Before a program that died is started again.", default=0.1)
    longest_pause: float = seconds("With each further death the pause doubles, up to this.", default=30.0)
    good_run: float = seconds("A program that has lived so long begins with the first pause.", default=60.0)
    give_up: str | None = option(
        "After N deaths in S seconds a program is FATAL: not started again.", value="N/S", otherwise="never"
    )
    fatal_exit: bool = flag("End when a program is FATAL, with code 79.")
    output: str | None = option(
        "What programs write, in lines with the time and their name.",
        value="FILE",
        otherwise="stdout with --nofork, else the log",
    )
    output_dir: str | None = option("What each program writes, as it is, in a file NAME.log there.", value="FOLDER")
    lock: list[str] = option(
        "Run the programs only while this cluster lock is held. Given several times, or with colons between names: the "
        "first that is free.",
        many=True,
    )
    lease: float = seconds("The lock is held for so long at a time, and renewed; 3 at least.", default=LEASE)
    dhost: str | None = lockerd_host("Host of lockerd, or several with colons between, as for lockersh.")
    port: str | None = lockerd_port("Port of lockerd, as for lockersh.", otherwise="1751")
    path: str | None = PATH
    nofork: bool = NOFORK
    pid_file: str | None = PID_FILE
    log_file: str | None = LOG_FILE
    debug: bool = DEBUG

    def run(self) -> int:
        """Keep the programs running until told to end; the exit code."""
        if self.words:
            word = self.words[0]
            if word in COMMANDS:
                raise self.wrong(f"'{word}' has to be the first word: supervise {word} [OPTIONS] [NAME...]")
            raise self.wrong(f"'{word}' is no option: programs are given by --program, each in quotes")
        source = ProgramSource(self.program, self.file)
        # Options are called as the parameters of a Supervisor, but for these two.
        named = {name: value for name, value in vars(self).items() if name in PARAMETERS}
        names = [name for given in self.lock for name in given.split(":")]
        settings = SupervisorSettings(**{**named, "lock": names or None, "host": self.dhost})
        daemon = DaemonOptions(self.nofork, self.pid_file, self.log_file, self.debug)
        return run_supervisor(settings, source, self.exit_hook, daemon)


COMMAND_LINES = (Supervise, Status, Start, Stop, Restart)
