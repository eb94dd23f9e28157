"""A look at etcd before anything is done there, and now and then from then on: that it has not forgotten locks."""

from __future__ import annotations

import contextlib
import logging
import time
from functools import partial
from threading import Event, Thread
from typing import Callable, NamedTuple, Optional

from ...errors import StateError
from ..storage.etcd_client import EtcdClient, EtcdRefused, EtcdUnavailable
from ..storage.etcd_note import EtcdGoneBack, EtcdNote, compare
from ..storage.etcd_prefix import Mark, describe, probe
from ..storage.etcd_settings import EtcdSettings
from ..storage.etcd_tokens import raise_last_token

EVERY = 5.0  # seconds between two looks; what etcd has forgotten of the time after the last one is not noticed
_AGAIN = 0.2  # seconds
_WITHIN = 3.0  # seconds for one look

log = logging.getLogger(__name__)


class WatchEvents(NamedTuple):
    """Whom to tell what, in a turn of the loop."""

    ready: Callable[[], None]  # once: etcd can be used
    waiting: Callable[[str], None]  # before that, with the reason
    failed: Callable[[StateError], None]  # once, the last event: it can't be used, and that will not change by itself


class EtcdWatch:
    """Looks at etcd in a thread of its own, from `start` to `close`, and notes how far it has come.

    Without a `note` it only sees that etcd can be used. All of `events` are called by way of `call_in_loop`.
    """

    def __init__(
        self,
        settings: EtcdSettings,
        note: Optional[EtcdNote],
        call_in_loop: Callable[[Callable[[], None]], None],
        events: WatchEvents,
        every: float = EVERY,
    ) -> None:
        self._client = EtcdClient(settings)
        self._note = note
        self._call_in_loop = call_in_loop
        self._events = events
        self._every = every
        self._closed = Event()
        self._complained = False
        self._thread = Thread(target=self._run, name="etcd watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more; no event is called from now on. Returns at once."""
        self._closed.set()

    def _run(self) -> None:
        is_ready = False
        pause = _AGAIN
        while not self._closed.is_set():
            try:
                mark = look(self._client, self._note, _WITHIN)
            except EtcdUnavailable as problem:
                if not is_ready:
                    self._tell(partial(self._events.waiting, str(problem)))
            except StateError as problem:
                # What is set up wrong while it runs can be set right while it runs.
                if not is_ready or isinstance(problem, EtcdGoneBack):
                    self._tell(partial(self._events.failed, problem))
                    break
            else:
                self._write(mark)
                if not is_ready:
                    is_ready = True
                    self._tell(self._events.ready)
            self._closed.wait(pause)
            if is_ready:
                pause = min(pause * 2, self._every)
        self._client.close()

    def _write(self, mark: Mark) -> None:
        if self._note is not None:
            try:
                self._note.write(mark)
                self._complained = False
            except StateError as problem:
                if not self._complained:
                    log.warning("%s; an etcd that is restored from a backup may not be noticed", problem)
                self._complained = True

    def _tell(self, event: Callable[[], None]) -> None:
        self._call_in_loop(lambda: None if self._closed.is_set() else event())


def look(client: EtcdClient, note: EtcdNote | None, within: float) -> Mark:
    """See that etcd can be used and has not gone back behind the note; return how far it has come.

    `within` is in seconds. Raises StateError (EtcdGoneBack); EtcdUnavailable.
    """
    before = None if note is None else note.read()
    found = probe(client, client.settings.prefix, time.monotonic() + within)
    compare(before, found, describe(client, client.settings.prefix))
    return found


def accept_restored(settings: EtcdSettings, folder: str, port: int) -> str:
    """Note how far etcd has come now, whatever was noted before, and say in a line what there is.

    Tokens that it has forgotten are not given once more. Raises StateError, UsageError.
    """
    settings = settings.checked()
    note = EtcdNote(folder, port, settings.prefix)
    before: Mark | None = None
    with contextlib.suppress(StateError):  # a note that is damaged is written again
        before = note.read()
    with contextlib.closing(EtcdClient(settings)) as client:
        try:
            try:
                mark = look(client, None, _WITHIN)
                compare(before, mark, "")
            except EtcdGoneBack:
                assert before is not None
                raise_last_token(client, settings.prefix, before.last_token, time.monotonic() + _WITHIN)
                mark = look(client, None, _WITHIN)
        except (EtcdRefused, EtcdUnavailable) as problem:
            raise StateError(str(problem)) from problem
        note.write(mark)
        where = describe(client, settings.prefix)
    return f"{where} is taken as it is (its last token is {mark.last_token}); noted in {note.path}"
