"""The image encoder by itself: learns, resumes to the same bits, and is where teachers begin."""

import json
import os
import re
import shutil
import signal
from dataclasses import replace

import jax
import numpy as np
import pytest

from haskd_jax.data import DataError, Frame, load_scene
from haskd_jax.data.loader import Loader
from haskd_jax.data.transforms import plain
from haskd_jax.data.writer import SceneWriter
from haskd_jax.experiments import pretrain_cli
from haskd_jax.files import write_json
from haskd_jax.models import ImageEncoderConfig
from haskd_jax.train import image_training
from haskd_jax.train.checkpoints import load_weights
from haskd_jax.train.config import ImageTrainingConfig
from haskd_jax.train.image_encoders import make_encoder, read_encoder, with_encoder
from haskd_jax.train.image_training import train_encoder
from haskd_jax.train.inputs import make_inputs
from haskd_jax.train.stopping import Stopped
from tests.train.trained import CLASSES, VOXEL_SIZE, cloud, frame, make_student, make_teacher

SCENES = ("a", "b", "c")
CONFIG = ImageTrainingConfig(
    channels=(8, 8), blocks=1, features=8, steps=60, batch_size=4, log_every=10, save_every=25
)


def striped(seed: int, size=(32, 24)) -> Frame:
    """Fine stripes are class 0, blocks are class 2; the rest of the frame has no label."""
    rng = np.random.default_rng(seed)
    width, height = size
    edge = int(rng.integers(10, width - 10))
    row, column = np.mgrid[:height, :width]
    pattern = np.where(column < edge, row % 2, (row // 4 + column // 4) % 2)
    colour = rng.integers(60, 200, 3) * (0.5 + 0.5 * pattern[..., None])
    label = np.where(column < edge, 0, 2).astype(np.int16)
    label[:4] = -1
    return replace(frame(seed % 3, size), colour=colour.astype(np.uint8), label=label)


def write_scene(root, name, frames):
    with SceneWriter(root, name) as writer:
        for one in frames:
            writer.add_frame(one)
        writer.add_cloud(cloud(1))
        writer.commit(dataset="rooms", split="train", options={})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    about = {"format": "haskd-dataset", "version": 1, "dataset": "rooms", "classes": list(CLASSES)}
    write_json(folder / "dataset.json", about)
    for number, name in enumerate(SCENES):
        write_scene(folder, name, [striped(10 * number + i) for i in range(6)])
    write_scene(folder, "unlabelled", [frame(0)])
    write_scene(folder, "wide", [striped(0, size=(40, 24))])
    return folder


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    shown = []
    found = train_encoder(
        CONFIG, root, SCENES[:2], folder, held_back=SCENES[2:],
        show=lambda step, numbers: shown.append((step, numbers["loss"])),
    )  # fmt: skip
    return folder, found, shown


def leaves(folder):
    return jax.tree.leaves(with_encoder(make_teacher(frozen_images=True), folder).init(0))


def test_it_learns(trained):
    folder, found, shown = trained
    assert [step for step, _ in shown] == [10, 20, 30, 40, 50, 60]
    assert shown[-1][1] < 0.5 * shown[0][1]
    assert found["miou"] > 0.8 and found["held_back"] == ["c"]
    assert [value is None for value in found["iou"]] == [False, True, False, True]
    assert (found["frames"], found["steps"]) == (12, 60)
    assert read_encoder(folder) == found


def test_padding_is_not_scored(root, trained):
    shape = ImageEncoderConfig(CONFIG.channels, CONFIG.blocks, CONFIG.features)
    apply, init = make_encoder(shape, len(CLASSES))
    weights = load_weights(trained[0], *jax.eval_shape(init, 0))
    frames = image_training._labelled_frames(root, SCENES[2:])
    whole, padded = (
        image_training._confusion(apply, weights, root, frames, size, len(CLASSES))
        for size in (6, 4)
    )
    labels = np.concatenate([image_training._read(root, frame)[1][2::4, 2::4] for frame in frames])
    assert whole.sum(axis=1).tolist() == [(labels == c).sum() for c in range(len(CLASSES))]
    np.testing.assert_array_equal(padded, whole)


def test_it_goes_on_to_the_same_bits(root, trained, tmp_path):
    folder, found, _ = trained
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    (again / "encoder.json").unlink()
    shutil.rmtree(again / "weights")
    shutil.rmtree(again / "checkpoints" / "50")
    assert train_encoder(CONFIG, root, SCENES[:2], again, held_back=SCENES[2:]) == found
    for one, other in zip(leaves(folder), leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_sigterm_saves_before_leaving(root, trained, tmp_path):
    folder, found, _ = trained
    out = tmp_path / "stopped"

    def stop(step, numbers):
        if step == 20:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match=r"saved after step 2\d"):
        train_encoder(CONFIG, root, SCENES[:2], out, held_back=SCENES[2:], show=stop)
    assert train_encoder(CONFIG, root, SCENES[:2], out, held_back=SCENES[2:]) == found
    for one, other in zip(leaves(folder), leaves(out), strict=True):
        np.testing.assert_array_equal(one, other)


def test_sigterm_in_the_last_step_begins_no_scoring(root, trained, tmp_path, monkeypatch):
    _, found, _ = trained
    out = tmp_path / "stopped"
    batches = image_training._batches

    def last_one_terminates(*args):
        for number, batch in enumerate(batches(*args), 1):
            if number == CONFIG.steps:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(image_training, "_batches", last_one_terminates)
    with pytest.raises(Stopped, match=f"saved after step {CONFIG.steps}"):
        train_encoder(CONFIG, root, SCENES[:2], out, held_back=SCENES[2:])
    assert not (out / "encoder.json").exists()
    assert train_encoder(CONFIG, root, SCENES[:2], out, held_back=SCENES[2:]) == found


def test_what_is_done_is_not_done_again(root, trained):
    folder, found, _ = trained
    before = (folder / "encoder.json").stat().st_mtime_ns
    assert train_encoder(CONFIG, root, SCENES[:2], folder, held_back=SCENES[2:]) == found
    assert (folder / "encoder.json").stat().st_mtime_ns == before


def test_batches_are_the_same_wherever_the_iteration_starts(root):
    frames = image_training._labelled_frames(root, (*SCENES, "unlabelled"))
    assert len(frames) == 18
    whole = list(image_training._batches(root, frames, CONFIG, 0))
    rest = list(image_training._batches(root, frames, CONFIG, 57))
    assert len(whole) == CONFIG.steps and len(rest) == 3
    for one, other in zip(whole[57:], rest, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    # 4 does not divide 18: every frame comes twice in nine batches.
    seen = [colour.tobytes() for batch, _ in whole[:9] for colour in batch]
    assert all(seen.count(one) == 2 for one in seen)
    assert seen[:18] != seen[18:]


def test_a_teacher_begins_with_it(trained):
    teacher = make_teacher(frozen_images=True)
    drawn, state = jax.jit(teacher.init)(3)
    params, running = jax.jit(with_encoder(teacher, trained[0]).init)(3)
    assert jax.tree.structure((params, running)) == jax.tree.structure((drawn, state))
    jax.tree.map(np.testing.assert_array_equal, params, drawn)
    assert "encoder" not in params and "student" in params
    one, other = running.pop("encoder"), state.pop("encoder")
    jax.tree.map(np.testing.assert_array_equal, running, state)
    assert not (one["stem"]["kernel"] == other["stem"]["kernel"]).any()
    assert one["stem"]["norm"]["batches"] == CONFIG.steps


def test_training_leaves_it_as_it_is(root, trained):
    """Gradients reach all that is trained; the encoder keeps even its running statistics."""
    network = with_encoder(make_teacher(frozen_images=True), trained[0])
    params, state = jax.jit(network.init)(0)
    loader = Loader(
        root, SCENES[:2], plain(VOXEL_SIZE), batch_size=2, levels=network.levels, views=2
    ).measured(1)
    batch = loader.batch_at(0)

    @jax.jit
    def step(params, state, batch):
        inputs = make_inputs(batch, loader.capacities[0], tolerance=network.tolerance)

        def loss(params):
            output, new = network.forward(params, state, inputs, train=True)
            assert output.image_logits is None
            return (output.logits**2).mean(), new

        gradients, new = jax.grad(loss, has_aux=True)(params)
        return gradients, new

    gradients, new = step(params, state, batch)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradients["adapters"]))
    jax.tree.map(np.testing.assert_array_equal, new["encoder"], state["encoder"])
    assert network.num_parameters == make_teacher().num_parameters
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), new["student"], state["student"])
    assert all(jax.tree.leaves(changed))


