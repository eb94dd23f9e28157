"""Rows that several tools have (command_line.py), each once."""

from __future__ import annotations

from typing import Any

from ..process.signal_names import signal_number
from .command_line import argument, flag, option

# Of all daemons.
NOFORK = flag("Stay in the foreground and log to stderr.")
PID_FILE = option("Write the process id there; removed at the end.")
LOG_FILE = option("Log there.", otherwise="stderr with --nofork, else syslog")
DEBUG = flag("Log what is of use only to find a fault.")

# Of what runs a command.
COMMAND = argument(
    "[--] [COMMAND]...",
    "The command. Behind -- its words are executed exactly as they are. Without --, which is for lines of a shell, it "
    "begins with the first word that is not an option.",
    many=True,
    dashes="exact",
)
NO_SHELL = flag("Execute the words as they are, as behind --.")

# Of clients of lockerd.
PATH = option("Name of lockerd's UNIX socket.")
TRACE = flag("Show on stderr what is said to the server and back.", "--debug")


def signal_option(text: str, default: str = "TERM") -> Any:
    """A signal, by its name or number."""
    return option(text, value="SIGNAL", read=signal_number, default=default)


def lockerd_host(text: str, *names: str) -> Any:
    """Return the option for the host of lockerd."""
    return option(text, *names, environment="IPCLOCKER_HOST", otherwise="localhost")


def lockerd_port(
    text: str = "Port number or service name of lockerd, or the name of its UNIX socket (it has a slash).",
    names: tuple[str, ...] = (),
    otherwise: str = "the service lockerd, else 1751",
) -> Any:
    """The port of lockerd."""
    return option(text, *names, environment="IPCLOCKER_PORT", otherwise=otherwise)


def pidstatd_port(
    text: str = "Port number or service name of pidstatd, or the name of its UNIX datagram socket (it has a slash).",
    names: tuple[str, ...] = (),
) -> Any:
    """The port of pidstatd."""
    return option(text, *names, otherwise="the service pidstatd, else 1752")
