"""All programs of a supervisor: which there are, and whose process it is that has ended."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Callable

from ..errors import UsageError
from ..process.restart_policy import RestartPolicy
from ..process.wait import ended_children
from .managed_program import ManagedProgram, SharedResources, StopPolicy
from .program_list import Program
from .state_machine import ALLOW, FORBID, RESTART, STOP


class ProgramSet:
    """The programs that are wanted, and those that are still being ended since they were removed."""

    def __init__(
        self,
        shared: SharedResources,
        new_policy: Callable[[], RestartPolicy],
        stop_policy: StopPolicy,
        changed: Callable[[ManagedProgram], None],
        reaped: Callable[[int, int], None],
        allowed: bool = True,
    ) -> None:
        """`new_policy` makes the restart policy of one program. `allowed`: False if none may run until `allow`.

        `changed` is called with a program whose state has changed; `reaped` with the pid and the waitpid(2) status of
        each child that has ended and is no program's.
        """
        self._shared = shared
        self._new_policy = new_policy
        self._stop_policy = stop_policy
        self._changed = changed
        self._reaped = reaped
        self._allowed = allowed
        self._additions: dict[str, str] = {}
        self._programs: dict[str, ManagedProgram] = {}
        self._removed: dict[str, ManagedProgram] = {}  # those that still have processes

    def __iter__(self) -> Iterator[ManagedProgram]:
        return iter(self._programs.values())

    @property
    def are_gone(self) -> bool:
        """True if there is no process of any program."""
        return all(managed.is_gone for managed in self._all())

    def find(self, names: Iterable[str]) -> list[ManagedProgram]:
        """Return the programs of these names; all, if there are none. Raises UsageError for an unknown name."""
        names = list(names) or list(self._programs)
        unknown = [name for name in names if name not in self._programs]
        if unknown:
            raise UsageError(f"there is no program '{unknown[0]}': there are {', '.join(self._programs) or 'none'}")
        return [self._programs[name] for name in names]

    @property
    def stopped(self) -> list[str]:
        """The names of the programs that somebody has told to stop."""
        return [managed.name for managed in self if not managed.is_wanted]

    def replace(self, programs: dict[str, Program], stopped: Collection[str] = ()) -> None:
        """Replace the list of programs: start new ones, restart the others but for stopped ones, end removed ones.

        `stopped` names new ones that are not to be started.
        """
        for name in [name for name in self._programs if name not in programs]:
            managed = self._removed[name] = self._programs.pop(name)
            managed.handle(STOP)
        self._drop_ended()
        for name, program in programs.items():
            known = self._programs.get(name)
            managed = self._programs[name] = known or self._removed.pop(name, None) or self._new(program)
            managed.program = program
            # Whatever the state is: a stop may not be done yet.
            if name not in stopped and (known is None or known.is_wanted):
                managed.handle(RESTART)
        self._programs = {name: self._programs[name] for name in programs}

    def stop(self) -> None:
        """End all programs."""
        for managed in self._all():
            managed.handle(STOP)

    def kill(self) -> None:
        """Kill all processes of all programs at once."""
        for managed in self._all():
            managed.kill()

    def allow(self, additions: dict[str, str]) -> None:
        """Let the programs run, with these additions to their environment."""
        self._allowed, self._additions = True, additions
        for managed in self._all():
            managed.additions = additions
            managed.handle(ALLOW)

    def forbid(self, kill_at: float) -> None:
        """End all programs, and start none until `allow`. What is left at `kill_at` is killed (the loop's time)."""
        self._allowed = False
        for managed in self._all():
            managed.handle(FORBID, kill_at)

    def reap(self) -> None:
        """Ask for the status of each child that has ended; to be called on SIGCHLD."""
        ended = list(ended_children())
        for pid, _ in ended:  # all of them, before anybody looks for orphans
            self._shared.groups.remove(pid)
        by_pid = {managed.pid: managed for managed in self._all()}
        for pid, status in ended:
            managed = by_pid.get(pid)
            if managed is not None:
                managed.reaped(status)
            else:
                self._reaped(pid, status)
        for managed in self._all():
            managed.check_orphans()
        self._drop_ended()

    def _new(self, program: Program) -> ManagedProgram:
        managed = ManagedProgram(
            program, self._shared, self._new_policy(), self._stop_policy, self._changed, self._allowed
        )
        managed.additions = self._additions
        return managed

    def _all(self) -> list[ManagedProgram]:
        return [*self._programs.values(), *self._removed.values()]

    def _drop_ended(self) -> None:
        self._removed = {name: managed for name, managed in self._removed.items() if not managed.is_gone}
