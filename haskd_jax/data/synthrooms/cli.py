"""SynthRooms from the command line: `python -m haskd_jax.data.synthrooms.cli --root FOLDER`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from haskd_jax.data.synthrooms.generate import Options
from haskd_jax.data.synthrooms.scannet_layout import Status, write_scannet_layout
from haskd_jax.data.synthrooms.style import StyleName


def synthrooms(
    root: Path,
    options: Annotated[Options, tyro.conf.arg(name="")] = Options(),  # noqa: B008 - frozen
    train: int = 100,
    val: int = 20,
    test: int = 20,
    style: StyleName = "a",
    test_style: StyleName | None = None,
    workers: int = 2,
) -> int:
    """Writes furnished, scanned rooms in ScanNet's layout.

    Args:
        root: Where they go; a run that was stopped is taken up again.
        options: Sizes.
        train: How many rooms to train on.
        val: How many to validate on.
        test: How many to test on.
        style: Furniture, palettes and trajectories.
        test_style: The same for the test rooms, if they are to differ.
        workers: How many processes; each holds one room in memory.

    Returns:
        0 if every room is there, 2 if not.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console()
    counts: dict[Status, int] = {"done": 0, "kept": 0}
    bar = Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
    )
    with bar:
        task = bar.add_task("furnishing rooms", total=None)

        def on_scene(name: str, status: Status, total: int) -> None:
            counts[status] += 1
            bar.update(task, total=total, advance=1)

        try:
            write_scannet_layout(
                root,
                train=train,
                val=val,
                test=test,
                style=style,
                test_style=test_style,
                options=options,
                workers=workers,
                on_scene=on_scene,
            )
        except ValueError as error:
            bar.stop()
            console.print(f"[red]error[/red] {escape(str(error))}", soft_wrap=True)
            return 2
    console.print(
        f"{counts['done']} rooms written, {counts['kept']} were there already: {escape(str(root))}"
    )
    return 0


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        args: Its arguments; those of the command line by default.

    Returns:
        The exit status.
    """
    return tyro.cli(synthrooms, args=args, prog="synthrooms")


if __name__ == "__main__":
    raise SystemExit(main())
