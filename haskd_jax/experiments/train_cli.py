"""`haskd train`: the experiments, by name."""

import importlib
import sys
from collections.abc import Sequence

EXPERIMENTS = ("scannet", "s3dis", "synthrooms", "own")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the experiment that the first argument names.

    Args:
        arguments: After `train`; those of the command line by default.

    Returns:
        The exit code.

    Example:
        >>> main(["--help"])
        usage: haskd train {scannet,s3dis,synthrooms,own} PRESET [OPTIONS]
        <BLANKLINE>
        haskd train scannet --help tells more.
        0
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in EXPERIMENTS:
        return importlib.import_module(f"haskd_jax.experiments.{name}").main(rest)
    usage = f"usage: haskd train {{{','.join(EXPERIMENTS)}}} PRESET [OPTIONS]"
    if name in ("-h", "--help"):
        print(f"{usage}\n\nhaskd train {EXPERIMENTS[0]} --help tells more.")
        return 0
    print(f"haskd train: no experiment {name!r}\n{usage}", file=sys.stderr)
    return 2