class TestBadInput:
    def test_another_training_in_the_folder(self, root, trained):
        with pytest.raises(ValueError, match="which differs in scans, scenes: give another --out"):
            train_encoder(CONFIG, root, SCENES, trained[0], held_back=SCENES[2:])
        other = replace(CONFIG, channels=(8, 16), blocks=2)
        with pytest.raises(ValueError, match="which differs in blocks, channels: give another"):
            train_encoder(other, root, SCENES[:2], trained[0], held_back=SCENES[2:])

    def test_a_training_from_before_muon(self, root, trained, tmp_path):
        config = json.loads((trained[0] / "config.json").read_text())
        assert config.pop("optimizer") == "muon"
        write_json(tmp_path / "config.json", config)
        with pytest.raises(ValueError, match="which differs in optimizer: give another --out"):
            train_encoder(CONFIG, root, SCENES[:2], tmp_path, held_back=SCENES[2:])

    def test_no_labels(self, root, tmp_path):
        with pytest.raises(DataError, match="none of 1 scenes has frames with 2D labels"):
            train_encoder(CONFIG, root, ["unlabelled"], tmp_path)
        with pytest.raises(DataError, match="none of 1 scenes has frames with 2D labels"):
            train_encoder(CONFIG, root, ["a"], tmp_path / "other", held_back=["unlabelled"])
        assert not list(tmp_path.iterdir())  # the folders are still anybody's

    def test_two_sizes(self, root, tmp_path):
        with pytest.raises(DataError, match="32 x 24 in a, 40 x 24 in wide"):
            train_encoder(CONFIG, root, ["a", "wide"], tmp_path)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"steps": 0}, "steps: 0, expected 1 or more"),
            ({"channels": (8, 0)}, "channels: 0, expected 1 or more"),
            ({"channels": ()}, "channels: none, expected one width or more"),
            ({"blocks": 0}, "blocks: 0, expected 1 or more"),
            ({"features": 0}, "features: 0, expected 1 or more"),
            ({"weight_decay": -0.1}, "weight_decay: -0.1, expected 0 or more"),
        ],
    )
    def test_ranges(self, values, message):
        with pytest.raises(ValueError, match=f"^{message}"):
            ImageTrainingConfig(**values)

    @pytest.mark.parametrize("make", [make_student, make_teacher])
    def test_a_network_that_trains_all_of_itself(self, trained, make):
        with pytest.raises(ValueError, match="whose card says frozen_images"):
            with_encoder(make(), trained[0])

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [("channels", [8], "teacher.image_channels"), ("classes", ["wall"], "classes"),
         ("version", 9, "version 9, expected 1"), ("format", "x", "not the description")],
    )  # fmt: skip
    def test_another_encoder(self, trained, tmp_path, name, value, said):
        found = json.loads((trained[0] / "encoder.json").read_text())
        write_json(tmp_path / "encoder.json", found | {name: value})
        with pytest.raises(ValueError, match=said):
            with_encoder(make_teacher(frozen_images=True), tmp_path)

    def test_no_encoder(self, tmp_path):
        with pytest.raises(DataError, match=r"encoder\.json: missing"):
            with_encoder(make_teacher(frozen_images=True), tmp_path)


