"""What a teacher says of the training scenes, kept in files."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.experimental import multihost_utils

from haskd_jax.data import load_scene
from haskd_jax.train.prediction import predict_scene
from haskd_jax.train.soft_labels import predict_soft_labels, to_log
from tests.train.trained import make_teacher, weights, write_root

SCENES = ("one", "two", "unlabelled")
SELECTION = {"one": (2, 0), "two": (1,)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_root(tmp_path_factory.mktemp("rooms") / "prepared")


@pytest.fixture(scope="module")
def teacher():
    network = make_teacher()
    return network, *weights(network)


@pytest.mark.filterwarnings("ignore:scene unlabelled has no frames")
def test_files_hold_what_the_teacher_predicts(root, teacher, tmp_path):
    done = []
    predict_soft_labels(
        tmp_path, *teacher, root, SCENES, tta=4, views=2, selection=SELECTION, on_scene=done.append
    )
    assert done == [1, 2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{n}.npy" for n in SCENES)
    for name in SCENES:
        expected = predict_scene(
            *teacher, load_scene(root / name), tta=4, views=2, chosen_frames=SELECTION.get(name, ())
        )
        found = np.load(tmp_path / f"{name}.npy", allow_pickle=False)
        assert found.dtype == np.float16
        np.testing.assert_allclose(np.exp(found.astype(np.float64)), expected, rtol=0.01, atol=2e-7)


def test_processes_share_the_scenes_whatever_is_there_already(root, teacher, tmp_path, monkeypatch):
    """Each takes its share of all scenes: one that starts later sees files of the others."""
    waited = []
    monkeypatch.setattr(multihost_utils, "sync_global_devices", waited.append)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    np.save(tmp_path / "unlabelled.npy", np.zeros((1, 1)))
    for process, expected in ((0, {"one", "unlabelled"}), (1, set(SCENES))):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        predict_soft_labels(tmp_path, *teacher, root, SCENES, tta=1)
        assert {path.stem for path in tmp_path.iterdir()} == expected
    assert len(waited) == 2 and len(set(waited)) == 1
    assert np.load(tmp_path / "unlabelled.npy").shape == (1, 1)  # is kept


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_logarithms_are_finite_and_near(values):
    probabilities = np.array([values], np.float32)
    found = to_log(probabilities)
    assert found.dtype == np.float16 and np.isfinite(found).all()
    back = np.exp(found.astype(np.float64))
    np.testing.assert_allclose(back, np.maximum(probabilities, np.exp(-16)), rtol=0.01)
