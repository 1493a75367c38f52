"""Shows long steps: a bar on a terminal, plain lines elsewhere; never on stdout, for results."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PLAIN_SECONDS = 5.0  # at most one plain line of progress in this time


class Step(Protocol):
    """One long step that can say how far it is."""

    def advance(self, done: int, total: int) -> None:
        """`done` of `total` are finished."""


class _BarStep:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)


class _PlainStep:
    def __init__(self, what: str) -> None:
        self._what = what
        self._began = self._said = time.monotonic()
        self._first: int | None = None

    def advance(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None or done < self._first:  # a new part of the step counts from 0
            self._first, self._began = done, now
        if now - self._said >= PLAIN_SECONDS:
            self._said = now
            left = self._left(done, total, now)
            print(f"  {self._what}: {done}/{total}{left}", file=sys.stderr, flush=True)

    def _left(self, done: int, total: int, now: float) -> str:
        """The time left, at the pace until now; nothing while there is no pace."""
        assert self._first is not None
        if done <= self._first:
            return ""
        seconds = (now - self._began) / (done - self._first) * (total - done)
        return f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"


class Display:
    """Names each step, times it, and shows its progress; several may run side by side."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars: Progress | None = None  # while there are any
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, key: str, what: str) -> Iterator[Step]:
        """One step: its time is kept in `seconds[key]`, added up over steps of one key."""
        began = time.monotonic()
        try:
            if self._console.is_terminal:
                with self._bar(what) as step:
                    yield step
            else:
                print(f"{what} ...", file=sys.stderr, flush=True)
                yield _PlainStep(what)
        finally:
            took = time.monotonic() - began
            self.seconds[key] = round(self.seconds.get(key, 0.0) + took, 2)
        self.say(f"{what}: {took:.1f} s")

    def say(self, text: str) -> None:
        """One line for the person who watches."""
        self._console.print(text, markup=False, highlight=False)

    @contextmanager
    def _bar(self, what: str) -> Iterator[Step]:
        """A bar of the step's own, below those of the steps that run beside it."""
        if self._bars is None:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                       TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
            self._bars = Progress(*columns, console=self._console, transient=True)
            self._bars.start()
        bars, task = self._bars, self._bars.add_task(what, total=None)
        try:
            yield _BarStep(bars, task)
        finally:
            if len(bars.tasks) > 1:
                bars.remove_task(task)
            else:
                bars.stop()
                self._bars = None
