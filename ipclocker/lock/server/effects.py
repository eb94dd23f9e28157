"""Effects of one call of the lock table: changes to be written to disk, and clients to be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional, TypeVar

from ..model import Grant, LockRequest

_Item = TypeVar("_Item")
BeforeImages = dict[int, Optional[Grant]]  # by token: the grant as it stood before, None if there was none


class Effects:
    """All that one call of the table has changed.

    `before_images`: each grant that was made, changed or ended, by its token, with a copy of what it was before
    (None: it is new). Who keeps grants elsewhere writes these tokens, or hands the images to `LockTable.rollback`.
    `concerns_processes`: some of these grants depend on a process, or did before.
    `granted`: requests that have waited, each with its grant. `woken`: requests that have waited and are to ask again,
    each with a grant that does not stand. `superseded`: requests that were taken off their queues
    by another one of their owner. `ended`: grants that have ended, and not because their owner released them.
    `overdue`: leases that have run out; somebody has to look at their processes."""

    # The defaults stand on the class: most calls change one grant and concern nobody else.
    before_images: BeforeImages = {}  # noqa: RUF012 - never changed in place here
    concerns_processes = False
    concerns_others = False  # one of the sequences is not empty
    granted: Sequence[tuple[LockRequest, Grant]] = ()
    woken: Sequence[tuple[LockRequest, Grant]] = ()
    superseded: Sequence[LockRequest] = ()
    ended: Sequence[Grant] = ()
    overdue: Sequence[Grant] = ()

    def add_granted(self, request: LockRequest, grant: Grant) -> None:
        """Add a grant to a request that has waited."""
        self.concerns_others = True
        self.granted = _added(self.granted, (request, grant))

    def add_woken(self, request: LockRequest, grant: Grant) -> None:
        """Add a request that has waited and is to ask again, with the grant that it is told of."""
        self.concerns_others = True
        self.woken = _added(self.woken, (request, grant))

    def add_superseded(self, request: LockRequest) -> None:
        """Add a request that was taken off its queues."""
        self.concerns_others = True
        self.superseded = _added(self.superseded, request)

    def add_ended(self, grant: Grant) -> None:
        """Add a grant that its owner has lost."""
        self.concerns_others = True
        self.ended = _added(self.ended, grant)

    def add_overdue(self, grant: Grant) -> None:
        """Add a lease that has run out."""
        self.concerns_others = True
        self.overdue = _added(self.overdue, grant)


def _added(items: Sequence[_Item], item: _Item) -> Sequence[_Item]:
    if isinstance(items, list):
        items.append(item)
        return items
    return [item]
