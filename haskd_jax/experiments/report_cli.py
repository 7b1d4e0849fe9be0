"""`haskd report`: the HTML report of a run, written anew."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from haskd_jax.guarded import guarded


def report(
    run: tyro.conf.Positional[Path],
    out: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None,
) -> int:
    """Writes the report of a run or a sweep: one HTML file that needs nothing else.

    Args:
        run: The folder that an experiment wrote.
        out: The file to write; report.html in the run folder by default.
    """
    from haskd_jax.report import write_report

    if out is not None and out.is_dir():
        raise ValueError(f"out: {out} is a folder, expected a file")
    print(write_report(run, out))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `haskd report`.

    Args:
        arguments: The arguments after `report`; those of the command line by default.

    Returns:
        The exit code; 2 if a file of the run is damaged or the report cannot be written.
    """
    return guarded("report", lambda: tyro.cli(report, prog="haskd report", args=arguments))


if __name__ == "__main__":
    raise SystemExit(main())
