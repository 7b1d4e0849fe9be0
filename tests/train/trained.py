"""A small prepared root and small networks, which tests of evaluation and of commands share."""

from pathlib import Path

import jax
import numpy as np

from haskd_jax.data.scene import Cloud, Frame
from haskd_jax.data.writer import SceneWriter
from haskd_jax.files import write_json
from haskd_jax.train.card import ModelCard, ModelConfig, TeacherConfig, write_card
from haskd_jax.train.checkpoints import save_weights
from haskd_jax.train.networks import Network, make_network

CLASSES = ("wall", "floor", "chair", "desk")
VOXEL_SIZE = 0.25
SMALL = ModelConfig(channels=(8, 16, 16, 8), blocks=(1, 1, 1, 1), stem=8, stem_kernel=3)


def cloud(seed: int, *, count: int = 900, labels: bool = True) -> Cloud:
    """Points in a flat box around x = y = 0, from z = 0, symmetric as boxes go."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-2, -1.5, 0], [2, 1.5, 0.8], (count, 3))
    points[:4] = [[-2, -1.5, 0], [2, 1.5, 0.8], [-2, 1.5, 0], [2, -1.5, 0]]
    normals = rng.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return Cloud(
        points=points.astype(np.float32),
        colour=rng.integers(0, 256, (count, 3)).astype(np.uint8),
        normals=normals.astype(np.float32),
        label=rng.integers(-1, 3, count).astype(np.int32) if labels else None,
    )


def frame(number: int, size: tuple[int, int] = (32, 24)) -> Frame:
    """A camera above the box that looks down; the depth map is flat at half its height."""
    width, height = size
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    pose[:3, 3] = [number - 1, 0, 3]
    return Frame(
        name=str(number),
        colour=np.random.default_rng(number).integers(0, 256, (height, width, 3)).astype(np.uint8),
        depth=np.full((height, width), 2600, np.uint16),
        intrinsics=np.array([[20.0, 0, width / 2], [0, 20.0, height / 2], [0, 0, 1]]),
        camera_to_world=pose,
    )


def write_scene(root: Path, name: str, scene: Cloud, *, split: str = "val", frames: int = 0):
    with SceneWriter(root, name) as writer:
        for number in range(frames):
            writer.add_frame(frame(number))
        writer.add_cloud(scene)
        writer.commit(dataset="rooms", split=split, options={})


def write_root(root: Path, classes=CLASSES) -> Path:
    """Two labelled scenes with frames, one without labels or frames."""
    root.mkdir()
    about = {"format": "haskd-dataset", "version": 1, "dataset": "rooms", "classes": list(classes)}
    write_json(root / "dataset.json", about)
    write_scene(root, "one", cloud(1), frames=3)
    write_scene(root, "two", cloud(2, count=700), frames=3)
    write_scene(root, "unlabelled", cloud(3, labels=False))
    return root


def make_student(classes=CLASSES) -> Network:
    return make_network(ModelCard("student", SMALL, "rooms", classes, VOXEL_SIZE))


def make_teacher(*, frozen_images: bool = False) -> Network:
    config = TeacherConfig(
        image_channels=(8, 8), image_blocks=1, image_features=8, pooling="mean", tolerance=0.5
    )
    card = ModelCard(
        "teacher", SMALL, "rooms", CLASSES, VOXEL_SIZE, config, frozen_images=frozen_images
    )
    return make_network(card)


def weights(network: Network, seed: int = 0):
    """Parameters and running statistics such as training might leave."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name, shape = path[-1].key, leaf.shape
        if leaf.dtype == np.int32:  # batches seen
            return np.ones(shape, np.int32)
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, shape).astype(np.float32)
        spread = 0.1 if len(shape) < 2 else (2 / np.prod(shape[:-1])) ** 0.5
        return rng.normal(scale=spread, size=shape).astype(np.float32)

    return jax.tree.map_with_path(draw, network.shapes)


def write_training(folder: Path, network: Network, seed: int = 0) -> Path:
    """The folder that a training leaves."""
    write_card(folder, network.card)
    save_weights(folder, *weights(network, seed))
    return folder
