"""A note, in the state folder, of how far etcd had come: so one is known again that has forgotten locks.

An etcd that was restored from a backup has the locks of the time of the backup. Who was granted one since would not be
alone with it. The note says which cluster it was, its revision and the last token, all of which only grow.
"""

from __future__ import annotations

import json
import os
from urllib.parse import quote

from ...daemon.state_dir import make_state_folder
from ...errors import StateError
from .etcd_prefix import Mark


class EtcdGoneBack(StateError):
    """The etcd is not the one that it was, or is in an older state: it may have forgotten who holds locks."""


class EtcdNote:
    """The note of the lockerd at a port of this host, on a prefix. Raises StateError if there can be no folder."""

    def __init__(self, folder: str, port: int, prefix: str) -> None:
        name = f"lockerd-{port}-{quote(prefix, safe='')}.etcd"
        self.path = os.path.join(make_state_folder(folder), name)

    def read(self) -> Mark | None:
        """Return what was noted; None if nothing was. Raises StateError.

        Read it before etcd is asked: another process may write it meanwhile.
        """
        try:
            with open(self.path, encoding="utf-8") as file:
                found = json.load(file)
            return Mark(str(found["cluster"]), int(found["revision"]), int(found["last_token"]))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"the note {self.path} can't be read: {error.strerror}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise StateError(
                f"the note {self.path} can't be read: write it again with lockerd --etcd ... --accept-restored"
            ) from error

    def write(self, mark: Mark) -> None:
        """Note how far etcd has come, in the place of what was noted. Raises StateError."""
        new = f"{self.path}.new"
        try:
            with open(new, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o644)  # root may write it for a lockerd that is another user
                json.dump(mark._asdict(), file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self.path)
        except OSError as error:
            raise StateError(f"the note {self.path} can't be written: {error.strerror}") from error


def compare(before: Mark | None, found: Mark, location: str) -> None:
    """See that etcd has not gone back. Raises EtcdGoneBack."""
    if before is None:
        return
    if found.cluster != before.cluster:
        what = f"its cluster id is {found.cluster}, and was {before.cluster}"
    elif found.revision < before.revision:
        what = f"its revision is {found.revision}, and was {before.revision}"
    elif found.last_token < before.last_token:
        what = f"its last token is {found.last_token}, and was {before.last_token}"
    else:
        return
    raise EtcdGoneBack(
        f"{location} is not what it was ({what}), as after a restore from a backup: it may have forgotten locks that "
        "are held; see the README, 'An etcd from a backup', and then lockerd --etcd ... --accept-restored"
    )
