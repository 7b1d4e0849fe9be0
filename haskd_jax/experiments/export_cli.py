"""`haskd export`: a student as one file that runs without this package, from the command line."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from haskd_jax.experiments.trained import check_writable, load_trained
from haskd_jax.guarded import guarded

# Leaves the native kernels out. Read once in a process, hence the process of its own.
_NATIVE = "HASKD_JAX_NATIVE"


def export(
    checkpoint: tyro.conf.Positional[Path],
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))],
    platforms: tuple[Literal["cpu", "cuda", "rocm", "tpu"], ...] = ("cpu", "cuda", "tpu"),
    points: int = 131_072,
) -> int:
    """Exports a student from points, colours and normals to labels, weights inside.

    Beside the file goes a .json that says what it takes: classes, voxel size, shapes. To run it
    takes `jax.export.deserialize(bytes).call(points, colour, normals, count)`; see
    docs/evaluation.md.

    Args:
        checkpoint: Folder of the training: it holds card.json and weights.
        out: The .jaxexport to write.
        platforms: Where it shall run; none of them need be here.
        points: How many points it takes at once; fewer are padded.
    """
    import json
    import logging

    logging.getLogger("haskd_jax").setLevel(logging.ERROR)  # that native kernels are left out

    from haskd_jax.files import write_text, write_whole
    from haskd_jax.train.export import export_student

    check_writable(out, ".jaxexport")
    data, about = export_student(*load_trained(checkpoint), points=points, platforms=platforms)
    beside = out.with_name(out.name + ".json")
    text = json.dumps(about, indent=1) + "\n"
    write_text(beside, text)
    write_whole(out, lambda path: path.write_bytes(data))
    print(f"written to {out} ({len(data) / 1e6:.1f} MB) and {beside}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `haskd export`.

    Args:
        arguments: After `export`; those of the command line by default.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if os.environ.get(_NATIVE) != "0":
        command = [sys.executable, "-m", "haskd_jax.experiments.export_cli", *given]
        return subprocess.call(command, env=os.environ | {_NATIVE: "0"})
    return guarded("export", lambda: tyro.cli(export, prog="haskd export", args=given))


if __name__ == "__main__":
    raise SystemExit(main())
