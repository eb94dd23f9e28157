"""A lock server that was killed and comes back: who holds, holds on; who waits, waits on; nobody is told anything."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from ..support.site import Site, Tool
from ..support.waiting import wait_for


def serve(site: Site, *options: str) -> Tool:
    """Start a server that remembers."""
    return site.serve(*(options or ("--state-dir", site.environment["STATE_DIRECTORY"])))


def restart(site: Site, *options: str) -> None:
    """Kill the server, and start it with what it has left."""
    assert site.server is not None
    site.server.process.kill()
    site.server.process.wait()
    serve(site, *options)


def waiters(site: Site, name: str = "x") -> int:
    """How many wait for a lock."""
    return site.ask(b"LOCK_INFO " + name.encode()).count(b"waiter ")


def test_a_running_command_notices_nothing_and_who_waits_gets_the_lock_afterwards(bare_site: Site) -> None:
    site = bare_site
    serve(site)
    go = site.folder / "go"
    holder = site.start("lockersh", "--lock", "x", f"while [ ! -e {go} ]; do sleep 0.02; done; exit 7")
    wait_for(site.locks, "the lock")
    waiting = [site.start("lockersh", "--lock", "x", f"echo {n} >>{site.folder}/ran") for n in range(5)]
    wait_for(lambda: waiters(site) == 5, "the waiters")
    before = site.ask(b"LOCK_INFO x").split(b"\n")[0].split(b" age ")[0]
    for _ in range(3):
        restart(site)
        assert site.ask(b"LOCK_INFO x").split(b"\n")[0].split(b" age ")[0] == before  # the same holder and token
        wait_for(lambda: waiters(site) == 5, "the waiters to be back")
        assert not (site.folder / "ran").exists()
    go.touch()
    assert holder.end() == 7
    assert [tool.end() for tool in waiting] == [0] * 5
    assert sorted((site.folder / "ran").read_text().split()) == ["0", "1", "2", "3", "4"]
    assert [tool.err for tool in [holder, *waiting]] == [""] * 6
    assert site.locks() == {}


def test_a_lease_goes_on_over_a_restart(bare_site: Site) -> None:
    site = bare_site
    serve(site)
    go = site.folder / "go"
    holder = site.start("lockersh", "--lease", "3", "--lock", "x", f"while [ ! -e {go} ]; do sleep 0.02; done; exit 7")
    wait_for(site.locks, "the lock")
    restart(site)
    wait_for(lambda: b"lease 3" in site.ask(b"LOCK_INFO x"), "the lease")
    go.touch()
    assert holder.end() == 7
    assert holder.err == ""


def test_a_command_that_ended_while_the_server_was_away_holds_nothing_afterwards(bare_site: Site) -> None:
    """Neither if its lockersh could say so to nobody, nor if that was killed with it."""
    site = bare_site
    server = serve(site)
    told = site.start(
        "lockersh", "--lock", "x", "--release-tries", "0.2", f"while [ ! -e {site.folder}/go ]; do :; done"
    )
    killed = site.start("lockersh", "--lock", "y", "sleep 1000")
    wait_for(lambda: len(site.locks()) == 2, "the locks")
    server.process.kill()
    server.process.wait()
    (site.folder / "go").touch()
    assert told.end() == 0
    os.kill(killed.pid, signal.SIGKILL)
    killed.end()
    serve(site)
    wait_for(lambda: site.locks() == {}, "the locks to be free")


def test_started_anew_by_sighup_it_keeps_its_locks(bare_site: Site) -> None:
    server = serve(bare_site)
    holder = bare_site.hold()
    before = bare_site.locks()
    server.process.send_signal(signal.SIGHUP)
    server.says("started again")
    wait_for(bare_site.answers, "the server")
    assert bare_site.locks() == before
    holder.process.terminate()
    holder.end()
    wait_for(lambda: bare_site.locks() == {}, "the lock to be free")


def test_the_state_is_where_it_is_said_to_be(bare_site: Site, tmp_path: Path) -> None:
    """For a user: in his state folder; where systemd says; or nowhere."""
    site = bare_site
    serve(site)
    assert (
        Path(site.environment["STATE_DIRECTORY"]) / f"lockerd-{str(site.folder)[1:].replace('/', '%2F')}%2Flockerd.db"
    ).exists()
    restart(site, "--state", str(tmp_path / "other.db"))
    assert (tmp_path / "other.db").exists()
    restart(site, "--state", "none")
    site.hold()
    restart(site, "--state", "none")
    assert site.locks() == {}
