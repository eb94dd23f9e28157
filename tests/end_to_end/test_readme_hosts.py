"""The README's cluster of five lines, as it is printed, and an example of each tool, on hosts of these names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipclocker.cli import TOOLS

from ..support.site import new_site, nodes_can_be_made
from ..support.waiting import wait_for
from . import readme
from .readme_hosts import Hosts, ended, new_hosts

pytestmark = pytest.mark.skipif(not nodes_can_be_made(), reason="hosts of their own need root and namespaces")

[FIVE_LINES] = readme.code_under("A cluster in five lines")
LOCKED, LISTED = FIVE_LINES.splitlines()[3:]
# check-pidstatd is the other tool of its row.
EXAMPLES = readme.examples()
TRIED = {"lockerd", "pidstatd", "check-pidstatd"}  # beside those that a test below is named after


@pytest.fixture(scope="module")
def hosts(built_file: Path, cache: Path) -> Iterator[Hosts]:
    """The hosts, with the five lines run there, of which the output is kept."""
    with new_site(built_file, cache) as site, new_hosts(site) as made:
        made.go("worker")
        made.five = made.run(FIVE_LINES)
        made.run("scp dist/ipclocker host1:/usr/local/bin/")
        yield made


@pytest.fixture
def held(hosts: Hosts) -> Iterator[Hosts]:
    """With the fourth line running, until the test is over."""
    hosts.go("worker", False)
    before = len(hosts.notes("worker"))
    running = hosts.start(LOCKED)
    wait_for(lambda: len(hosts.notes("worker")) > before, "the command to run")
    yield hosts
    hosts.go("worker")
    assert ended(running)[0] == 0


def document(hosts: Hosts, *words: str) -> Any:
    code, out = hosts.on("lockhost", f"ipclocker {' '.join(words)} --json")
    assert code == 0, out
    return json.loads(out)


def keys_of(what: str) -> set[str]:
    """The keys that the README has in a row of the table of what lockstat prints."""
    [keys] = [row[1] for row in readme.rows("command") if what in (row[0], *readme.spans(row[0]))]
    return {*readme.spans(keys.partition(" (")[0])}


def test_as_it_is_printed(hosts: Hosts) -> None:
    code, out = hosts.five
    assert code == 0, out
    assert len(FIVE_LINES.splitlines()) == 5
    begin, end = hosts.notes("worker")[:2]
    assert re.fullmatch(r"begin worker nightly [1-9]\d*", begin), "it was run there, under the lock"
    assert end == "end"
    assert "nightly" not in out.replace("--lock nightly", ""), "the lock is free when the command is done"


def test_lockstat_list_shows_the_holder(held: Hosts) -> None:
    code, out = held.run(LISTED)
    assert code == 0
    assert re.search(r"^nightly +\S+ +worker +\d+ ", out, re.MULTILINE), out


def test_a_second_one_waits(held: Hosts) -> None:
    before = held.notes("worker")
    second = held.start(LOCKED)
    [lock] = wait_for(
        lambda: [lock for lock in document(held, "lockstat", "list")["locks"] if lock["waiters"]], "the second to wait"
    )
    assert [(waiter["host"], waiter["command"]) for waiter in lock["waiters"]] == [("worker", "make regress")]
    assert held.notes("worker") == before, "it has not begun"
    assert (set(lock), set(lock["waiters"][0])) == (keys_of("a lock"), keys_of("a waiter"))
    held.go("worker")
    assert ended(second)[0] == 0
    after = held.notes("worker")[len(before) - 1 :]
    assert [line.split()[0] for line in after] == ["begin", "end", "begin", "end"], "one after the other"


def test_what_lockstat_prints_for_programs(held: Hosts) -> None:
    [lock] = document(held, "lockstat", "show", "nightly")["locks"]
    asked = {"list": "", "show": "nightly", "verify": f"nightly {lock['token']}", "ping": ""}
    for command, words in asked.items():
        found = document(held, "lockstat", command, words)
        assert set(found) == keys_of(command), command


def test_servers_are_started_as_in_the_table() -> None:
    for tool in ("lockerd", "pidstatd"):
        assert f" {EXAMPLES[tool]}\n" in FIVE_LINES


def test_lockersh(hosts: Hosts) -> None:
    hosts.go("worker")
    before = len(hosts.notes("worker"))
    assert hosts.on("worker", EXAMPLES["lockersh"]) == (0, "")
    assert re.fullmatch(r"begin worker nightly \d+", hosts.notes("worker")[before])


def test_lockstat(held: Hosts) -> None:
    code, out = held.on("lockhost", EXAMPLES["lockstat"])
    assert code == 0
    assert "make regress" in out


def test_pidstat(hosts: Hosts) -> None:
    assert hosts.on("host1", "ipclocker pidstatd --pid-file /run/pidstatd.pid") == (0, "")
    assert hosts.on("worker", EXAMPLES["pidstat"])[0] == 1, "there are no such processes"
    sleepers = hosts.sleeper("worker", 3459), hosts.sleeper("host1", 4220)
    code, out = hosts.on("worker", EXAMPLES["pidstat"])
    assert (code, len(re.findall(r"\bup\b", out))) == (0, 2), out
    for host, pid in (("worker", 3459), ("host1", 4220)):
        hosts.nodes[host].kill(pid)
    for sleeper in sleepers:
        ended(sleeper)


def test_pidwatch(hosts: Hosts) -> None:
    sleeper = hosts.sleeper("worker", 4711)
    watching = hosts.start_on("lockhost", EXAMPLES["pidwatch"])
    wait_for(lambda: hosts.notes("lockhost"), "the command to run")
    assert watching.poll() is None
    hosts.nodes["worker"].kill(4711)
    ended(sleeper)
    assert ended(watching)[0] != 0, "it was ended by a signal"
    assert len(hosts.notes("lockhost")) == 1


def test_uriexec(hosts: Hosts) -> None:
    (hosts.home("worker") / "notes").write_text("a  b\na b\nxa  bx\n")
    assert hosts.run(EXAMPLES["uriexec"]) == (0, "2\n")


def test_supervise(hosts: Hosts) -> None:
    program = "#!/bin/sh\\nexec sleep 1000\\n"
    hosts.on("worker", f"mkdir -p /opt/web && printf '{program}' >/opt/web/server && chmod +x /opt/web/server")
    assert hosts.on("worker", EXAMPLES["supervise"]) == (0, "")
    code, out = hosts.on("worker", "ipclocker supervise status --pid-file /run/web.pid --json")
    assert code == 0, out
    [web] = json.loads(out)["programs"]
    assert (web["name"], web["command"]) == ("web", "/opt/web/server")
    section = readme.TEXT.partition("`status --json` prints")[2].partition("\n\n")[0]
    assert {*json.loads(out), *web} <= set(readme.spans(section)), "the README names what is told"
    killed = "kill $(cat /run/web.pid) && while [ -e /run/web.pid ]; do sleep 0.05; done"
    assert hosts.on("worker", killed) == (0, "")
    assert hosts.on("worker", "ipclocker supervise status --pid-file /run/web.pid")[0] == 69


def test_check_lockerd(hosts: Hosts) -> None:
    code, out = hosts.on("worker", EXAMPLES["check-lockerd"])
    assert (code, out.startswith("LOCKERD OK")) == (0, True) or (code, out.startswith("LOCKERD WARNING")) == (1, True)
    code, out = hosts.on("lockhost", "ipclocker check-pidstatd -H worker")
    assert (code, out.startswith("PIDSTATD OK")) == (0, True)


def test_units(hosts: Hosts) -> None:
    folder = "/etc/systemd/system"
    if not Path(folder).is_dir():
        pytest.skip(f"there is no {folder} here")
    assert hosts.on("worker", EXAMPLES["units"]) == (0, "")
    _, out = hosts.on("worker", f"cat {folder}/pidstatd.service")
    assert re.search(r"^ExecStart=.*/usr/local/bin/ipclocker pidstatd\b", out, re.MULTILINE), out


def test_doctor(hosts: Hosts) -> None:
    code, out = hosts.on("worker", EXAMPLES["doctor"])
    lines = out.splitlines()
    for what in ("lockerd", "pidstatd", "host name"):
        assert any(line.startswith("ok ") and what in line for line in lines), out
    assert code == (1 if "\nfailed" in out else 0)


def test_man(hosts: Hosts) -> None:
    code, out = hosts.on("worker", EXAMPLES["man"])
    assert code == 0
    assert "lockstat" in out
    assert "EXIT STATUS" in out


def test_each_tool_is_tried() -> None:
    named = {name.removeprefix("test_").replace("_", "-") for name in globals() if name.startswith("test_")}
    assert set(TOOLS) - named - TRIED <= {"prefork"}, "prefork has tests of its own, with web servers"