class TestCommand:
    options = ("--channels", "8", "--blocks", "1", "--features", "8", "--steps", "2")

    def test_of_listed_scenes(self, root, tmp_path, capsys):
        listed = tmp_path / "list.txt"
        listed.write_text("a\nb\n")
        command = [str(root), "--out", str(tmp_path / "out"), "--scenes", str(listed),
                   "--held-back", "1", *self.options]  # fmt: skip
        assert pretrain_cli.main(command) == 0
        assert "2 steps on 6 frames; 2D mIoU on 1 scenes held back" in capsys.readouterr().out

    def test_a_loss_that_is_not_finite_is_said_and_not_saved(self, root, tmp_path, capsys):
        out = tmp_path / "out"
        command = [str(root), "--out", str(out), "--scenes", str(tmp_path / "list.txt")]
        (tmp_path / "list.txt").write_text("a\n")
        command += [*self.options[:-1], "9", "--save-every", "3", "--learning-rate", "1e30"]
        assert pretrain_cli.main(command) == 1
        error = capsys.readouterr().err
        (path,) = out.glob("*.npz")
        step = int(path.name.split(".")[0].rsplit("_", 1)[1])
        assert f"step {step}: the loss is " in error and str(path) in error
        assert "lower learning_rate (1e+30)" in error
        with np.load(path, allow_pickle=False) as saved:
            shown = [number for number, _ in re.findall(r"(\d+) of (a)\b", error)]
            frames = load_scene(root / "a").frames
            np.testing.assert_array_equal(saved["colour"], frames.colour[[int(n) for n in shown]])
            np.testing.assert_array_equal(saved["label"], frames.label[[int(n) for n in shown]])
        assert not list((out / "checkpoints").iterdir()) and not (out / "encoder.json").exists()

    def test_a_file_in_place_of_the_folder(self, root, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        command = [str(root), "--out", str(tmp_path / "file"), *self.options]
        assert pretrain_cli.main(command) == 2
        assert f"out: {tmp_path}/file is a file, expected a folder" in capsys.readouterr().err

    def test_nothing_left_to_learn_from(self, root, tmp_path, capsys):
        command = [str(root), "--out", str(tmp_path), "--held-back", "5", *self.options]
        assert pretrain_cli.main(command) == 2
        assert "held_back: 5 of 5 scenes" in capsys.readouterr().err
