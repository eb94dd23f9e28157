"""The common part of the monitoring plugins: one line for people and one for graphs, and four exit codes.

The conventions are those of the Monitoring Plugins project (Development Guidelines): OK 0, WARNING 1, CRITICAL 2,
UNKNOWN 3, which is also for a wrong command line; a threshold is passed by what is greater.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from ..errors import IpclockerError
from .command_line import CommandLine, option, seconds, to_some_seconds

OK, WARNING, CRITICAL, UNKNOWN = range(4)
_WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
PATIENCE = 10.0  # seconds after which a server that has not answered is taken for none, as those who call plugins do


_ALERT = "{} if the seconds that it takes are outside of this range: 2, or 0.1:2; within it: @0.1:2."


class Threshold(NamedTuple):
    """A range of values, as the guidelines have it: an alert is raised outside of it, or `inside`."""

    lowest: float
    highest: float
    inside: bool
    text: str

    def alerts(self, value: float) -> bool:
        """Tell whether a value raises an alert."""
        return (self.lowest <= value <= self.highest) == self.inside


def threshold(text: str) -> Threshold:
    """Read `HIGHEST`, `LOWEST:`, `LOWEST:HIGHEST` or `~:HIGHEST`, with @ in front for an alert inside.

    Raises ValueError.
    """
    begin, colon, end = text.removeprefix("@").rpartition(":")
    try:
        lowest = -inf if begin == "~" else float(begin) if colon else 0.0
        highest = inf if colon and not end else float(end)
    except ValueError:
        lowest, highest = inf, -inf
    if not lowest <= highest or inf in (abs(float(word)) for word in (begin, end) if word not in ("", "~")):
        raise ValueError(f"'{text}' is no range: write 2, 0.1:, 0.1:2, ~:2 or @0.1:2.")
    return Threshold(lowest, highest, text.startswith("@"), text)


class Plugin(CommandLine):
    """The command line of a plugin; a response is slow, or as bad as none, if its seconds alert one of the two."""

    warning: Threshold | None = option(_ALERT.format("WARNING"), "-w", "--warning", value="RANGE", read=threshold)
    critical: Threshold | None = option(_ALERT.format("CRITICAL"), "-c", "--critical", value="RANGE", read=threshold)
    timeout: float = seconds(
        "CRITICAL without an answer for so long.", "-t", "--timeout", read=to_some_seconds, default=PATIENCE
    )

    @classmethod
    def main(cls, words: list[str]) -> int:
        """Run the plugin; whatever is wrong comes out as one line on stdout, and 3."""
        try:
            return super().main(words)
        except IpclockerError as error:
            return cls._print(UNKNOWN, str(error))

    def report(self, ok: bool, status: str) -> int:
        """Print the line of a check whose `status` begins with the seconds that it took, if `ok`; the exit code."""
        if not ok:
            return self._print(CRITICAL, status)
        taken = float(status.split()[0])
        code = CRITICAL if _alerts(self.critical, taken) else WARNING if _alerts(self.warning, taken) else OK
        limits = f"{_written(self.warning)};{_written(self.critical)}"
        return self._print(code, f"{status} | time={taken:.3f}s;{limits}")

    @classmethod
    def _print(cls, code: int, text: str) -> int:
        """Print the line with what was checked and its state; the exit code."""
        print(f"{cls.SPEC.name.partition('-')[2].upper()} {_WORDS[code]} - {' '.join(text.split())}")
        return code


def _alerts(limit: Threshold | None, taken: float) -> bool:
    return limit is not None and limit.alerts(taken)


def _written(limit: Threshold | None) -> str:
    return "" if limit is None else limit.text
