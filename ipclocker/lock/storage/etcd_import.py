"""Held locks that are taken into an empty place in etcd, from a store of another kind.

That takes several transactions. As long as the key `import` is there, it is not finished: no lockerd serves what is
there, and another import begins again.
"""

from __future__ import annotations

from typing import Optional

from ...errors import StateError
from ..model import Record
from .base import Freed, StoredState, TermLost
from .etcd import EtcdStore
from .etcd_requests import Entry, delete, put


class EtcdImport(EtcdStore):
    """The store of a term that is there for an import alone."""

    _unfinished = False

    def fill(self, kept: StoredState, source: str) -> None:
        """Write what is kept elsewhere, its last token and the identity of its lock space. `source` is for people.

        Raises StateError, and nothing has changed then; TermLost if it could not be finished.
        """
        found = self.load()
        if found.space == kept.space and not self._unfinished:
            raise StateError(f"{source} was imported into {self.location} before: nothing is to be done")
        if found.grants and not self._unfinished:
            name = found.grants[0].name.decode("utf-8", "backslashreplace")
            raise StateError(
                f"locks are held in {self.location} ('{name}', for one): import into an empty place, or wait until "
                "they are free"
            )
        last_token = max(found.last_token, kept.last_token)
        mark = self._key(b"import")
        self._write([put(mark, source.encode("utf-8", "backslashreplace"))], last_token, is_first=True)
        try:
            self.commit([], [_freed(record) for record in found.grants], last_token)
            self.commit(kept.grants, [], last_token)
            self._write([put(self._key(b"space"), kept.space.encode()), delete(mark)], last_token, is_first=False)
        except StateError as problem:
            raise TermLost(str(problem)) from problem

    def _seen(self, unfinished: Optional[Entry]) -> Optional[Entry]:
        self._unfinished = unfinished is not None
        return None


def _freed(record: Record) -> Freed:
    return record.name, record.token
