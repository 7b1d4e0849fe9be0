"""`haskd doctor`: what is wrong with raw or prepared data, from the command line."""

from collections.abc import Sequence
from pathlib import Path

import tyro

from haskd_jax.data.doctor import examine
from haskd_jax.guarded import guarded
from haskd_jax.ranges import at_least


def doctor(path: tyro.conf.Positional[Path], samples: int = 3) -> int:
    """Says what is missing, corrupt or misaligned in raw or prepared data, and what to do.

    Args:
        path: A prepared root or scene, a root of ScanNet or S3DIS, a `.sens` file, a cloud, or a
            folder of posed frames.
        samples: How many raw scenes are read whole.

    Returns:
        1 if there is a problem.
    """
    from rich.console import Console
    from rich.markup import escape

    at_least("samples", samples, 0)
    console = Console()
    colours = {"good": "green", "note": "yellow", "problem": "red"}
    problems = 0
    for finding in examine(path, samples=samples):
        problems += finding.level == "problem"
        head = f"[{colours[finding.level]}]{finding.level:>7}[/]  {escape(finding.where)}: "
        console.print(head + escape(finding.what), soft_wrap=True)
        if finding.advice:
            console.print(f"         -> {escape(finding.advice)}", soft_wrap=True)
    console.print("no problem found" if not problems else f"{problems} problems")
    return 1 if problems else 0


def main(args: Sequence[str] | None = None) -> int:
    """Runs `haskd doctor`.

    Args:
        args: The arguments after `doctor`; those of the command line by default.

    Returns:
        The exit code.
    """
    return guarded("doctor", lambda: tyro.cli(doctor, prog="haskd doctor", args=args))


if __name__ == "__main__":
    raise SystemExit(main())
