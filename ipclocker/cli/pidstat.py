"""pidstat: whether processes of other hosts exist."""

from __future__ import annotations

from ..pid.client import PidStat
from ..pid.survey import DOWN, UP, Place, survey
from ..process.stderr import print_stderr
from .command_line import CommandLine, argument, flag, option
from .shared_options import pidstatd_port

ALL_UP, SOME_DOWN, SOME_NOT_KNOWN = 0, 1, 2  # exit codes, as the classic pidstat has them


class Pidstat(CommandLine, name="pidstat", example="pidstat exists 3459 host1:4220 host2:9821", interspersed=True):
    """Say whether processes exist, here or on other hosts, as the pidstatd there sees them.

    Prints a line HOST:PID up, down, unknown or host_down for each, in their order. The exit code is 0 if all
    exist, 1 if one does not, 2 if one is unknown or its host does not answer; 64 if the command line is wrong.
    """

    words: list[str] = argument(
        "[exists PID...]",
        "The command, exists, and processes: PID or HOST:PID, with an IPv6 address in brackets.",
        many=True,
    )
    host: str = option("Host of the processes that are given without one.", default="localhost")
    port: str | None = pidstatd_port()
    silent: bool = flag("Print nothing; the exit code tells.")
    debug: bool = flag("Show on stderr what is asked and answered.")

    def run(self) -> int:
        """Ask, and print what is answered; the exit code."""
        if not self.words:
            raise self.wrong("the command is missing: say exists and the processes")
        if self.words[0] != "exists":
            raise self.wrong(f"there is no command '{self.words[0]}': it is exists")
        if len(self.words) == 1:
            raise self.wrong("the processes are missing: give PID or HOST:PID after exists")
        places = [self._place(word) for word in self.words[1:]]
        with PidStat(self.host, self.port, trace=print_stderr if self.debug else None) as stat:
            states = survey(stat, places)
        if not self.silent:
            for place in places:
                print(f"{_written(place)} {states[place]}")
        found = set(states.values())
        return SOME_NOT_KNOWN if found - {UP, DOWN} else SOME_DOWN if DOWN in found else ALL_UP

    def _place(self, word: str) -> Place:
        before, colon, number = word.rpartition(":")
        named = before.strip("[]") if colon else self.host
        is_pid = number.isascii() and number.isdigit() and len(number) <= 20 and int(number) > 0
        if not named or not is_pid:
            raise self.wrong(f"'{word}' is no PID and no HOST:PID")
        return named, int(number)


def _written(place: Place) -> str:
    host, pid = place
    return f"[{host}]:{pid}" if ":" in host else f"{host}:{pid}"


COMMAND_LINES = (Pidstat,)
