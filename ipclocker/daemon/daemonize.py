"""What is the same for every server: foreground or background, pid file, log, signals, starting anew.

In the background there are two processes. The server does the work; its guardian (guardian.py) starts
another one if it dies. The process that the user started, the launcher, returns when the server is bound and
serving, or with its error:

    launcher --fork--> guardian --fork--> server
       ^--- the word -----'  ^---- the word ---'

In the foreground there is one process; but for a server with processes of its own, which are to end with it whatever
ends it, that is its guardian (guardian.py, Care), and the server is another one below.

Signals to a server, or to its guardian, which passes them on: SIGTERM and SIGINT end it, SIGHUP starts it
anew. From its making to its close they belong to the service. While one is being made, SIGTERM and SIGINT end
that, and SIGHUP asks for nothing that is not being done already. At any other time they are held back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from ..errors import INTERNAL, OK, IpclockerError
from ..version import VERSION
from .detach import detach
from .log import one_line, set_up, with_priority
from .monitor import (
    SIGNALS,
    MonitorOptions,
    Say,
    ServerMonitor,
    StartupStatus,
    fork_with_signals_blocked,
    how_it_ended,
    parse_word,
    say,
)
from .pid_file import PidFile
from .sd_notify import announced, take_manager
from .service import Service, ServiceFactory

log = logging.getLogger(__name__)


def run(
    start: ServiceFactory,
    *,
    name: str,
    foreground: bool,
    pid_file: str | None = None,
    log_file: str | None = None,
    debug: bool = False,
    care: MonitorOptions | None = None,
) -> int:
    """Run the server that `start` makes, until it ends or, in the background, until it is serving.

    Returns an exit code; an error has been printed by then, as one line on stderr. `start` may raise
    IpclockerError. It is called again for each start anew; in the background that is in another process and
    in the folder "/", so that paths have to be made absolute before. In the foreground, any other exception
    of the service is passed on. A service manager that has started this process is told how it goes (notify.py).
    """
    _fill_standard_descriptors()
    manager = take_manager()
    if manager is not None:
        start = announced(start, manager)
    file = PidFile(pid_file)
    try:
        set_up(name, foreground=foreground, log_file=log_file, debug=debug)
        file.acquire()
        if not foreground:
            monitor = _run_away(start, name, file, care)
            if manager is not None:
                manager.handed_over(monitor)
        elif care is None:
            _run_here(start, name, file, log_file)
        else:
            return _guard_here(start, name, file, log_file, care)
    except IpclockerError as error:
        if manager is not None:
            manager.failed(str(error))
        print(with_priority(logging.ERROR, one_line(f"{name}: {error}")), file=sys.stderr)
        return error.exit_code
    return OK


def _fill_standard_descriptors() -> None:
    """Open what the caller closed of 0, 1 and 2, or a socket or a log gets that number and is lost."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            return


def _run_here(start: ServiceFactory, name: str, file: PidFile, log_file: str | None) -> None:
    try:
        _serve(start, name, lambda word: None)
    except IpclockerError as error:
        if log_file is not None:  # else the line on stderr is enough
            log.error("%s", error)
        raise
    finally:
        file.remove()


def _guard_here(start: ServiceFactory, name: str, file: PidFile, log_file: str | None, care: MonitorOptions) -> int:
    """Be the guardian of a server; its exit code. IpclockerError if it was not ready ever."""
    was_ready = False

    def serve(say_to_guardian: Say) -> int:
        file.close_in_parent()
        # What it logs before it is ready is the error that is to be printed.
        return _serve_in_own_process(start, name, say_to_guardian, log_failure=log_file is not None)

    def ready() -> None:
        nonlocal was_ready
        was_ready = True

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        word = ServerMonitor(serve, ready, care._replace(restart=False)).run()
    except OSError as error:
        raise IpclockerError(f"cannot start the server process: {error}") from error
    finally:
        file.remove()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if word.code != OK and not was_ready:
        raise _failure(word)
    return word.code


def _failure(word: StartupStatus) -> IpclockerError:
    failure = IpclockerError(word.text)
    failure.exit_code = word.code
    return failure


