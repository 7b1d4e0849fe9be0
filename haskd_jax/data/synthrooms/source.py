"""SynthRooms straight into the prepared form."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haskd_jax.data.scannet import ScanNet
from haskd_jax.data.scannet_labels import CLASSES
from haskd_jax.data.synthrooms.generate import Options
from haskd_jax.data.synthrooms.scannet_layout import Job, plan_scenes, scene_names, write_scene
from haskd_jax.data.synthrooms.style import StyleName
from haskd_jax.data.writer import SceneWriter
from haskd_jax.files import PARTIAL


@dataclass(frozen=True)
class SynthRooms:
    """Furnished, scanned rooms by seed; the test rooms have labels too.

    Attributes:
        train: How many rooms to train on.
        val: How many to validate on.
        test: How many to test on.
        style: Furniture, palettes and trajectories.
        test_style: The same for the test rooms; None is `style`.
        first_test: Number of the first test room: those before it may have been looked at while
            something was chosen.
        options: Sizes of the scans.

    Raises:
        ValueError: A number or a style that cannot be.

    Example:
        >>> SynthRooms(train=1, val=1, test=1).scenes()
        {'scene0000_00': 'train', 'scene8000_00': 'val', 'scene9000_00': 'test'}
        >>> list(SynthRooms(train=0, val=0, test=2, first_test=40).scenes())
        ['scene9000_40', 'scene9000_41']
    """

    train: int = 100
    val: int = 20
    test: int = 20
    style: StyleName = "a"
    test_style: StyleName | None = None
    first_test: int = 0
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        """Checks numbers and styles."""
        self._jobs()

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return "synthrooms"

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels 0, 1, ...: ScanNet's."""
        return CLASSES

    def scenes(self) -> dict[str, str]:
        """The rooms by name, with their split."""
        return {name: job.split for name, job in self._jobs().items()}

    def recipe(self, name: str) -> dict[str, Any]:
        """All options that decide a room's prepared bytes; how many rooms there are does not."""
        return self._jobs()[name].recipe(self.options)

    def read(self, name: str, writer: SceneWriter) -> None:
        """Scans one room and reads the scan as ScanNet's reader does.

        Args:
            name: One of `scenes()`.
            writer: Where it goes.
        """
        # Beside the scene: should the process be killed, the next preparation removes it.
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=writer.root) as raw:
            scans = Path(raw) / "scans"
            scans.mkdir()
            write_scene(scans, name, self._jobs()[name], self.options)
            size = (self.options.width, self.options.height)
            ScanNet(Path(raw), frame_stride=1, frame_size=size).read(name, writer)

    def _jobs(self) -> dict[str, Job]:
        if min(self.test, self.first_test) < 0:
            raise ValueError(f"test, first_test: {self.test}, {self.first_test}: must be 0 or more")
        counts = {"train": self.train, "val": self.val, "test": self.first_test + self.test}
        passed = scene_names("test", self.first_test)
        planned = plan_scenes(counts, self.style, self.test_style)
        return {name: job for name, job in planned.items() if name not in passed}
