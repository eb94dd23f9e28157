"""Real clients, which lock and unlock at random and write down what came of it: threads with a Locker each.

`python -m tests.proof.clients HOSTS PORT FOLDER SEED OPERATIONS PATIENCE BREAKS LOOKS NAMES CLIENT...` is a process of
them, which can be killed. PATIENCE is for how many seconds most of them wait for a lock. BREAKS and LOOKS are the parts
of the operations that break a lock, or ask for its owner. NAMES are the requests to choose from: names with colons
between, then the next request behind a comma.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from pathlib import Path

from ipclocker import Locker
from ipclocker.errors import LockLost, ServerUnavailable

from .history import BREAK, LOCK, STATUS, UNLOCK, Recorder


class Client:
    """One client: at most one lock at a time, one operation after the other."""

    def __init__(
        self,
        hosts: str,
        port: str,
        folder: Path,
        client: str,
        patience: float,
        requests: list[list[str]],
        dice: random.Random,
    ) -> None:
        self._hosts = hosts
        self._port = port
        self._folder = folder
        self._recorder = Recorder(folder, client)
        self._patience = patience
        self._requests = requests
        self._dice = dice

    def live(self, operations: int, breaks: float, looks: float) -> None:
        """Do about so many operations, of which these parts break a lock or look; hold nothing in the end."""
        for _ in range(operations):
            try:
                self._do_one(breaks, looks)
            except ServerUnavailable:
                self._start_anew()
        self._recorder.close()

    def _do_one(self, breaks: float, looks: float) -> None:
        names = self._dice.choice(self._requests)
        kind = self._dice.random()
        if kind < breaks:
            self._break(self._dice.choice(names))
        elif kind < breaks + looks:
            self._look(self._dice.choice(names))
        else:
            self._lock_and_unlock(names)

    def _start_anew(self) -> None:
        """Be another client: what this one may still have at a server that is gone for so long is not known."""
        self._recorder.gone()
        self._recorder.close()
        self._recorder = Recorder(self._folder, f"{self._recorder.client}+")

    def _lock_and_unlock(self, names: list[str]) -> None:
        locker = self._locker(names)
        if not self._lock(locker, names):
            return
        time.sleep(self._dice.choice([0, 0, 0.001, 0.005]))
        token = locker.token
        if self._dice.random() < 0.2:
            self._recorder.call(LOCK, names)
            locker.lock()
            self._granted(locker)
        self._recorder.call(UNLOCK, [locker.lock_name()])
        if locker.token != token:  # release() would speak of the grant that was lost before, too
            stood = locker._holding.acquisition.release()
            self._recorder.returned("freed" if stood else "lost")
            locker.unlock()
            return
        try:
            locker.release()
        except LockLost:
            self._recorder.returned("lost")
        else:
            self._recorder.returned("freed")

    def _lock(self, locker: Locker, names: list[str]) -> bool:
        """Ask for it, and wait long, for a moment or not at all."""
        kind = self._dice.random()
        patience = 0.0 if kind < 0.2 else self._dice.uniform(0.0005, 0.03) if kind < 0.4 else self._patience
        begin = time.monotonic()
        self._recorder.call(LOCK, names)
        granted = locker.acquire(timeout=patience) if patience else locker.acquire(blocking=False)
        if granted:
            self._granted(locker)
        elif not patience:
            self._recorder.returned("busy")
        elif time.monotonic() < begin + patience + 1:
            self._recorder.gave_up()
        else:
            self._start_anew()  # it may have tried in vain to give back what was granted meanwhile
        return granted

    def _granted(self, locker: Locker) -> None:
        self._recorder.returned("granted", locker.lock_name(), locker.token)

    def _look(self, name: str) -> None:
        self._recorder.call(STATUS, [name])
        self._recorder.returned("owner", self._locker([name]).owner())

    def _break(self, name: str) -> None:
        self._recorder.call(BREAK, [name])
        self._locker([name]).break_lock()
        self._recorder.returned()

    def _locker(self, names: list[str]) -> Locker:
        locker = Locker(
            host=self._hosts,
            port=self._port,
            lock=names,
            timeout=0,
            autounlock=True,
            connect_tries=100,
            connect_delay=0.2,
            print_retry=lambda locker: None,
        )
        # Called as the history has it, but not by `user`: without a session a late request is taken for a new one.
        locker._holding.acquisition._session._default_user = self._recorder.client.encode()
        return locker


def main(
    hosts: str,
    port: str,
    folder: str,
    seed: str,
    operations: str,
    patience: str,
    breaks: str,
    looks: str,
    names: str,
    *clients: str,
) -> int:
    """Let these clients live, each in a thread; the exit code."""
    requests = [request.split(":") for request in names.split(",")]
    ended_well = []

    def live(client: str) -> None:
        dice = random.Random(f"{seed} {client}")
        one = Client(hosts, port, Path(folder), client, float(patience), requests, dice)
        one.live(int(operations), float(breaks), float(looks))
        ended_well.append(client)

    threads = [threading.Thread(target=live, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0 if len(ended_well) == len(clients) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
