"""Helpers that several rooms' tests share.

waiting: one time limit, and waiting with an end. processes: what /proc tells. servers: lock and pid servers that run.
fake_servers: servers of other kinds. memory: a lock server and a network without sockets. site: the built file on a
host, and hosts of their own. fake_daemon, fake_service: the least server for ipclocker/daemon. activation: sockets
that a process is started with. interrupt: Ctrl-C between any two steps.
"""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
