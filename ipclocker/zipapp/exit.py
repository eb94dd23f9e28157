"""The last part of the launcher: run the tool, and end the process as fast and quietly as any program."""

from __future__ import annotations

import atexit
import os
import signal
import sys

from ..errors import OUTPUT, SIGNALLED
from .lazy_imports import load_later

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, NoReturn


def run_and_exit(main: Callable[[], object]) -> None:
    """Call `main`, and end the process with the code of the SystemExit that it raises."""
    load_later()
    try:
        main()
    except SystemExit as stop:
        exit_fast(stop.code)


def exit_fast(code: str | int | None) -> NoReturn:
    """End with what was given to sys.exit, at once: taking Python's objects apart one by one costs 6 ms."""
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
        code = 1
    threading = sys.modules.get("threading")
    if threading and threading.active_count() > 1:
        sys.exit(code)  # the orderly way, which waits for them
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream and not stream.closed:
                stream.flush()
    except BrokenPipeError:  # the reader of our output has closed it: end as by SIGPIPE
        os._exit(SIGNALLED + signal.SIGPIPE)
    except OSError as error:
        os.write(2, f"ipclocker: the output can't be written: {error.strerror}\n".encode())
        os._exit(OUTPUT)
    os._exit((code or 0) & 0xFF)
