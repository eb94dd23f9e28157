"""The state folder: the place where servers keep what outlives them, unless --state-dir names another one."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import StateError


def default_state_folder() -> str:
    """Return the folder that systemd gives a unit (systemd.exec(5), StateDirectory=), else the user's.

    For root that is the system's; any other user has one of his own (XDG Base Directory Specification).
    """
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given.startswith("/"):
        return given
    if os.geteuid() == 0:
        return "/var/lib/ipclocker"
    home = os.environ.get("XDG_STATE_HOME", "")
    if not home.startswith("/"):  # the specification: a relative one is to be ignored
        home = os.path.join(os.path.expanduser("~"), ".local/state")
    return os.path.join(home, "ipclocker")


def make_state_folder(folder: str) -> str:
    """Make the folder, for its owner alone, if it is missing, and return it. Raises StateError."""
    try:
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(
            f"the state folder {folder} can't be made: {error.strerror} (name another one with --state-dir)"
        ) from error
    return folder
