"""The command `haskd`, which is also `python -m haskd_jax`."""

import difflib
import importlib
import sys
from collections.abc import Sequence

# name -> (module whose `main(arguments)` returns the exit code, what it does). Modules are imported
# when their command is called: `haskd --help` answers at once.
COMMANDS = {
    "prepare": ("haskd_jax.data.prepare_cli", "read raw scans into the prepared form"),
    "doctor": ("haskd_jax.data.doctor_cli", "say what is missing or wrong in a folder of scans"),
    "pretrain": ("haskd_jax.experiments.pretrain_cli", "train a teacher's image encoder by itself"),
    "train": ("haskd_jax.experiments.train_cli", "run an experiment: teacher, students, report"),
    "evaluate": ("haskd_jax.experiments.evaluate_cli", "score a trained network"),
    "predict": ("haskd_jax.experiments.predict_cli", "segment a scan that has no labels"),
    "view": ("haskd_jax.experiments.view_cli", "look at scenes and predictions in a browser"),
    "report": ("haskd_jax.experiments.report_cli", "write the report of an experiment again"),
    "export": ("haskd_jax.experiments.export_cli", "write a student that needs no more than JAX"),
    "bench": ("haskd_jax.experiments.bench", "time a training step on this machine"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names.

    Args:
      arguments: of the command line, `sys.argv[1:]` if left out.

    Returns:
      The exit code: 2 where there is no such command.

    Example:
      >>> main(["--help"])
      usage: haskd COMMAND ...
      <BLANKLINE>
        prepare   read raw scans into the prepared form
        doctor    say what is missing or wrong in a folder of scans
        pretrain  train a teacher's image encoder by itself
        train     run an experiment: teacher, students, report
        evaluate  score a trained network
        predict   segment a scan that has no labels
        view      look at scenes and predictions in a browser
        report    write the report of an experiment again
        export    write a student that needs no more than JAX
        bench     time a training step on this machine
      <BLANKLINE>
      haskd COMMAND --help tells more.
      0
    """
    given = sys.argv[1:] if arguments is None else arguments
    name, *rest = given or ["--help"]
    if name in COMMANDS:
        return importlib.import_module(COMMANDS[name][0]).main(rest)
    if name in ("-h", "--help"):
        lines = [f"  {command:10}{text}" for command, (_, text) in COMMANDS.items()]
        print("usage: haskd COMMAND ...\n", *lines, "\nhaskd COMMAND --help tells more.", sep="\n")
        return 0
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f": did you mean {near[0]}?" if near else f"; there are {', '.join(COMMANDS)}"
    print(f"haskd: no command {name!r}{hint}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
