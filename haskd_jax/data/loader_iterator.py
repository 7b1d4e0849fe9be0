"""Iterating over batches with grain: made ahead of time, and resumed where they stopped."""

import sys
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from haskd_jax.data.loader_batch import Batch

if TYPE_CHECKING:
    from haskd_jax.data.loader import Loader

_VERSION = 1


def _parse_flags() -> None:
    """Grain's workers read absl flags, which only `absl.app.run` would have parsed."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


class BatchIterator(Iterator[Batch]):
    """The batches of a loader, from any step on. Made by `Loader.batches`.

    The state is the number of the next step, and what the loader was: plain values to write into a
    checkpoint as JSON. It does not depend on how far ahead batches were made, nor on the numbers of
    threads and workers, which may be others after resuming.

    Args:
        loader: What is loaded.
        threads: See `Loader.batches`.
        buffer: See `Loader.batches`.
        workers: See `Loader.batches`.

    Raises:
        ValueError: A number is negative.
    """

    def __init__(self, loader: "Loader", *, threads: int, buffer: int, workers: int):
        for name, value in (("threads", threads), ("buffer", buffer), ("workers", workers)):
            if value < 0:
                raise ValueError(f"{name}: {value}, expected 0 or more")
        self._loader, self._step = loader, 0
        self._threads, self._buffer, self._workers = threads, buffer, workers
        self._source: Any = None
        self._closed = False

    def __next__(self) -> Batch:
        """The next batch."""
        if self._closed:
            raise ValueError("the iterator is closed")
        if self._source is None:
            self._source = self._open()
        batch = next(self._source)
        self._step += 1
        return batch

    def _open(self) -> Any:
        # Imported here: `import haskd_jax.data` stays light, and grain loads JAX.
        import grain

        end = sys.maxsize if self._loader.train else len(self._loader)
        steps = grain.MapDataset.range(self._step, end).map(self._loader.batch_at)
        options = grain.ReadOptions(
            num_threads=self._threads, prefetch_buffer_size=self._buffer if self._threads else 0
        )
        batches = steps.to_iter_dataset(options)
        if self._workers:
            _parse_flags()
            batches = batches.mp_prefetch(
                grain.MultiprocessingOptions(
                    num_workers=self._workers, per_worker_buffer_size=max(self._buffer, 1)
                )
            )
        return iter(batches)

    def get_state(self) -> dict[str, Any]:
        """Where the iteration stands, as plain values."""
        return {
            "version": _VERSION,
            "step": self._step,
            "loader": self._loader.fingerprint(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on where `get_state` was called.

        Args:
            state: What it returned.

        Raises:
            ValueError: It is of another loader, whose batches were others: names what differs.
        """
        if state.get("version") != _VERSION or not isinstance(state.get("step"), int):
            raise ValueError(f"state: {dict(state)!r:.200} is not what get_state returned")
        own = self._loader.fingerprint()
        theirs = state.get("loader", {})
        differing = sorted(name for name in own | theirs if own.get(name) != theirs.get(name))
        if differing:
            raise ValueError(
                f"state: saved by a loader with another {', '.join(differing)}: its batches would "
                "not go on with the same ones"
            )
        if self._closed:
            raise ValueError("the iterator is closed")
        self._stop()
        self._step = state["step"]

    def close(self) -> None:
        """Ends threads and workers; does nothing the second time."""
        self._closed = True
        self._stop()

    def _stop(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def __enter__(self) -> "BatchIterator":
        """The iterator."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes it."""
        self.close()
