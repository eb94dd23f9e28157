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
        try:
            return super().main(words)
        except SystemExit as end:
            if end.code != USAGE:
                raise
            return cls._print(UNKNOWN, f"the command line is wrong; see {cls.SPEC.name} --help")
        except IpclockerError as error:
            return cls._print(UNKNOWN, str(error))

    def report(self, ok: bool, status: str) -> int:
        """Print the line of a check whose `status` begins with the seconds that it took, if `ok`; the exit code."""
        if not ok:
            return self._print(CRITICAL, status)
        taken = float(status.split()[0])
        code = CRITICAL if _passed(taken, self.critical) else WARNING if _passed(taken, self.warning) else OK
        limits = f"{_written(self.warning)};{_written(self.critical)}"
        return self._print(code, f"{status} | time={taken:.3f}s;{limits}")

    @classmethod
    def _print(cls, code: int, text: str) -> int:
        """Print the line with what was checked and its state; the exit code."""
        print(f"{cls.SPEC.name.partition('-')[2].upper()} {_WORDS[code]} - {text}")
        return code


def _passed(taken: float, threshold: float | None) -> bool:
    return threshold is not None and taken > threshold


def _written(threshold: float | None) -> str:
    return "" if threshold is None else f"{threshold:g}"
