"""A question to a lock server that is answered at once: LOCK_LIST, STATUS, VERSION, BREAK_LOCK and their like.

It goes over a connection of its own and acquires no lock. A server whose connection breaks before the answer is
passed over, and the next one of those listed is asked.
"""

from __future__ import annotations

import os
from math import inf
from typing import Callable

from ...errors import ServerRefused
from ..wire.replies import Answer
from .connection import ConnectionLost, Wait, wait_ready
from .connector import Retry, ServerConnector, prompt_answer
from .settings import LockSettings, session_name


def query(
    settings: LockSettings,
    command: bytes,
    *,
    wait: Wait = wait_ready,
    retry: Retry = lambda reason, pause: None,
    on_broken: Callable[[bytes], None] = lambda holder: None,
    suffix: str = "",
) -> tuple[Answer, str]:
    """Ask the command's question about the locks of the settings; the answer, and the address of who gave it.

    `on_broken` is called with each holder from whom the command took a lock; `suffix` is put behind the default
    user name. Raises ServerUnavailable if no server answers within the settings' tries, ServerRefused.
    """
    connector = ServerConnector(settings, wait, retry)
    for connection in connector.each_server(inf):
        try:
            connection.send_request(
                command, user=settings.user_name(suffix), session=session_name(), locks=settings.names
            )
            answer = prompt_answer(connection, on_broken)
        except ConnectionLost as problem:
            connector.reasons.append(f"{connection.address}: {problem.strerror}")
            continue
        finally:
            connection.close()
        if answer.error is not None:
            raise ServerRefused(os.fsdecode(answer.error), connector.server)
        return answer, connector.server
    raise AssertionError("each_server raises when there is no server left")
