"""A progress bar on the terminal, on standard error; nothing where there is no terminal.

rich is imported with the first progress that arrives: a model that is loaded already, a pipe and
a script do not pay for it.
"""

from __future__ import annotations

import sys

from .terminal import clean_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from hybridd.wire.types import Progress


class ProgressBar:
    """Draws the `Progress` that it is called with, and takes the bar away at the end.

    Args:
        title: What stands before the bar.
        shown: False draws nothing (for `--json`).
    """

    def __init__(self, title: str, *, shown: bool = True) -> None:
        self._title = clean_line(title)
        self._shown = shown and sys.stderr is not None and sys.stderr.isatty()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, progress: Progress) -> None:
        """Draw."""
        if not self._shown:
            return
        if self._bar is None:
            self._start()
        said = progress.stage or progress.message or ""
        # A stage without a total is work of unknown size: the bar pulses.
        fraction = progress.fraction if progress.total != 0 else None
        if fraction is None and progress.total:
            fraction = (progress.done or 0) / progress.total
        self._bar.update(
            self._task,
            stage=clean_line(said),
            total=None if fraction is None else 1.0,
            completed=fraction or 0.0,
        )

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed

        # markup=False: "[bold]" in a model's name is a name.
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            Elapsed(),
            TextColumn("{task.fields[stage]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(self._title, total=None, stage="")
        self._bar.start()
