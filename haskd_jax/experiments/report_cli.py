"""`haskd report`: the HTML report of a run, written anew."""

import sys
from collections.abc import Sequence
from pathlib import Path

import tyro


def report(run: tyro.conf.Positional[Path], out: Path | None = None) -> int:
    """Writes the report of a run: one HTML file that needs nothing else.

    Args:
        run: The run folder that an experiment wrote.
        out: Where to; report.html in the run folder by default.

    Returns:
        0, or 2 if a file of the run is damaged or the report cannot be written.
    """
    from haskd_jax.report import write_report

    try:
        print(write_report(run, out))
    except (ValueError, OSError) as error:
        print(f"haskd report: {error}", file=sys.stderr)
        return 2
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `haskd report`.

    Args:
        arguments: The arguments after `report`; those of the command line by default.

    Returns:
        The exit code.
    """
    return tyro.cli(report, prog="haskd report", args=arguments)


if __name__ == "__main__":
    raise SystemExit(main())
