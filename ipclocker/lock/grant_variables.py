"""The variables of a command's environment that say under which grants it runs, for it and for what it starts.

IPCLOCKER_LOCK    the names of the locks, with spaces between
IPCLOCKER_TOKEN   their tokens, in the same order; missing if the server has none
IPCLOCKER_SPACE   the lock space that they are of: its identity, which all servers of the space tell; of a server that
                  tells none (an older or a classic one) its HOST:PORT or its socket's path
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Optional

from ..net.address import Address

_TOKEN = re.compile("[0-9]{1,20}")
LOCK, TOKEN, SPACE = "IPCLOCKER_LOCK", "IPCLOCKER_TOKEN", "IPCLOCKER_SPACE"


def grant_variables(grants: Iterable[tuple[bytes, Optional[int]]], space: str) -> dict[str, str | None]:
    """Return the variables for grants of one lock space, each a name and a token; None stands for a missing one."""
    grants = list(grants)
    tokens = [token for _, token in grants]
    return {
        LOCK: " ".join(os.fsdecode(name) for name, _ in grants),
        TOKEN: None if None in tokens else " ".join(map(str, tokens)),
        SPACE: space,
    }


def tokens_in(environment: Mapping[str, str], spaces: Iterable[str]) -> dict[bytes, int]:
    """Return the tokens by the locks' names that an environment tells of a lock space; none if it makes no sense.

    `spaces` are all names of the lock space. An older lockersh does not say which one it is: any is believed to be it.
    """
    names, tokens = os.fsencode(environment.get(LOCK, "")).split(), environment.get(TOKEN, "").split()
    makes_sense = len(names) == len(tokens) and all(map(_TOKEN.fullmatch, tokens))
    if not makes_sense or environment.get(SPACE, "") not in ("", *spaces):
        return {}
    return {name: int(token) for name, token in zip(names, tokens)}


def space_names(address: Address, identity: Optional[bytes] = None) -> list[str]:
    """Return the names of the lock space that the server at this address serves: its identity, if it has told that.

    Behind it comes the address, by which an older lockersh calls it.
    """
    where = str(address)
    names = [] if identity is None else [os.fsdecode(identity)]
    return [*names, os.path.abspath(where) if where == address.sockaddr else where]
