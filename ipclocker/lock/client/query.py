"""A question to a lock server that is answered at once: LOCK_LIST, STATUS, VERSION, BREAK_LOCK and their like.

It goes over a connection of its own and acquires no lock. A server whose connection breaks before the answer is
passed over, and the next one of those listed is asked.
"""

from __future__ import annotations

import time
from math import inf
from typing import Callable

from ...errors import ServerRefused
from ...net.text import decode_text
from ..wire.replies import Answer
from .connection import ConnectionLost, DeadlineExceeded, Wait, prompt_answer, wait_ready
from .connector import Retry, ServerConnector
from .settings import LockSettings


def query(
    settings: LockSettings,
    command: bytes,
    *,
    wait: Wait = wait_ready,
    retry: Retry = lambda reason, pause: None,
    on_broken: Callable[[bytes], None] = lambda holder: None,
    suffix: str = "",
    within: float = inf,
) -> tuple[Answer, str]:
    """Ask the command's question about the locks of the settings; the answer, and the address of who gave it.

    `on_broken` is called with each holder from whom the command took a lock; `suffix` is put behind the default
    user name. With `within` each server is asked once, in so many seconds together. Raises ServerUnavailable if none
    answers in that time, or else within the settings' tries; ServerRefused.
    """
    connector = ServerConnector(settings, wait, retry)
    connector.latest = time.monotonic() + within
    share = within / len(settings.servers())  # of the time, for one server that does not answer
    try:
        for connection in connector.each_server(connector.latest, once=within < inf):
            try:
                connection.send_request(command, user=settings.user_name(suffix), locks=settings.names)
                answer = prompt_answer(connection, on_broken, time.monotonic() + share)
            except ConnectionLost as problem:
                connector.reasons.append(f"{connection.address}: {problem.strerror}")
                continue
            finally:
                connection.close()
            if answer.error is not None:
                raise ServerRefused(decode_text(answer.error), connector.server)
            return answer, connector.server
    except DeadlineExceeded:
        raise connector.unavailable(TimeoutError(f"no answer in {within:g} s")) from None
    raise AssertionError("each_server raises when there is no server left")
