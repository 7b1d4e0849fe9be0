"""Where a training's numbers go: metrics.jsonl, TensorBoard, the terminal, wandb by option."""

import json
import logging
import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from haskd_jax.files import write_text

METRICS = "metrics.jsonl"
_logger = logging.getLogger(__name__)


class Log:
    """Writes lines of numbers. On the first process only; elsewhere it does nothing.

    Args:
        folder: Of the training.
        step: Where the training goes on: what earlier runs logged after it is removed.
        enabled: Whether this is the first process.
        wandb: The name of a wandb project, or None.
    """

    def __init__(self, folder: Path, *, step: int, enabled: bool = True, wandb: str | None = None):
        self._file: Any = None
        if not enabled:
            return
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._wandb = None if wandb is None else _start_wandb(wandb, folder)
        path = folder / METRICS
        _keep_until(path, step)
        self._file = path.open("a", encoding="utf-8")
        # Events after `purge_step` of earlier runs are hidden by TensorBoard.
        self._events = SummaryWriter(str(folder / "events"), purge_step=step or None)

    def write(self, step: int, **values: Any) -> None:
        """One line: `step`, and values that JSON can hold; NaN becomes null."""
        if self._file is None:
            return
        line = _plain({"step": step, **values})
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        scalars = dict(_scalars(line))
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(scalars, step=step)

    def close(self) -> None:
        """Closes the files."""
        if self._file is not None:
            self._file.close()
            self._events.close()
            if self._wandb is not None:
                self._wandb.finish()
            self._file = None

    def __enter__(self) -> "Log":
        """The log."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes it."""
        self.close()


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a training's log.

    Args:
        folder: Of the training.

    Returns:
        The lines, in order; a last line that a killed process left half written is left out.

    Raises:
        ValueError: There is no log, or a line is damaged; names file and line.
    """
    path = Path(folder) / METRICS
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except OSError as error:
        raise ValueError(f"{path}: not readable ({error})") from error
    values = []
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            break
        try:
            values.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: no JSON ({error})") from error
    return values


def _keep_until(path: Path, step: int) -> None:
    """Removes lines of steps that will be done again."""
    if not path.exists():
        return
    kept = [line for line in read_log(path.parent) if line["step"] <= step]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _scalars(value: Mapping[str, Any], prefix: str = ""):
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _scalars(item, f"{prefix}{name}/")
        elif isinstance(item, int | float) and name != "step":
            yield prefix + name, item


def _start_wandb(project: str, folder: Path) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ValueError(
            f"wandb: {project!r} is asked for, but wandb is not installed: pip install wandb"
        ) from error
    path = folder / "wandb_id.txt"
    if not path.exists():
        write_text(path, uuid.uuid4().hex[:12])
    # A training that goes on goes on in the same run.
    run = path.read_text(encoding="utf-8")
    return wandb.init(project=project, name=folder.name, dir=str(folder), id=run, resume="allow")
