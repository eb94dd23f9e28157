"""A question to a lock server that is answered at once: LOCK_LIST, STATUS, VERSION, BREAK_LOCK and their like.

It goes over a connection of its own and acquires no lock. A server whose connection breaks before the answer is
passed over, and the next one of those listed is asked; but not by a command that must not be carried out twice.
"""

from __future__ import annotations

import time
from math import inf
from typing import Callable, NamedTuple

from ...errors import ServerRefused, ServerUnavailable
from ...net.text import decode_text
from ..wire.replies import Answer, Space
from .connection import ANSWER_WITHIN, ConnectionLost, DeadlineExceeded, Value, Wait, prompt_answer, wait_ready
from .connector import Retry, ServerConnector
from .settings import LockSettings
from .steps import run


class Asked(NamedTuple):
    """The answer to a question, the address of who gave it, and the lock space of that one, if it was to tell it."""

    answer: Answer
    server: str
    space: Space | None = None


def query(
    settings: LockSettings,
    command: bytes,
    *,
    wait: Wait = wait_ready,
    retry: Retry = lambda reason, pause: None,
    on_broken: Callable[[bytes], None] = lambda holder: None,
    suffix: str = "",
    within: float = inf,
    once: bool = False,
    asks_space: bool = False,
    space: Space | None = None,
) -> Asked:
    """Ask the command's question about the locks of the settings.

    `on_broken` is called with each holder from whom the command took a lock; `suffix` is put behind the default
    user name. With `within` each server is asked once, in so many seconds together. `once`: it is sent to one server
    only, since it may have been carried out when no answer comes. With `asks_space` the server tells its lock space;
    with a `space` only a server is asked that tells that one. Raises ServerUnavailable if none answers in that time, or
    else within the settings' tries; ServerRefused.
    """
    connector = ServerConnector(settings, wait, retry)
    connector.latest = time.monotonic() + within
    share = within / len(settings.servers())  # of the time, for one server that does not answer
    try:
        for connection in connector.each_server(connector.latest, once=within < inf):
            is_sent = False
            try:
                until = time.monotonic() + share
                if space is not None:
                    run(connection.verifying_space(space, min(until, time.monotonic() + ANSWER_WITHIN)), connector.wait)
                is_sent = True
                told: dict[str, Value] = {"space": 1} if asks_space else {}
                connection.send_request(command, user=settings.user_name(suffix), locks=settings.names, **told)
                answer = prompt_answer(connection, on_broken, until)
            except ConnectionLost as problem:
                if once and is_sent:
                    raise ServerUnavailable(
                        f"the lock server {connection.address} has not answered ({problem.strerror}): look whether it "
                        "was done"
                    ) from None
                connector.reasons.append(f"{connection.address}: {problem.strerror}")
                continue
            finally:
                connection.close()
            if answer.error is not None:
                raise ServerRefused(decode_text(answer.error), connector.server)
            return Asked(answer, connector.server, connection.space)
    except DeadlineExceeded:
        raise connector.unavailable(TimeoutError(f"no answer in {within:g} s")) from None
    raise AssertionError("each_server raises when there is no server left")
