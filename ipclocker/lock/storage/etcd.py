"""Held locks in etcd, as the leader of one term writes them.

Every transaction compares two things: `leader` is the key that was made at the start of this term (its create revision
is the term), and `counter` has what this store wrote last. So nothing is written after the term, whatever clocks say,
and a transaction whose answer was lost can be sent again: it is carried out once, and `counter` tells whether it was.

An error is a StateError if nothing of the batch was written, nor ever will be; the caller takes the batch back.
Everything else ends the term: TermLost. Then nobody knows here what is in etcd, until it is loaded in another term;
and nothing more is written in this one, since what was begun and is not known to be there must not be passed over.

Under the prefix:
    format, space               version of this layout; identity of the lock space
    member/HOST,ADDRESS...      what each lockerd tells of itself (in older versions member/HOST)
    leader                      of the election
    import                      of what, while an import is not finished (etcd_import.py)
    counter                     TERM NUMBER LAST_TOKEN
    served                      when the leader last said that it is there, in seconds since 1970
    lock/NAME/TOKEN             a grant (etcd_record.py)
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, NoReturn, Optional

from ...errors import StateError
from ..model import Record
from .base import Freed, StoredState, TermLost, new_space
from .etcd_client import OUT_OF_RANGE, EtcdClient, EtcdRefused, EtcdUnavailable
from .etcd_prefix import (
    check_format,
    check_is_free,
    describe,
    read_counter,
    shown,
    unreadable,
)
from .etcd_record import OLDEST_FORMAT, read_record, record_format, record_key, record_value
from .etcd_requests import (
    Entry,
    created_at,
    delete,
    end_of,
    entries,
    entry,
    get,
    get_page,
    get_request,
    has_value,
    parts,
    put,
    ranges,
    transaction,
)

PAGE = 5_000  # keys that a load reads at once
_PAGE_WITHIN = 15.0  # seconds, of which a try gets a third; for each page etcd counts all the locks that are left
COMPACT = 60.0  # seconds; 300 bytes a change fill etcd's 2 GiB within minutes at full load
_MOST_MEMBERS = 100  # hosts that clients are told of
_LOOK_WITHIN = 0.3  # seconds, for the question who leads etcd: batches wait meanwhile
_BESIDE = 2.0  # seconds that what is not needed at once may keep batches waiting

log = logging.getLogger(__name__)


class _Found(NamedTuple):
    """What stands in etcd."""

    leader: Optional[Entry]
    counter: Optional[bytes]


class EtcdStore:
    """The store of one term; `term` is the create revision of `leader`.

    `valid_until`: until when the leader's lease is known to be valid, in seconds of `clock`; nothing is tried after
    that. `compacts`: drop old revisions each minute, which does nothing good to other programs that watch this etcd.
    `on_page` is called with the number of locks loaded so far.
    """

    is_shared = True

    def __init__(
        self,
        client: EtcdClient,
        prefix: str,
        term: int,
        valid_until: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        compacts: bool = True,
        on_page: Callable[[int], object] = lambda loaded: None,
        page: int = PAGE,
    ) -> None:
        self.location = describe(client, prefix)
        self.space = ""  # identity of the lock space; known when it was loaded
        self.members: tuple[tuple[str, tuple[str, ...]], ...] = ()  # hosts that may serve it, and their addresses
        self._client = client
        self._prefix = prefix.encode()
        self._locks = self._key(b"lock/")
        self._term = term
        self._valid_until = valid_until
        self._clock = clock
        self._on_page = on_page
        self._page = page
        self._is_leader = created_at(self._key(b"leader"), term)
        self._look_up = [get(self._key(b"leader")), get(self._key(b"counter"))]
        members = self._key(b"member/")
        self._list_members = get_page(members, end_of(members), _MOST_MEMBERS)
        self._counter: bytes | None = None  # as it stands in etcd
        self._format = OLDEST_FORMAT
        self._number = 0  # of transactions in this term
        self._last_token = 0
        self._is_over = ""  # why
        self._revision = 0  # of etcd, when it answered last
        self._compacts = compacts
        self._next_compaction = clock() + COMPACT

    def load(self) -> StoredState:
        """All that was committed, after the first transaction of the term, which ends all that older ones tried.

        Raises StateError, TermLost.
        """
        from concurrent.futures import ThreadPoolExecutor  # only here, for it is slow to import

        served = self._begin()
        start, end = self._locks, end_of(self._locks)
        count = 0
        with ThreadPoolExecutor(1) as reader:  # while etcd looks for a page, the one before it is read
            pages = []
            while True:
                page = get_page(start, end, self._page)
                (answer,) = ranges(self._within_term(transaction([self._is_leader], [page]), _PAGE_WITHIN))
                found = entries(answer)
                pages.append(reader.submit(self._grants, found, served))
                count += len(found)
                self._on_page(count)
                if not found or not answer.get("more"):
                    break
                start = found[-1].key + b"\0"
            grants = [grant for page_read in pages for grant in page_read.result()]
        return StoredState(grants, self._last_token, served, self.space)

    def commit(self, changed: Sequence[Record], freed: Sequence[Freed], last_token: int) -> None:
        """Write these grants in the place of what has their names and tokens, delete those that were freed.

        On return it is in etcd, and this was the leader at a moment after the call. An empty batch shows whether there
        can be written. Raises StateError, TermLost.
        """
        try:
            self._write_batch(changed, freed, last_token)
        except (StateError, TermLost):
            raise
        except Exception as problem:  # an answer like none of etcd's, say
            log.exception("a batch that may be written in part")
            self._end_term(f"{type(problem).__name__} {problem}")

    def _write_batch(self, changed: Sequence[Record], freed: Sequence[Freed], last_token: int) -> None:
        # What is freed goes first, so that at no moment a name has two holders, whatever part is carried out.
        operations = [delete(self._locks + record_key(name, token)) for name, token in freed]
        needed = max(map(record_format, changed), default=self._format)
        if needed > self._format:
            operations.append(put(self._key(b"format"), b"%d" % needed))
        operations += [
            put(self._locks + record_key(record.name, record.token), record_value(record)) for record in changed
        ]
        for number, part in enumerate(parts(operations)):
            self._write(part, last_token, is_first=number == 0)
        self._format = max(needed, self._format)

    def confirm_term(self) -> None:
        """See that this was the leader at a moment after the call. Raises TermLost."""
        try:
            answer = self._read("kv/range", get_request(self._key(b"leader")).encode())
        except (EtcdRefused, StateError) as problem:
            self._end_term(str(problem))
        self._note(answer)
        if not self._is_ours(_Found(entry(answer), None)):
            self._end_term(_DEPOSED)

    def touch(self) -> None:
        """Note that there is a leader at this moment, and drop old revisions if that is due.

        Raises StateError, TermLost.
        """
        if self._compacts and self._clock() >= self._next_compaction:
            self._next_compaction = self._clock() + COMPACT
            self._compact()
        served = put(self._key(b"served"), b"%.3f" % time.time())
        try:
            answer = self._client.call(
                "kv/txn",
                transaction([self._is_leader], [served, self._list_members]),
                min(self._deadline(), time.monotonic() + _BESIDE),
            )
        except (EtcdRefused, EtcdUnavailable) as problem:
            raise StateError(f"it can't be noted when locks were last served: {problem}") from problem
        if not answer.get("succeeded"):
            self._end_term(_DEPOSED)
        self._note_members(answer)
        self._client.prefer_leader(min(self._deadline(), time.monotonic() + _LOOK_WITHIN))

    def copy_to(self, path: str) -> NoReturn:
        """Not for etcd, which keeps its own copies. Raises StateError."""
        raise StateError(f"locks in etcd are not copied to a file ({path})")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # The start of a term

    def _begin(self) -> float:
        """Take over `counter`; return when a leader was last there."""
        names = (b"leader", b"format", b"import", b"space", b"counter", b"served")
        reads = [get(self._key(name)) for name in names]
        answer = self._within_term(transaction([self._is_leader], [*reads, self._list_members]))
        _, version, unfinished, space, counter, served = map(entry, ranges(answer)[: len(names)])
        self._note_members(answer)
        check_format(version, self._seen(unfinished), self.location)
        writes = []
        if version is None:
            self._check_prefix_is_free()
            writes.append(put(self._key(b"format"), b"%d" % self._format))
        else:
            self._format = int(version.value)
        self.space = new_space() if space is None else space.value.decode("ascii", "replace")
        if space is None and counter is not None:
            raise StateError(
                f"the key '{shown(self._key(b'space'))}' in {self.location} is gone, by which holders know their lock "
                "space: put it back with etcdctl (lockstat ping --json has shown it as `space`), or choose another one "
                "with --etcd-prefix"
            )
        if space is None:
            writes.append(put(self._key(b"space"), self.space.encode()))
        elif not self.space.isalnum():
            raise unreadable(space, self.location)
        last_token = read_counter(counter, self.location)
        self._counter = None if counter is None else counter.value
        self._write(writes, last_token, is_first=True)
        try:  # one that is still to come would make no holder look silent
            return time.time() if served is None else min(float(served.value), time.time())
        except ValueError:
            assert served is not None
            raise unreadable(served, self.location) from None

    def _seen(self, unfinished: Entry | None) -> Entry | None:
        """Return the mark of an import that was not finished, if that is a hindrance."""
        return unfinished

    def _check_prefix_is_free(self) -> None:
        """Look before the first locks are written under a prefix: others' keys there would be taken for locks."""
        page = get_page(self._prefix, end_of(self._prefix), self._page, keys_only=True)
        (answer,) = ranges(self._within_term(transaction([self._is_leader], [page])))
        check_is_free(entries(answer), self._prefix, self.location, lambda body: self._read("kv/range", body))

    def _grants(self, page: list[Entry], served: float) -> list[Record]:
        return [_as_silent_since(self._grant(found), served) for found in page]

    def _grant(self, found: Entry) -> Record:
        try:
            return read_record(found.key[len(self._locks) :], found.value)
        except ValueError as problem:
            raise unreadable(found, self.location, str(problem)) from problem

    # Requests

    def _write(self, operations: Sequence[str], last_token: int, is_first: bool) -> None:
        """Carry out one transaction, for certain; `is_first` if nothing of this batch was carried out before.

        Raises StateError, TermLost.
        """
        counter = b"%d %d %d" % (self._term, self._number + 1, last_token)
        key = self._key(b"counter")
        body = transaction(
            [self._is_leader, has_value(key, self._counter)], [put(key, counter), *operations], self._look_up
        )
        is_open = False  # a try of it may be carried out, now or later
        while True:
            try:
                answer = self._client.call("kv/txn", body, self._deadline())
            except EtcdUnavailable as problem:
                is_open |= problem.maybe_applied
                self._go_on_or_end(problem)
                continue
            except EtcdRefused as problem:
                # "No space" is also said of what was carried out, so it is `counter` that tells.
                found = self._look()
                if self._is_ours(found) and found.counter == counter:
                    break
                may_come = is_open or problem.maybe_applied
                if is_first and not may_come and self._is_ours(found) and found.counter == self._counter:
                    raise StateError(f"the locks can't be written: {problem}") from problem
                self._end_term(f"a batch may be written in part: {problem}")
            except StateError as problem:
                self._end_term(str(problem))
            self._note(answer)
            if answer.get("succeeded"):
                break
            found = _found(answer)
            if self._is_ours(found) and found.counter == counter:
                break  # an earlier try
            self._end_term(f"another program has written {shown(key)}" if self._is_ours(found) else _DEPOSED)
        self._counter = counter
        self._number += 1
        self._last_token = last_token

    def _within_term(self, body: bytes, within: float = 0.0) -> dict[str, Any]:
        """Return the answer to a transaction that only reads, and compares the term. Raises StateError, TermLost."""
        try:
            answer = self._read("kv/txn", body, within)
        except EtcdRefused as problem:
            raise StateError(f"the locks in {self.location} can't be read: {problem}") from problem
        self._note(answer)
        if not answer.get("succeeded"):
            self._end_term(_DEPOSED)
        return answer

    def _read(self, path: str, body: bytes, within: float = 0.0) -> dict[str, Any]:
        """Ask, as long as the term lasts, what may be asked twice. Raises EtcdRefused, StateError, TermLost.

        `within` so many seconds an answer is waited for even if the term has to be renewed meanwhile.
        """
        while True:
            try:
                return self._client.call(path, body, max(self._deadline(), time.monotonic() + within))
            except EtcdUnavailable as problem:
                self._go_on_or_end(problem)

    def _look(self) -> _Found:
        """Look what stands in etcd now. Raises TermLost if that can't be found out."""
        try:
            return _found(self._client.call("kv/txn", transaction([], self._look_up), self._deadline()))
        except (EtcdRefused, EtcdUnavailable, StateError) as problem:
            self._end_term(str(problem))

    def _note_members(self, answer: dict[str, Any]) -> None:
        """Take the hosts that may serve this lock space from an answer whose last part lists their keys."""
        members = []
        for found in entries(ranges(answer)[-1]):
            with contextlib.suppress(
                ValueError, TypeError, KeyError
            ):  # written by something else: nothing depends on it
                told = json.loads(found.value)
                members.append((str(told["host"]), tuple(map(str, told["addresses"]))))
        self.members = tuple(members)

    def _compact(self) -> None:
        if not self._revision:
            return
        try:
            until = min(self._deadline(), time.monotonic() + _BESIDE)
            self._client.call("kv/compaction", {"revision": str(self._revision)}, until)
        except EtcdRefused as problem:
            if problem.code != OUT_OF_RANGE:  # it was compacted by another one
                log.warning("old revisions stay in etcd and take up its space: %s", problem)
        except EtcdUnavailable:
            pass  # the next minute

    def _is_ours(self, found: _Found) -> bool:
        return found.leader is not None and found.leader.create_revision == self._term

    def _note(self, answer: dict[str, Any]) -> None:
        self._revision = int(answer.get("header", {}).get("revision", 0))

    def _deadline(self) -> float:
        """Return until when a request is of use, monotonic. Raises TermLost after the end of the term."""
        if self._is_over:
            self._end_term(self._is_over)
        left = self._valid_until() - self._clock()
        if left <= 0:
            self._end_term("its lease could not be renewed in time")
        return time.monotonic() + left

    def _go_on_or_end(self, problem: EtcdUnavailable) -> None:
        """Return if the lease was renewed meanwhile."""
        if self._valid_until() <= self._clock():
            self._end_term(str(problem))

    def _end_term(self, why: str) -> NoReturn:
        self._is_over = why
        raise TermLost(f"the term {self._term} in {self.location} is over: {why}")

    def _key(self, name: bytes) -> bytes:
        return self._prefix + name


_DEPOSED = "another lockerd leads, or may"


def _found(answer: dict[str, Any]) -> _Found:
    leader, counter = map(entry, ranges(answer))
    return _Found(leader, None if counter is None else counter.value)


def _as_silent_since(record: Record, served: float) -> Record:
    """Return a grant as one whose holder was last heard of then, unless that is known better."""
    return record._replace(heard=served) if record.heard is None and record.pid else record
