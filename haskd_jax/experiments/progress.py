"""What people see while an experiment runs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def bar(
    console: Console, title: str, total: int | None
) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """A progress bar of a stage; on a console that is no terminal, a line now and then.

    Args:
        console: Where.
        title: Of the stage.
        total: Its steps, if known.

    Yields:
        A function of the steps done and of numbers to show.
    """
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        disable=not console.is_terminal,
    )
    with progress:
        task = progress.add_task(title, total=total, numbers="")
        printed = 0.0

        def show(done: int, numbers: Mapping[str, float]) -> None:
            nonlocal printed
            text = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
            progress.update(task, completed=done, numbers=text)
            last = total is not None and done >= total
            if not console.is_terminal and (last or done - printed >= (total or 1) / 10):
                printed = done
                console.print(f"{title}: {done}{f'/{total}' if total else ''}  {text}")

        yield show
