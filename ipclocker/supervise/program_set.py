"""All programs that are kept alive: which there are, and whose process it is that has ended."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, Callable

from ..errors import UsageError
from ..process.restart_policy import RestartPolicy
from .managed_program import ManagedProgram, Shared, StopPolicy
from .program_list import Program
from .state_machine import STOPPED


class ProgramSet:
    """`changed` is called with a program whose state has changed; `reaped` with each other child that has ended."""

    def __init__(
        self,
        shared: Shared,
        new_policy: Callable[[], RestartPolicy],
        rules: StopPolicy,
        changed: Callable[[ManagedProgram], None],
        reaped: Callable[[int, int], None],
        allowed: bool = True,
    ) -> None:
        self._shared = shared
        self._new_policy = new_policy
        self._rules = rules
        self._changed = changed
        self._reaped = reaped
        self._allowed = allowed
        self._additions: dict[str, str] = {}
        self._programs: dict[str, ManagedProgram] = {}
        self._leaving: dict[str, ManagedProgram] = {}  # those that are ended since nobody wants them any more

    def __iter__(self) -> Iterator[ManagedProgram]:
        return iter(self._programs.values())

    @property
    def are_gone(self) -> bool:
        """Whether there is no process of any program."""
        return all(managed.is_gone for managed in self._all())

    def find(self, names: Iterable[str]) -> list[ManagedProgram]:
        """The programs of these names; all, if there are none. Raises UsageError."""
        names = list(names) or list(self._programs)
        unknown = [name for name in names if name not in self._programs]
        if unknown:
            raise UsageError(f"there is no program '{unknown[0]}': there are {', '.join(self._programs) or 'none'}")
        return [self._programs[name] for name in names]

    def describe(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """The state of each of these programs; of those that there are not any more, nothing."""
        return [self._programs[name].describe() for name in names if name in self._programs]

    def replace(self, programs: dict[str, Program]) -> None:
        """There are these programs from now on: new ones start, the others restart unless they are stopped."""
        for name in [name for name in self._programs if name not in programs]:
            managed = self._leaving[name] = self._programs.pop(name)
            managed.stop()
        self._forget_left()
        for name, program in programs.items():
            managed = self._programs.get(name) or self._leaving.pop(name, None) or self._new(program)
            is_new = name not in self._programs
            self._programs[name] = managed
            managed.program = program
            if is_new or managed.state != STOPPED:
                managed.restart()
        self._programs = {name: self._programs[name] for name in programs}

    def stop(self) -> None:
        """End them all."""
        for managed in self._all():
            managed.stop()

    def kill(self) -> None:
        """Kill them all."""
        for managed in self._all():
            managed.kill()

    def allow(self, additions: dict[str, str]) -> None:
        """They may run, with these additions to their environment."""
        self._allowed, self._additions = True, additions
        for managed in self._all():
            managed.additions = additions
            managed.allow()

    def forbid(self, kill_at: float) -> None:
        """They may not run any more, and nothing of them may live longer than until `kill_at` (the loop's time)."""
        self._allowed = False
        for managed in self._all():
            managed.forbid(kill_at)

    def reap(self) -> None:
        """Ask how children have ended, of which the kernel has said that there are some."""
        ended = _ended_children()
        for pid, _ in ended:  # all of them, before anybody looks at who is left
            self._shared.groups.ended(pid)
        by_pid = {managed.pid: managed for managed in self._all()}
        for pid, status in ended:
            managed = by_pid.get(pid)
            if managed is not None:
                managed.reaped(status)
            else:
                self._reaped(pid, status)
        for managed in self._all():
            managed.look_for_rest()
        self._forget_left()

    def _new(self, program: Program) -> ManagedProgram:
        managed = ManagedProgram(program, self._shared, self._new_policy(), self._rules, self._changed, self._allowed)
        managed.additions = self._additions
        return managed

    def _all(self) -> list[ManagedProgram]:
        return [*self._programs.values(), *self._leaving.values()]

    def _forget_left(self) -> None:
        self._leaving = {name: managed for name, managed in self._leaving.items() if not managed.is_gone}


def _ended_children() -> list[tuple[int, int]]:
    """The children of this process that have ended, and how."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, status))
