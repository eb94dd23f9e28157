"""Histories of Lockers whose servers are several lockerd on etcd, while these and etcd are harmed."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .crowd import Figures, Setting
from .history import note_kill
from .recorded import Checked, Clients, Processes, Where, record_lockers
from .replicas import PORT, Site, new_replicated_crowd
from .storm import Storm

# Seconds after a fault in which an answer may be lost by it: where a connection ends with it, and where it does not,
# but is given up by then.
_LOST_FOR, _LOST_FOR_LONG = 3.0, 12.0
_PATIENCE = 60.0  # seconds; longer than a time without a server


class Told(NamedTuple):
    """What there was to check, and what had happened."""

    checked: Checked
    figures: Figures


def over_fail_overs(
    file: Path,
    cache: Path,
    folder: Path,
    dice: random.Random,
    faults: Sequence[str],
    count: int,
    site: Site = Site(),  # noqa: B008 - it can't be changed
    kind: Clients = Clients(),  # noqa: B008
) -> Told:
    """Lockers on the client host, with so many faults beside them.

    Each name has a history of its own, and no lock is broken, as over restarts. Nobody asks for the owner of another
    one's lock: that is information, which a leader that is one no more may give.
    """
    setting = Setting([str(file)], [str(file)], workers=0)
    with new_replicated_crowd(setting, site, file, cache, dice) as crowd:
        node = crowd.places[-1].node
        assert node is not None
        storm = Storm(crowd, dice, faults, pause=1.0, ttl=site.ttl)

        def disturb(processes: Processes) -> None:
            try:
                while sum(storm.done.values()) < count and processes.run():
                    before = storm.done.copy()
                    note = time.monotonic() + node.uptime  # as the clients' clock says
                    storm.turn()
                    for fault in storm.done - before:
                        lasts = fault.startswith(("cut", "stop", "switch"))
                        note_kill(folder, _LOST_FOR_LONG if lasts else _LOST_FOR, note)
                    time.sleep(0.01)
            finally:
                storm.calm()

        kind = kind._replace(patience=_PATIENCE, breaks=0.0, looks=0.0, requests="x,y,z")
        where = Where(str(PORT), crowd.hosts, tuple(node.words()))
        checked = record_lockers(where, folder, dice, kind, disturb)
        crowd.finish()
        return Told(checked, storm.figures())
