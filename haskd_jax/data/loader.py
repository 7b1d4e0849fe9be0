"""Batches of scenes for training and evaluation.

A batch is a function of the loader and a step, whatever the number of threads and workers: so a
training that resumes at step n goes on with the very batch it would have had. See
docs/augmentation.md.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int

from haskd_jax.data.few_labels import FewLabels
from haskd_jax.data.loader_batch import Batch, collate, fit, rows_of
from haskd_jax.data.loader_capacity import Capacities, choose_capacities
from haskd_jax.data.loader_iterator import BatchIterator
from haskd_jax.data.loader_scenes import open_scene, open_soft
from haskd_jax.data.prepared import frame_size
from haskd_jax.data.scene import Array, Scene
from haskd_jax.data.transforms import Recipe, Sample, augment, mix3d, sample_of, spread_views

# Keep the draws for different purposes apart.
_ORDER, _SCENE, _MIX, _CROP = range(4)


@dataclass(frozen=True)
class Loader:
    """What is loaded, and how. Iterate with `batches`.

    In training scenes come shuffled, anew every epoch, without end; scenes and augmentation at a
    place in this order are the same for any number of processes. In evaluation each scene comes
    once, in order; all processes get as many batches, the last ones perhaps without scenes.

    Attributes:
        root: The prepared root.
        scenes: Their names, see `list_scenes`.
        recipe: Augmentation and voxel size.
        batch_size: Scenes of one process's batch. Mixing needs an even number.
        capacities: Rows of every grid, in ascending sizes; see `measured`. None: not chosen yet.
        train: Shuffle, go round, mix, and crop what fits no capacity; else none of these, and what
            does not fit is an error.
        seed: Of order and augmentation.
        levels: Coarser grids whose voxels are counted: the network's downsamplings.
        few_labels: Which labels may be seen.
        views: Frames of each scene.
        groups: ((20, 2), (84, 1)): the first 20 scenes, in an order of their own, fill the first
            two places of every batch of training, the other 84 the third. None: all fill all.
        selection: Scene -> frames in order of preference, of which the first `views` are taken;
            None spreads them over the sequence, see `spread_views`.
        soft: Folders, one for each of the networks that teach, of what it said of each scene's
            points, `<scene>.npy`, [N, C] float16 log-probabilities in the order of the prepared
            points; `Batch.soft` gets them in this order.
        process: The number of this process.
        processes: How many there are.

    Raises:
        ValueError: Names the argument and the value.

    Example:
        >>> Loader("prepared", ("room",), batch_size=0)
        Traceback (most recent call last):
        ...
        ValueError: batch_size: 0, expected 1 or more
    """

    root: str | Path
    scenes: tuple[str, ...]
    recipe: Recipe = field(default_factory=Recipe)
    batch_size: int = 1
    capacities: Capacities | None = None
    train: bool = True
    seed: int = 0
    levels: int = 4
    few_labels: FewLabels = field(default_factory=FewLabels)
    views: int = 0
    groups: tuple[tuple[int, int], ...] | None = None
    selection: Mapping[str, Sequence[int]] | None = None
    soft: tuple[str | Path, ...] = ()
    process: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        """Checks the arguments; reads nothing."""
        for name, least in (
            ("batch_size", 1),
            ("seed", 0),
            ("levels", 0),
            ("views", 0),
            ("processes", 1),
            ("process", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)}, expected {least} or more")
        if self.process >= self.processes:
            raise ValueError(f"process: {self.process} of {self.processes}, counted from 0")
        if not self.scenes:
            raise ValueError("scenes: none")
        if len(set(self.scenes)) < len(self.scenes):
            twice = next(name for name in self.scenes if self.scenes.count(name) > 1)
            raise ValueError(f"scenes: {twice} is there twice")
        if isinstance(self.soft, str | Path):
            raise ValueError(f"soft: {str(self.soft)!r}, expected a tuple of folders")
        if self.groups is not None:
            scenes = sum(count for count, _ in self.groups)
            places = sum(places for _, places in self.groups)
            if (
                not self.train
                or (scenes, places) != (len(self.scenes), self.batch_size)
                or min(min(group) for group in self.groups) < 1
            ):
                raise ValueError(
                    f"groups: {self.groups} are {scenes} scenes in {places} places, expected "
                    f"{len(self.scenes)} in {self.batch_size}, 1 or more each, in training"
                )
        if self.train and self.recipe.mix > 0 and self.batch_size % 2:
            raise ValueError(
                f"batch_size: {self.batch_size} with mixing, expected an even number "
                "(scenes are mixed two and two)"
            )
        self._check_capacities()

    def _check_capacities(self) -> None:
        if self.capacities is None:
            return
        sizes = [size[0] for size in self.capacities if len(size) == self.levels + 1]
        if not sizes or len(sizes) < len(self.capacities) or sizes != sorted(set(sizes)):
            raise ValueError(
                f"capacities: {self.capacities}, expected sizes of {self.levels + 1} numbers "
                "(levels + 1) whose first ones ascend"
            )
        if min(self.capacities[-1]) < self.batch_size:
            raise ValueError(
                f"capacities: {self.capacities[-1]} is less than a voxel for each of "
                f"{self.batch_size} scenes"
            )

    def batches(self, *, threads: int = 2, buffer: int = 2, workers: int = 0) -> BatchIterator:
        """Iterates over the batches, which are made ahead of time.

        Holds at most threads + buffer batches in memory, and that for each worker process; besides,
        what the operating system caches of the scenes' files.

        Args:
            threads: That make batches; 0 makes them when they are asked for.
            buffer: Batches that may lie ready.
            workers: Processes that make batches, with so many threads and such a buffer each. Call
                from under `if __name__ == "__main__":` then.

        Returns:
            The iterator; `close` it, or use it as a context manager.

        Raises:
            ValueError: The capacities have not been chosen, or a number is negative.
        """
        if self.capacities is None:
            raise ValueError("capacities: not chosen yet: take loader.measured()")
        return BatchIterator(self, threads=threads, buffer=buffer, workers=workers)

    def __len__(self) -> int:
        """Batches of one epoch, of the longest group; a partial one counted as one."""
        return max(-(-count // (places * self.processes)) for count, places in self._groups)

    @property
    def _groups(self) -> tuple[tuple[int, int], ...]:
        return self.groups or ((len(self.scenes), self.batch_size),)

    def measure_rows(self, batches: int | None = 64) -> Int[Array, "T L"]:
        """Counts the voxels of batches, as they are before padding.

        Args:
            batches: How many; None for one epoch.

        Returns:
            [T, levels + 1] int64, finest grid first.
        """
        count = len(self) if batches is None else batches
        if count < 1 or (not self.train and count > len(self)):
            raise ValueError(f"batches: {count}, expected 1 to {len(self)} or, in training, more")
        whole = replace(self, views=0)
        return np.stack([rows_of(whole.samples_at(step)[0], self.levels) for step in range(count)])

    def measured(
        self, batches: int = 64, *, buckets: int | None = None, headroom: float = 1.1
    ) -> "Loader":
        """The same loader with capacities chosen from its own batches.

        Every process arrives at the same capacities. Keep them with the run's configuration: a
        resumed run then needs no measuring, and compiles the same shapes.

        Args:
            batches: How many training batches are measured. Of an evaluation all are, and
                `headroom` is not needed.
            buckets: Sizes at most, each of which costs a compilation of the step. None: three for
                one process; one for several, as all must take the same shape in a step.
            headroom: See `choose_capacities`.

        Returns:
            The loader, ready for `batches`.
        """
        if buckets is None:
            buckets = 3 if self.processes == 1 else 1
        if self.train:
            rows = replace(self, process=0).measure_rows(batches)
        else:
            every = [replace(self, process=process) for process in range(self.processes)]
            rows = np.concatenate([loader.measure_rows(None) for loader in every])
            headroom = 1.0
        return replace(self, capacities=choose_capacities(rows, buckets=buckets, headroom=headroom))

    def batch_at(self, step: int) -> Batch:
        """The batch of a step: the same bits whenever and wherever it is made.

        Args:
            step: 0 and up; in evaluation below `len(loader)`.

        Returns:
            The batch.

        Raises:
            ValueError: The capacities have not been chosen; a scene does not fit, by its name.
            DataError: A scene cannot be read.
        """
        if self.capacities is None:
            raise ValueError("capacities: not chosen yet: take loader.measured()")
        samples, scene = self.samples_at(step)
        rng = np.random.default_rng([self.seed, _CROP, step, self.process])
        samples, capacity, left_out = fit(samples, self.capacities, rng, crop=self.train)
        return collate(
            samples,
            capacity[0],
            scene=scene,
            views=self.batch_size * self.views,
            image_size=self.image_size,
            soft=self._soft(samples, scene),
            left_out=left_out,
        )

    def samples_at(self, step: int) -> tuple[list[Sample], list[int]]:
        """The samples of a step, augmented and mixed, and the numbers of their scenes.

        Args:
            step: As for `batch_at`.

        Returns:
            The samples, fewer than scenes where they are mixed; and [batch_size] numbers in
            `scenes`, -1 for none.
        """
        if step < 0 or (not self.train and step >= len(self)):
            raise ValueError(f"step: {step}, expected 0 to {len(self) - 1}")
        places = [
            (step * self.batch_size + i) * self.processes + self.process
            for i in range(self.batch_size)
        ]
        scene = self._scenes_at(step)
        samples = [
            self._sample(number, place, part)
            for part, (number, place) in enumerate(zip(scene, places, strict=True))
            if number >= 0
        ]
        rng = np.random.default_rng([self.seed, _MIX, step, self.process])
        if self.train and rng.random() < self.recipe.mix:
            samples = [mix3d(samples[i], samples[i + 1], rng) for i in range(0, len(samples), 2)]
        return samples, scene

    def _scenes_at(self, step: int) -> list[int]:
        """Numbers of the scenes, group by group; each group goes round on its own."""
        found: list[int] = []
        first = 0
        for group, (count, places) in enumerate(self._groups):
            for i in range(places):
                turn = (step * places + i) * self.processes + self.process
                if not self.train:
                    found.append(turn if turn < count else -1)
                    continue
                epoch, within = divmod(turn, count)
                rng = np.random.default_rng([self.seed, _ORDER, epoch, group])
                found.append(first + int(rng.permutation(count)[within]))
            first += count
        return found

    def _sample(self, number: int, place: int, part: int) -> Sample:
        rng = np.random.default_rng([self.seed, _SCENE, place])
        scene = self.few_labels.of(open_scene(self.root, self.scenes[number]))
        chosen = self._choose_views(scene, rng)
        return augment(sample_of(scene, frames=chosen, part=part), self.recipe, rng)

    def _soft(self, samples: Sequence[Sample], scene: Sequence[int]) -> dict[int, list[Array]]:
        """What each network that teaches said of the scenes, by part."""
        if not self.soft:
            return {}
        parts = sorted(
            {int(p) for sample in samples for p in np.bincount(sample.part).nonzero()[0]}
        )
        names = {part: self.scenes[scene[part]] for part in parts}
        return {
            part: [open_soft(folder, open_scene(self.root, name)) for folder in self.soft]
            for part, name in names.items()
        }

    def _choose_views(self, scene: Scene, rng: np.random.Generator) -> Sequence[int]:
        if not self.views or not len(scene.frames):
            return ()
        if self.selection is None:
            drawn = spread_views(len(scene.frames), self.views, rng if self.train else None)
            return [int(i) for i in drawn]
        if scene.name not in self.selection:
            raise ValueError(f"selection: nothing for the scene {scene.name}")
        return list(self.selection[scene.name])[: self.views]

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the frames of all scenes; (0, 0) where no frames are wanted.

        Raises:
            ValueError: They differ, or no scene has frames.
        """
        return frame_size(self.root, self.scenes) if self.views else (0, 0)

    def fingerprint(self) -> dict[str, str]:
        """What decides the batches: a short digest of each argument, by its name.

        Where the root and `soft` lie is left out, and so are the numbers of threads and workers.

        Returns:
            Plain strings.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "root"}
        values["recipe"] = self.recipe.describe()
        values["scenes"] = list(self.scenes)
        values["soft"] = len(self.soft)
        # As lists: a configuration read from JSON has these where tuples were.
        values["capacities"] = [list(map(int, size)) for size in self.capacities or ()]
        few = self.few_labels
        points = few.points
        if isinstance(points, Mapping):
            points = {name: np.asarray(points[name]).tolist() for name in sorted(points)}
        values["few_labels"] = (
            None if few.scenes is None else sorted(few.scenes),
            points,
            few.seed,
        )
        if self.selection is not None:
            values["selection"] = {
                name: [int(i) for i in self.selection[name]]
                for name in sorted(set(self.selection) & set(self.scenes))
            }
        return {name: f"{zlib.crc32(repr(value).encode()):08x}" for name, value in values.items()}
