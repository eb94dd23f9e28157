"""The one file on bare Debians, as two lockerd on a real etcd: one is killed, the other has its locks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..support.etcd import Etcd
from ..support.replicas import free_port
from .hosts import SUITES, host

# What a script does here is on this host's network, so etcd on the loopback is there for it.
FAIL_OVER = """
start() {
    ipclocker lockerd --nofork --leader-ttl 2 --host 127.0.0.1 --port $1 --state-dir /tmp/state.$1 2>/tmp/log.$1 &
    server=$!
    until grep -q "INFO: $2" /tmp/log.$1; do kill -0 $server; sleep 0.02; done
}
start $PORT1 serves; first=$server
start $PORT2 stands; second=$server
export IPCLOCKER_HOST="[127.0.0.1]:$PORT1:[127.0.0.1]:$PORT2"
ipclocker lockersh --lock x --lease 45 'touch /tmp/held; until [ -e /tmp/go ]; do sleep 0.02; done; exit 7' & holder=$!
until [ -e /tmp/held ]; do kill -0 $holder; sleep 0.02; done
kill -9 $first
until ipclocker lockstat ping >/tmp/ping 2>&1; do sleep 0.1; done
grep ^serves /tmp/ping
ipclocker lockstat list | grep '^x '
ipclocker lockersh --lock x --timeout 0 -- false || echo "busy $?"
touch /tmp/go; wait $holder || echo "code $?"
ipclocker lockersh --lock x --timeout 30 -- echo free
kill $second; wait $second
"""


@pytest.mark.parametrize("suite", SUITES)
def test_another_one_serves_when_the_first_is_killed(suite: str, built_file: Path, etcd: Etcd) -> None:
    ports = {f"PORT{number}": str(free_port()) for number in (1, 2)}
    settings = {"IPCLOCKER_ETCD": etcd.urls[0], "IPCLOCKER_ETCD_PREFIX": suite}
    done = host(suite, built_file).run(FAIL_OVER, environment={**ports, **settings})
    assert done.code == 0, done
    serves, held, *others = done.out.splitlines()
    assert f":{ports['PORT2']} answered" in serves
    assert re.fullmatch(r"x +\S+ +\S+ +\d+ .* lease 45 +\d+ +0", held)
    assert others == ["busy 75", "code 7", "free"]
