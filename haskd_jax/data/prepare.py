"""Raw scans to prepared scenes: in parallel, resumable, one failure never stopping the others."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from haskd_jax.data.errors import DataError
from haskd_jax.data.prepared import VERSION, load_scene, read_dataset
from haskd_jax.data.workers import locked, pool
from haskd_jax.data.writer import SceneWriter
from haskd_jax.files import PARTIAL, write_json


@runtime_checkable
class Source(Protocol):
    """A reader of raw scans. Its instances are pickled to the worker processes."""

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels 0, 1, ..."""
        ...

    def scenes(self) -> Mapping[str, str]:
        """The scenes that are there, by name, with their split."""
        ...

    def recipe(self, name: str) -> Mapping[str, Any]:
        """All options that decide a scene's prepared bytes, as JSON values."""
        ...

    def read(self, name: str, writer: SceneWriter) -> None:
        """Reads one scene into the writer; the caller commits it."""
        ...


@dataclass(frozen=True)
class Result:
    """What became of one scene.

    Attributes:
        scene: Its name.
        status: "done"; "kept", if it was there already with the same options; or "failed".
        reason: Why it failed: file and reason.
        counts: Points, frames and so on, from the manifest.
        drops: What was left out and how often, by reason.
        notes: Repairs and oddities, in words.
    """

    scene: str
    status: Literal["done", "kept", "failed"]
    reason: str = ""
    counts: Mapping[str, int] | None = None
    drops: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What became of all scenes.

    Attributes:
        results: One a scene, sorted by name.
    """

    results: tuple[Result, ...]

    @property
    def failed(self) -> tuple[Result, ...]:
        """The scenes that failed."""
        return tuple(result for result in self.results if result.status == "failed")

    def drops(self) -> Counter[str]:
        """What was left out over all scenes, by reason."""
        total: Counter[str] = Counter()
        for result in self.results:
            total.update(result.drops or {})
        return total

    def as_json(self) -> dict[str, Any]:
        """The summary as JSON values; how often scenes were kept plays no part in it."""
        counts: Counter[str] = Counter()
        for result in self.results:
            counts.update(result.counts or {})
        return {
            "scenes": len(self.results) - len(self.failed),
            "failed": {result.scene: result.reason for result in self.failed},
            "counts": dict(counts),
            "drops": dict(self.drops()),
            "notes": {result.scene: list(result.notes) for result in self.results if result.notes},
        }


def prepare(
    source: Source,
    out: str | Path,
    *,
    workers: int = 1,
    on_result: Callable[[Result, int], None] = lambda result, total: None,
) -> Summary:
    """Prepares every scene of a source that is not there already.

    A killed run leaves whole scenes only; started again, it does the rest, and ends with the same
    bytes. Scenes whose manifest has other options are redone.

    Args:
        source: The raw scans.
        out: The prepared root; made if missing.
        workers: How many processes read scenes; each holds one scene at a time. With 1, this
            process does.
        on_result: Called after each scene with its result and the number of scenes.

    Returns:
        What became of each; also written to `<out>/prepare.json`.

    Raises:
        DataError: The source holds no scenes, `out` holds another dataset, or another process
            is preparing there.
        ValueError: `workers` is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers: {workers}, must be 1 or more")
    out = Path(out)
    splits = dict(source.scenes())
    if not splits:
        raise DataError(out, "nothing to prepare: the source holds no scenes")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(out, f"cannot be made ({error.strerror})") from error
    with locked(out):
        for leftover in out.glob(f"{PARTIAL}*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        _claim(out, source)
        results: list[Result] = []
        for result in _run(source, out, splits, workers):
            results.append(result)
            on_result(result, len(splits))
        summary = Summary(tuple(sorted(results, key=lambda result: result.scene)))
        write_json(out / "prepare.json", summary.as_json())
    return summary


def prepare_scene(
    source: Source, out: Path, name: str, split: str, *, check_labels: bool = True
) -> Result:
    """Prepares one scene, unless it is there already; never raises for bad data.

    Args:
        source: The raw scans.
        out: The prepared root.
        name: The scene.
        split: The part of the dataset it belongs to.
        check_labels: Whether labels must be below the number of the source's classes.

    Returns:
        What became of it.
    """
    kept = _kept(source, out, name, split)
    if kept is not None:
        return _result(name, "kept", kept)
    try:
        with SceneWriter(out, name) as writer:
            source.read(name, writer)
            if check_labels:
                _check_labels(writer.largest_label, source.classes)
            manifest = writer.commit(
                dataset=source.dataset, split=split, options=source.recipe(name)
            )
    except DataError as error:
        return Result(name, "failed", f"{name}: {error}")
    except OSError as error:
        file = error.filename or out / name
        return Result(name, "failed", f"{name}: {file}: {error.strerror or error}")
    except MemoryError:
        return Result(name, "failed", f"{name}: out of memory: use fewer workers")
    except ValueError as error:
        return Result(name, "failed", f"{name}: {error}")
    except Exception as error:  # one scene that nobody foresaw must not end a night's work
        kind = type(error).__name__
        return Result(name, "failed", f"{name}: unexpected {kind}: {error}; please report it")
    return _result(name, "done", manifest)


def _result(name: str, status: Literal["done", "kept"], manifest: Mapping[str, Any]) -> Result:
    return Result(
        name,
        status,
        counts=manifest["counts"],
        drops=manifest["drops"],
        notes=tuple(manifest["notes"]),
    )


def _kept(source: Source, out: Path, name: str, split: str) -> Mapping[str, Any] | None:
    try:
        manifest = load_scene(out / name).manifest
    except DataError:
        return None
    wanted = {"dataset": source.dataset, "split": split, "options": _plain(source.recipe(name))}
    return manifest if all(manifest[key] == value for key, value in wanted.items()) else None


def _check_labels(largest: int, classes: Sequence[str]) -> None:
    if largest >= len(classes) > 0:
        raise ValueError(
            f"unknown label id {largest}: there are {len(classes)} classes, which count from 0"
        )
    if largest >= 0 and not classes:
        raise ValueError(
            "has labels, and no classes are named: name them (--classes), or leave the labels out "
            "(--no-labels)"
        )


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _claim(out: Path, source: Source) -> None:
    value = {
        "format": "haskd-dataset",
        "version": VERSION,
        "dataset": source.dataset,
        "classes": list(source.classes),
    }
    path = out / "dataset.json"
    if path.exists():
        found = read_dataset(out)
        if found != value:
            if found["dataset"] != source.dataset:
                holds = f"holds {found['dataset']}, not {source.dataset}"
            else:
                there = ", ".join(found["classes"]) or "none"
                asked = ", ".join(source.classes) or "none"
                holds = f"holds {found['dataset']} with the classes {there}, not {asked}"
            raise DataError(path, f"{holds}: choose another folder, or remove this one")
        return
    write_json(path, value)


def _run(source: Source, out: Path, splits: Mapping[str, str], workers: int) -> Iterator[Result]:
    if workers == 1:
        for name, split in splits.items():
            yield prepare_scene(source, out, name, split)
        return
    left = dict(splits)
    try:
        with pool(min(workers, len(left))) as processes:
            jobs = [processes.submit(prepare_scene, source, out, *item) for item in splits.items()]
            for job in as_completed(jobs):
                result = job.result()
                del left[result.scene]
                yield result
    except BrokenProcessPool:
        # A worker was killed, most likely for its memory, and the pool with it. What is left is
        # done one scene and one process at a time, so that only the guilty scene fails.
        for name, split in left.items():
            yield _alone(source, out, name, split)


def _alone(source: Source, out: Path, name: str, split: str) -> Result:
    try:
        with pool(1) as processes:
            return processes.submit(prepare_scene, source, out, name, split).result()
    except BrokenProcessPool:
        return Result(
            name, "failed", f"{name}: its process was killed (out of memory?), even when alone"
        )
