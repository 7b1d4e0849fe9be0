"""`haskd prepare`: raw scans to the prepared form, from the command line."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Union

import tyro

from haskd_jax.data.own import OwnScans, first_few
from haskd_jax.data.prepare import Result, Source, Summary, prepare
from haskd_jax.data.prepared import list_scenes, read_manifest
from haskd_jax.data.s3dis import S3DIS
from haskd_jax.data.scannet import ScanNet
from haskd_jax.data.synthrooms import SynthRooms
from haskd_jax.guarded import guarded

_FLAT = tyro.conf.arg(name="")


def scannet(source: Annotated[ScanNet, _FLAT], out: Path, workers: int = 2) -> int:
    """Prepares ScanNetV2, or anything in its layout.

    Args:
        source: The raw scans.
        out: Where the prepared scenes go.
        workers: How many processes; each holds one scene in memory.
    """
    return run(source, out, workers)


def s3dis(source: Annotated[S3DIS, _FLAT], out: Path, workers: int = 2) -> int:
    """Prepares S3DIS, with the images of 2D-3D-S if asked.

    Args:
        source: The raw scans.
        out: Where the prepared scenes go.
        workers: How many processes; each holds one room in memory.
    """
    return run(source, out, workers)


def synthrooms(
    source: Annotated[SynthRooms, _FLAT, tyro.conf.OmitArgPrefixes], out: Path, workers: int = 2
) -> int:
    """Makes furnished rooms, scans them and prepares the scans: no download.

    Args:
        source: How many rooms, their style, the sizes of their scans.
        out: Where the prepared scenes go.
        workers: How many processes; each holds one room in memory.
    """
    return run(source, out, workers)


def own(source: Annotated[OwnScans, _FLAT], out: Path, workers: int = 2) -> int:
    """Prepares your own scans: clouds, or folders of posed RGB-D frames.

    Args:
        source: The raw scans.
        out: Where the prepared scenes go.
        workers: How many processes; each holds one scene in memory.
    """
    code = run(source, out, workers)
    if others := source.others():
        print(f"passed over, as no scans: {others}")
    there = source.scenes()
    splits = set(there.values())
    gone = set(list_scenes(out)) - set(there)
    if left := [name for name in sorted(gone) if read_manifest(out / name)["split"] in splits]:
        print(f"of an earlier preparation, in {out} as well: {first_few(left)}")
    return code


def run(source: Source, out: Path, workers: int) -> int:
    """Prepares a source with a progress bar and prints what was left out and why.

    Args:
        source: The raw scans.
        out: Where the prepared scenes go.
        workers: How many processes.

    Returns:
        0 if every scene is there, 1 if one failed.

    Raises:
        DataError: Nothing could be tried.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console()
    bar = Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
    )
    with bar:
        task = bar.add_task(f"preparing {source.dataset}", total=None)

        def on_result(result: Result, total: int) -> None:
            bar.update(task, total=total, advance=1)
            if result.status == "failed":
                bar.console.print(f"[red]failed[/red] {escape(result.reason)}", soft_wrap=True)

        summary = prepare(source, out, workers=workers, on_result=on_result)
    for line in report(summary):
        console.print(escape(line), soft_wrap=True)
    return 1 if summary.failed else 0


def report(summary: Summary) -> list[str]:
    """A preparation in words.

    Args:
        summary: What became of all scenes.

    Returns:
        Lines of text.

    Example:
        >>> report(Summary((Result("room", "failed", "room: a.ply: missing"),)))
        ['0 scenes ready (0 of them were there already), 1 failed', '  room: a.ply: missing']
    """
    kept = sum(result.status == "kept" for result in summary.results)
    ready = len(summary.results) - len(summary.failed)
    lines = [
        f"{ready} scenes ready ({kept} of them were there already), {len(summary.failed)} failed"
    ]
    lines += [f"  {result.reason}" for result in summary.failed]
    drops = summary.drops()
    if drops:
        lines.append("left out:")
        lines += [f"  {count:>12,}  {reason}" for reason, count in sorted(drops.items())]
    notes = [note for result in summary.results for note in result.notes]
    if notes:
        lines.append("repaired or unusual:")
        lines += [f"  {note}" for note in notes]
    return lines


def main(args: Sequence[str] | None = None) -> int:
    """Runs `haskd prepare`.

    Args:
        args: The arguments after `prepare`; those of the command line by default.

    Returns:
        The exit code; 2 if nothing could be tried.
    """
    commands: dict[str, Callable[..., int]] = {
        "scannet": scannet,
        "s3dis": s3dis,
        "synthrooms": synthrooms,
        "own": own,
    }
    kinds = [
        Annotated[int, tyro.conf.subcommand(name, constructor=command)]
        for name, command in commands.items()
    ]

    # An argument rather than the whole: of a bare union tyro's errors name its own wrapper.
    def start(command: Annotated[Union[*kinds], tyro.conf.arg(name="")]) -> int:  # type: ignore
        return command

    return guarded("prepare", lambda: tyro.cli(start, prog="haskd prepare", args=args))


if __name__ == "__main__":
    raise SystemExit(main())
