"""A KeyboardInterrupt at any step of our code."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from . import PROJECT

OURS = str(PROJECT / "ipclocker")


class Interrupt:
    """Raises KeyboardInterrupt before the step number `at` of our code in this thread; counts the steps.

    `files` are those whose steps count. At the end of a `with`, `came` tells whether it went through to there; a step
    of a finalizer may have swallowed it.
    """

    def __init__(self, at: int, *files: str) -> None:
        self.at = at
        self.steps = 0
        self.came = False
        self._files = files or OURS
        self._tracer = self._trace  # one that only the interpreter has, Python 3.11 uses once more when it is gone

    def __enter__(self) -> Interrupt:
        sys.settrace(self._tracer)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        sys.settrace(None)
        self.came = kind is KeyboardInterrupt
        return self.came

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self._files) or frame.f_code.co_name == "__del__":
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            self.steps += 1
            if self.steps == self.at:
                raise KeyboardInterrupt
        return self._step
