"""A supervisor of the built file and its programs, seen from outside."""

from __future__ import annotations

import json
import signal
from typing import Any, Callable

from ..support.site import Site, Tool
from ..support.waiting import wait_for

# Programs that write their number down, in a folder that is named in the environment, and go on.
NOTING = 'echo $$ >> "$NOTES/$IPCLOCKER_PROGRAM"; exec sleep 1000'


class Supervised:
    """A supervisor in the foreground, in a site's folder."""

    def __init__(self, site: Site, *words: str, name: str = "sup", **more: Any) -> None:
        self.site = site
        self.folder = site.folder
        self.notes = site.folder / f"{name}.notes"
        self.notes.mkdir(exist_ok=True)
        self.pid_file = site.folder / f"{name}.pid"
        self.out = site.folder / f"{name}.out"
        environment = {**site.environment, "NOTES": str(self.notes), **more.pop("env", {})}
        with self.out.open("a") as out:
            self.tool: Tool = site.start(
                "supervise", "--nofork", "--pid-file", self.pid_file, *words, env=environment, stdout=out, **more
            )

    @property
    def pid(self) -> int:
        """The process that was started, which is the monitor of the server."""
        return self.tool.pid

    def ask(self, word: str, *names: str) -> Any:
        """`supervise WORD`, its answer from --json."""
        self.tool.says("keeping alive ")
        done = self.site.run("supervise", word, *names, "--json", "--pid-file", self.pid_file)
        assert done.stderr == "", done.stderr
        return json.loads(done.stdout)

    def supervisor(self) -> int:
        """The process of the supervisor itself."""
        return int(self.ask("status")["supervisor"]["pid"])

    def programs(self) -> dict[str, Any]:
        """The state of each program, by name, as `status --json` has it."""
        return {program["name"]: program for program in self.ask("status")["programs"]}

    def noted(self, program: str) -> list[int]:
        """The processes that a program has had so far."""
        path = self.notes / program
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def latest(self, program: str, count: int = 1) -> int:
        """Wait until a program was started so often; its process."""
        wait_for(lambda: len(self.noted(program)) >= count, f"{program} to be started {count} times")
        return self.noted(program)[-1]

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal; its exit code."""
        self.tool.process.send_signal(number)
        return self.tool.end()


Start = Callable[..., Supervised]
