"""The three hosts of the README, without a single point of failure, as they are printed, and one of them lost."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.site import new_site, nodes_can_be_made
from ..support.waiting import wait_for
from . import readme
from .readme_hosts import Hosts, ended, new_hosts

pytestmark = [
    pytest.mark.skipif(not nodes_can_be_made(), reason="hosts of their own need root and namespaces"),
    pytest.mark.skipif(shutil.which("etcd") is None, reason="this host has no etcd"),
]

[TEN_LINES] = readme.code_under("Three hosts, no single point of failure")
LOCK_HOSTS = ("lock1", "lock2", "lock3")
LIST = ":".join(LOCK_HOSTS)


@pytest.fixture(scope="module")
def hosts(built_file: Path, cache: Path) -> Iterator[Hosts]:
    """The hosts, with the ten lines run there."""
    with new_site(built_file, cache) as site, new_hosts(site, *LOCK_HOSTS, "worker") as made:
        made.run("scp dist/ipclocker worker:/usr/local/bin/")
        made.go("worker")
        made.five = made.run(TEN_LINES)
        yield made


def states(hosts: Hosts) -> dict[str, str]:
    """What each of the three is, as the worker finds them; nothing if none serves."""
    code, out = hosts.on("worker", f"ipclocker lockstat ping --json --dhost {LIST}")
    if code != 0:
        return {}
    return {name: host["state"] for name, host in zip(LOCK_HOSTS, json.loads(out)["hosts"])}


def held(hosts: Hosts) -> list[dict[str, Any]]:
    code, out = hosts.on("worker", f"ipclocker lockstat list --json --dhost {LIST}")
    return json.loads(out)["locks"] if code == 0 else []


def test_as_it_is_printed_and_without_one_of_them(hosts: Hosts) -> None:
    code, out = hosts.five
    assert code == 0, out
    assert len(TEN_LINES.splitlines()) == 10
    begin, end = hosts.notes("worker")
    assert re.fullmatch(r"begin worker nightly [1-9]\d*", begin) and end == "end"
    wait_for(lambda: sorted(states(hosts).values()) == ["serves", "stands by", "stands by"], "all of them to be there")

    [leader] = [name for name, state in states(hosts).items() if state == "serves"]
    hosts.go("worker", False)
    running = hosts.start(TEN_LINES.splitlines()[-1])
    wait_for(lambda: len(hosts.notes("worker")) == 3, "the command to run")
    [before] = held(hosts)
    hosts.nodes[leader].cut()
    [after] = wait_for(lambda: held(hosts), "another one to serve")
    assert [after[key] for key in ("name", "token", "pid")] == [before[key] for key in ("name", "token", "pid")]
    assert states(hosts)[leader] == "silent"
    hosts.go("worker")
    assert ended(running)[0] == 0
    assert hosts.on("worker", f"ipclocker lockersh --dhost {LIST} --lock other -- true") == (0, "")
