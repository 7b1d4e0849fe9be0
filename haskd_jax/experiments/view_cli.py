"""`haskd view`: walk around in scenes, in a browser on this machine."""

import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import tyro


def view(path: tyro.conf.Positional[Path], port: int = 8080) -> int:
    """Serves scenes with truth, predictions, errors and cameras to a browser on this machine.

    Args:
        path: A run folder, a prepared root, or a PLY that haskd predict wrote.
        port: Where to serve, on 127.0.0.1 alone; the next free one if it is taken.

    Returns:
        0 once it is stopped with Ctrl-C, 2 if there is nothing to show.
    """
    from haskd_jax.report.viewer import Viewer

    try:
        viewer = Viewer(path, port=port)
    except (ValueError, OSError, ImportError) as error:
        print(f"haskd view: {error}", file=sys.stderr)
        return 2
    with viewer:
        print(f"{viewer.url}  (Ctrl-C stops)", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `haskd view`.

    Args:
        arguments: The arguments after `view`; those of the command line by default.

    Returns:
        The exit code.
    """
    return tyro.cli(view, prog="haskd view", args=arguments)


if __name__ == "__main__":
    raise SystemExit(main())
