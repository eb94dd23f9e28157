"""`ipclocker supervise` as its users run it: programs kept alive, ended with all that is theirs, asked and told."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from ..support.processes import all_gone, is_alive, processes_with, state
from ..support.waiting import wait_for
from .supervising import NOTING, Start, Supervised


class TestRestarts:
    def test_a_program_is_started_again_whenever_it_dies(self, supervise: Start) -> None:
        supervised = supervise("--program", f"web: {NOTING}")
        for count in range(1, 4):
            pid = supervised.latest("web", count)
            os.kill(pid, signal.SIGKILL)
        last = supervised.latest("web", 4)
        program = supervised.programs()["web"]
        assert (program["pid"], program["restarts"]) == (last, 3)
        assert (program["last_exit"]["code"], program["last_exit"]["signal"]) == (None, "SIGKILL")
        assert supervised.end() == 0
        assert not is_alive(last)

    def test_a_program_that_cannot_be_executed(self, supervise: Start) -> None:
        supervised = supervise("--program", "/nonexistent/program x")
        line = "cannot execute '/nonexistent/program': No such file or directory"
        wait_for(lambda: supervised.out.read_text().count(line) >= 2, "it to be tried again")
        program = supervised.programs()["program"]
        assert program["last_exit"]["code"] == 127

    def test_pauses_grow(self, supervise: Start) -> None:
        supervised = supervise("--program", 'quick: echo $$ >> "$NOTES/quick"; exit 3', "--first-pause", "0.2")
        supervised.latest("quick", 3)
        wait_for(lambda: supervised.tool.err.count("it is started again in") >= 3, "three deaths")
        pauses = [float(found) for found in re.findall(r"it is started again in ([0-9.]+) s", supervised.tool.err)]
        assert 0.1 <= pauses[0] <= 0.2 and 0.3 <= pauses[1] <= 0.4 and 0.6 <= pauses[2] <= 0.8
        program = supervised.programs()["quick"]
        assert program["last_exit"]["code"] == 3
        assert (program["state"], program["pid"], program["uptime"]) == ("BACKOFF", None, None)
        assert program["next_start"] is not None

    def test_one_is_given_up(self, supervise: Start) -> None:
        supervised = supervise("--program", f"web: {NOTING}", "--program", "bad: exit 1", "--give-up", "3/20")
        supervised.tool.says("too often, it is not started again")
        programs = supervised.programs()
        assert (programs["bad"]["state"], programs["bad"]["restarts"]) == ("FATAL", 2)
        assert programs["web"]["state"] in ("STARTING", "RUNNING")
        answer = supervised.site.run("supervise", "start", "bad", "--pid-file", supervised.pid_file)
        assert answer.returncode == 1
        assert re.fullmatch(r"bad: BACKOFF, last exit: 1, \d s ago\n", answer.stdout)

    def test_a_container_ends_when_one_is_given_up(self, supervise: Start) -> None:
        supervised = supervise(
            "--program", f"web: {NOTING}", "--program", "bad: exit 1", "--give-up", "2/20", "--fatal-exit"
        )
        web = supervised.latest("web")
        assert supervised.tool.end() == 79
        assert "the program 'bad' died too often (2/20)" in supervised.tool.err
        assert not is_alive(web)

    def test_random_kills(self, supervise: Start) -> None:
        """Whatever is killed and how often: when that ends, every program is up again."""
        import random

        seconds = float(os.environ.get("IPCLOCKER_TEST_KILLS", "6"))
        count = 200 if seconds > 20 else 60
        chance = random.Random(int.from_bytes(os.urandom(4), "big"))
        words = [word for number in range(count) for word in ("--program", f"p{number}: {NOTING}")]
        supervised = supervise(*words, "--longest-pause", "1")
        for number in range(count):
            supervised.latest(f"p{number}")
        kills = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid = chance.choice([program["pid"] for program in supervised.programs().values() if program["pid"]])
            for victim in {pid, supervised.noted(f"p{chance.randrange(count)}")[-1]}:
                if is_alive(victim):
                    os.kill(victim, signal.SIGKILL)
                    kills += 1
        assert kills > 10
        wait_for(lambda: all(each["state"] == "RUNNING" for each in supervised.programs().values()), "all to be up")
        programs = supervised.programs()
        assert len(programs) == count
        assert sum(program["restarts"] for program in programs.values()) == kills
        pids = [program["pid"] for program in programs.values()]
        assert all(map(is_alive, pids)) and len(set(pids)) == count
        assert supervised.end() == 0
        assert not any(map(is_alive, pids))


class TestTheEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_the_exit_hook(self, supervise: Start, number: signal.Signals) -> None:
        hook = 'cat "$NOTES/web" > "$NOTES/last"; kill -0 $(cat "$NOTES/last") || echo all ended'
        supervised = supervise("--program", f"web: {NOTING}", "--exit-hook", hook)
        pid = supervised.latest("web")
        assert supervised.end(number) == 0
        assert supervised.noted("last") == [pid]
        assert "exit-hook: all ended" in supervised.out.read_text()
        assert not supervised.pid_file.exists() and not supervised.pid_file.with_suffix(".sock").exists()

    def test_an_exit_hook_that_hangs_is_ended_by_a_second_signal(self, supervise: Start) -> None:
        supervised = supervise("--program", f"web: {NOTING}", "--exit-hook", 'echo $$ > "$NOTES/hook"; exec sleep 1000')
        supervised.latest("web")
        supervised.tool.process.send_signal(signal.SIGTERM)
        hook = supervised.latest("hook")
        assert supervised.end() == 0
        assert not is_alive(hook)

    def test_a_stop_signal_of_its_own(self, supervise: Start) -> None:
        polite = 'trap "" TERM; trap "echo bye; exit 5" USR2; while :; do sleep 0.05; done'
        supervised = supervise("--program", f'polite: echo $$ > "$NOTES/polite"; {polite}', "--stop-signal", "USR2")
        supervised.latest("polite")
        assert supervised.end() == 0
        assert "polite: bye" in supervised.out.read_text()
        assert "exit status 5" in supervised.tool.err

    def test_what_does_not_end_is_killed(self, supervise: Start) -> None:
        deaf = 'trap "" TERM; echo $$ > "$NOTES/deaf"; while :; do sleep 0.05; done'
        supervised = supervise("--program", f"deaf: {deaf}", "--stop-timeout", "0.5")
        pid = supervised.latest("deaf")
        assert supervised.end() == 0
        assert not is_alive(pid)
        assert "deaf: it did not end in time: SIGKILL to" in supervised.tool.err

    def test_a_stopped_program_ends_by_its_signal(self, supervise: Start) -> None:
        supervised = supervise("--program", f"web: {NOTING}", "--stop-timeout", "1000")
        pid = supervised.latest("web")
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: state(pid) == "T", "it to be stopped")
        assert supervised.end() == 0
        assert "killed by SIGTERM" in supervised.tool.err


class TestDescendants:
    """A program that has children, some of which leave its group, its session, or their parents."""

    TREE = (
        'setsid sh -c "echo \\$\\$ >> $NOTES/tree; sleep {mark} & sleep {mark}" & '  # a session of its own
        "(setsid sleep {mark} &) ; "  # and an orphan
        '(trap "" TERM HUP; exec sleep {mark}) & '  # deaf
        "sleep {mark} & echo $$ >> $NOTES/tree; exec sleep {mark}"
    )
    COUNT = 6

    def start(self, supervise: Start, mark: str, *words: str) -> tuple[Supervised, int]:
        command = self.TREE.replace("{mark}", mark)
        supervised = supervise("--program", f"tree: {command}", "--stop-timeout", "1", *words)
        wait_for(lambda: len(processes_with(f"sleep {mark}")) >= self.COUNT, "the tree")
        pid = wait_for(lambda: supervised.programs()["tree"]["pid"], "the leader")
        return supervised, pid

    def test_end_with_it(self, supervise: Start) -> None:
        supervised, _ = self.start(supervise, "77001.5")
        answer = supervised.ask("stop", "tree")
        assert answer["programs"][0]["state"] == "STOPPED"
        assert processes_with("sleep 77001.5") == []
        assert supervised.end() == 0

    def test_end_before_it_is_started_again(self, supervise: Start) -> None:
        supervised, leader = self.start(supervise, "77002.5")
        before = processes_with("sleep 77002.5")
        os.kill(leader, signal.SIGKILL)
        wait_for(lambda: supervised.programs()["tree"]["pid"] not in (None, leader), "the next leader")
        assert not any(map(is_alive, before))
        supervised.end()
        assert processes_with("sleep 77002.5") == []

    @pytest.mark.parametrize("which", ["the monitor", "the supervisor"])
    def test_end_when_it_is_killed(self, supervise: Start, which: str) -> None:
        supervised, _ = self.start(supervise, "77003.5")
        supervisor = supervised.supervisor()
        os.kill(supervised.pid if which == "the monitor" else supervisor, signal.SIGKILL)
        assert supervised.tool.end() == (-signal.SIGKILL if which == "the monitor" else 70)
        all_gone([supervisor])
        wait_for(lambda: processes_with("sleep 77003.5") == [], "the end of all")

    def test_those_that_nobody_knows_end_with_the_supervisor(self, supervise: Start) -> None:
        """Neither their session nor their environment tells whose they are."""
        supervised = supervise("--program", f"web: (env -i setsid sleep 77004.5 &) ; {NOTING}")
        supervised.latest("web")
        wait_for(lambda: processes_with("sleep 77004.5"), "the stranger")
        assert supervised.end() == 0
        assert processes_with("sleep 77004.5") == []

    def test_orphans_are_reaped(self, supervise: Start) -> None:
        orphans = "for i in 1 2 3 4 5; do (sleep 0.05 &); done; "
        supervised = supervise("--program", f"web: {orphans}{NOTING}")
        supervised.latest("web")
        supervisor = supervised.supervisor()

        def zombies() -> list[str]:
            stats = (path.read_text() for path in Path("/proc").glob("[0-9]*/stat") if path.exists())
            return [stat for stat in stats if f") Z {supervisor} " in stat]

        wait_for(lambda: not processes_with("sleep 0.05"), "the orphans' end")
        wait_for(lambda: not zombies(), "no zombie")
