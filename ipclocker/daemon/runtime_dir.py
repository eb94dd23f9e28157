"""The runtime folder of a user: sockets that belong to the user's running processes, and to nobody else.

It does not depend on the environment: a job of cron, a login and a service of one user find the same folder. Nor is it
the session's own /run/user first, since that ends with the last login, and a job may go on.

A folder is used only if it is the user's, closed to all others, and if nobody but root could have put it there in the
place of another one: /run is root's, and /tmp has the sticky bit.
"""

from __future__ import annotations

import os
import stat

from ..errors import StateError


def runtime_folders(purpose: str) -> list[str]:
    """Return the folders of this user for that purpose which are there and safe, best first."""
    return [folder for folder in _places(purpose) if not _fault(folder)]


def make_runtime_folder(purpose: str) -> str:
    """Return the first of them that is there or can be made, and is safe. Raises StateError if there is none."""
    faults = []
    for folder in _places(purpose):
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            faults.append(f"{folder}: {error.strerror}")
            continue
        fault = _fault(folder)
        if not fault:
            return folder
        faults.append(f"{folder}: {fault}")
    raise StateError(f"there is no safe folder for a socket ({'; '.join(faults)}): remove one of them, or mend it")


def _places(purpose: str) -> list[str]:
    uid = os.geteuid()
    places = ["/tmp", f"/run/user/{uid}"] if uid else ["/run", "/tmp"]
    return [f"{place}/ipclocker-{purpose}-{uid}" for place in places]


def _fault(folder: str) -> str:
    """Say what is wrong with a folder; empty if nothing is."""
    try:
        found = os.lstat(folder)
        parent = os.lstat(os.path.dirname(folder))
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a folder"
    if found.st_uid != os.geteuid():
        return f"it belongs to user {found.st_uid}"
    if found.st_mode & 0o077:
        return f"its mode is {stat.S_IMODE(found.st_mode):o}, and has to be 700"
    if parent.st_uid not in (0, os.geteuid()) or (parent.st_mode & 0o022 and not parent.st_mode & stat.S_ISVTX):
        return "other users may replace it"
    return ""
