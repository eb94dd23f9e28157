"""The common part of the monitoring plugins: one line for people and one for graphs, and four exit codes.

The conventions are those of the Monitoring Plugins project (Development Guidelines): OK 0, WARNING 1, CRITICAL 2,
UNKNOWN 3, which is also for a wrong command line; a threshold is passed by what is greater.
"""

from __future__ import annotations

from ..errors import USAGE, IpclockerError
from .command_line import CommandLine, seconds

OK, WARNING, CRITICAL, UNKNOWN = range(4)
_WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
PATIENCE = 10.0  # seconds after which a server that has not answered is taken for none, as those who call plugins do


class Plugin(CommandLine):
    """The command line of a plugin; `warning` and `critical` are the seconds from which a response is slow, or as bad
    as none."""

    warning: float | None = seconds("WARNING if it takes longer.", "-w", "--warning")
    critical: float | None = seconds("CRITICAL if it takes longer.", "-c", "--critical")

    @classmethod
    def main(cls, words: list[str]) -> int:
        """Run the plugin; whatever is wrong comes out as one line on stdout, and 3."""
        tool = cls.SPEC.name
        name = tool.partition("-")[2].upper()
        try:
            return super().main(words)
        except SystemExit as end:
            if end.code != USAGE:
                raise
            print(f"{name} UNKNOWN - the command line is wrong; see {tool} --help")
        except IpclockerError as error:
            print(f"{name} UNKNOWN - {error}")
        return UNKNOWN

    def report(self, ok: bool, status: str) -> int:
        """Print the line of a check whose `status` begins with the seconds that it took, if `ok`; the exit code."""
        name = self.SPEC.name.partition("-")[2].upper()
        if not ok:
            print(f"{name} {_WORDS[CRITICAL]} - {status}")
            return CRITICAL
        taken = float(status.split()[0])
        code = CRITICAL if _passed(taken, self.critical) else WARNING if _passed(taken, self.warning) else OK
        limits = f"{_written(self.warning)};{_written(self.critical)}"
        print(f"{name} {_WORDS[code]} - {status} | time={taken:.3f}s;{limits}")
        return code


def _passed(taken: float, threshold: float | None) -> bool:
    return threshold is not None and taken > threshold


def _written(threshold: float | None) -> str:
    return "" if threshold is None else f"{threshold:g}"