def _run_away(start: ServiceFactory, name: str, file: PidFile, care: MonitorOptions | None) -> int:
    """Start a guardian and wait for its word; its pid. IpclockerError if that is an error, or if it says none."""
    monitor, launcher = socket.socketpair()
    try:
        pid = fork_with_signals_blocked()
    except OSError as error:
        file.remove()
        raise IpclockerError(f"cannot go to the background: {error}") from error
    if pid == 0:
        monitor.close()
        _become_guardian(start, name, file, launcher, care)
    launcher.close()
    file.close_in_parent()
    word = _hear(monitor)
    if word is None:
        how = _how_child_ended(pid)
        raise IpclockerError(f"the guardian process died before the server was ready ({how})")
    if word.code != OK:
        raise _failure(word)
    return pid


def _hear(monitor: socket.socket) -> StartupStatus | None:
    heard = b""
    with monitor:
        while chunk := monitor.recv(4096):
            heard += chunk
    return parse_word(heard)


def _how_child_ended(pid: int) -> str:
    try:
        return how_it_ended(os.waitpid(pid, 0)[1])
    except ChildProcessError:  # we were started with SIGCHLD ignored
        return "it is not known how"


def _become_guardian(
    start: ServiceFactory, name: str, file: PidFile, launcher: socket.socket, care: MonitorOptions | None
) -> NoReturn:
    """In the new process, with the signals still blocked."""
    status = INTERNAL
    try:
        word = _guard(start, name, file, launcher, care)
        # The file is given back first: whoever hears the word may try again at once.
        file.remove()
        say(launcher, word)
        status = word.code
    except BaseException:
        log.exception("the guardian ends by an error of its own")
    finally:
        os._exit(status)


def _guard(
    start: ServiceFactory, name: str, file: PidFile, launcher: socket.socket, care: MonitorOptions | None
) -> StartupStatus:
    def serve(say_to_guardian: Say) -> int:
        launcher.close()
        file.close_in_parent()
        return _serve_in_own_process(start, name, say_to_guardian)

    def ready() -> None:
        with launcher:
            launcher.sendall(f"{OK} ".encode())

    detach()
    try:
        file.write()
        return ServerMonitor(serve, ready, care).run()
    except (IpclockerError, OSError) as error:
        return StartupStatus(getattr(error, "exit_code", INTERNAL), str(error))


def _serve_in_own_process(start: ServiceFactory, name: str, say_to_guardian: Say, log_failure: bool = True) -> int:
    was_ready = False

    def say_ready(word: StartupStatus) -> None:
        nonlocal was_ready
        was_ready = True
        say_to_guardian(word)

    try:
        _serve(start, name, say_ready)
    except IpclockerError as error:
        if log_failure or was_ready:
            log.error("%s", error)
        say_to_guardian(StartupStatus(error.exit_code, str(error)))
        return error.exit_code
    except Exception as error:
        log.exception("the server ends by an error of its own")
        say_to_guardian(StartupStatus(INTERNAL, f"an error of its own: {error!r}"))
        return INTERNAL
    return OK


class _Stopped(BaseException):
    """SIGTERM or SIGINT came while the server was being started."""


def _serve(start: ServiceFactory, name: str, say_ready: Say) -> None:
    """Start and serve, and again, until the service is to end."""
    with _signals_between_services(), contextlib.suppress(_Stopped):
        while _serve_once(start, name, say_ready):
            log.info("%s is started anew", name)
    log.info("%s ends", name)


def _serve_once(start: ServiceFactory, name: str, say_ready: Say) -> bool:
    service: Service | None = None
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        service = start()
        log.info("%s %s, %s", name, VERSION, service.describe())
        say_ready(StartupStatus(OK))
        return service.run()
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if service is not None:
            service.close()


@contextlib.contextmanager
def _signals_between_services() -> Iterator[None]:
    """Handlers for the time when no service has its own; in the end everything is as it was before."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    handlers = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, _raise_stopped),
        signal.SIGINT: signal.signal(signal.SIGINT, _raise_stopped),
        signal.SIGHUP: signal.signal(signal.SIGHUP, _do_nothing),
    }
    try:
        yield
    finally:
        for number in handlers:
            signal.signal(number, signal.SIG_IGN)  # drops what has come too late to matter
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _raise_stopped(number: int, frame: FrameType | None) -> None:
    raise _Stopped


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass
