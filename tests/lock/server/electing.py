"""A process that stands for election, says what it hears and claims, and does what it is told by its standard input.

Each line of its output is JSON: when (seconds, CLOCK_BOOTTIME, which all processes share), what event, and with what.
`claims` is the term that it could tell its clients of at that moment. Its words: `hang FILE`
(until there is such a file), `step_down`, `resign`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial

from ipclocker.lock.server.candidate import Events, Identity
from ipclocker.lock.server.election import Election, now
from ipclocker.lock.storage.etcd_client import EtcdClient, EtcdSettings
from ipclocker.net.loop import READ, Loop

_CLAIM_EVERY = 0.02  # seconds


def say(event: str, what: object = None, at: float | None = None) -> None:
    print(json.dumps({"at": now() if at is None else at, "event": event, "what": what}), flush=True)


def main(name: str, ttl: str, settings: str) -> None:
    loop = Loop()
    term = [0]

    def hear(event: str, what: object) -> None:
        if event == "elected":
            assert isinstance(what, int)
            term[0] = what
        say(event, what if isinstance(what, (int, str)) else str(what))

    def claim() -> None:
        at = now()
        if at < election.valid_until(term[0]):
            say("claims", term[0], at)
        loop.call_at(loop.now + _CLAIM_EVERY, claim)

    def obey(events: int) -> None:
        for line in os.read(0, 4096).decode().splitlines() or ["resign"]:
            word, _, argument = line.partition(" ")
            if word == "hang":
                while not os.path.exists(argument):
                    time.sleep(0.01)
            elif word == "step_down":
                election.step_down(term[0], "told to")
            else:
                say("resigned", election.resign(5))
                loop.stop()

    client = EtcdClient(EtcdSettings(**json.loads(settings)))
    identity = Identity(name, (f"{name}:9999",), "1.0")
    events = Events(*(partial(hear, event) for event in Events._fields))
    election = Election(client, "ipc/", identity, int(ttl), loop.call_from_thread, events)
    loop.watch(0, READ, obey)
    election.start()
    claim()
    loop.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
