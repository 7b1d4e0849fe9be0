"""What a teacher said of a point goes with the point, through augmentation, crops and mixing."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from haskd_jax.data import DataError, load_scene
from haskd_jax.data import transforms as t
from haskd_jax.data.loader import Loader
from tests.data.rooms import write_root, write_scene

NAMES = ("hall", "attic")
# Colours are left as they are: they say which point a row is of.
MIXED = t.Recipe(
    (t.centre_shift, t.dropout, t.rotate, t.scale, t.flip, t.jitter, t.elastic),
    voxel_size=0.1,
    after=(partial(t.sphere_crop, most=500),),
    mix=1.0,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    write_root(folder)
    for seed, name in enumerate(NAMES):
        write_scene(folder, name, seed, 1500, frames=0)
        # Of point n: the colour that it has.
        colour = load_scene(folder / name).colour
        np.save(folder / f"{name}.npy", colour.astype(np.float16))
    return folder


@pytest.mark.parametrize("recipe", [t.plain(0.1), MIXED], ids=["plain", "mixed"])
def test_rows_keep_what_was_said_of_their_points(root, recipe):
    loader = Loader(root, NAMES, recipe, batch_size=2, soft=(root,)).measured(2)
    batch = loader.batch_at(0)
    colour = np.rint((batch.features[:, :3] + 1) * 127.5)
    assert batch.soft.shape == (len(batch.coords), 1, 3)
    np.testing.assert_array_equal(batch.soft[batch.mask, 0], colour[batch.mask])
    assert set(np.unique(batch.part[batch.mask])) == {0, 1}
    assert not batch.soft[~batch.mask].any()
    assert replace(loader, soft=()).batch_at(0).soft.shape == (len(batch.coords), 0, 0)


def test_evaluation_without_a_full_last_batch(root):
    loader = Loader(root, NAMES, t.plain(0.1), batch_size=3, train=False, soft=(root,)).measured()
    batch = loader.batch_at(0)
    assert batch.scene.tolist() == [0, 1, -1]
    colour = np.rint((batch.features[:, :3] + 1) * 127.5)
    np.testing.assert_array_equal(batch.soft[batch.mask, 0], colour[batch.mask])


def test_what_is_missing_or_of_another_scene_is_named(root, tmp_path):
    loader = replace(Loader(root, NAMES, t.plain(0.1), batch_size=2).measured(1), soft=(tmp_path,))
    with pytest.raises(DataError, match=r"(hall|attic)\.npy: .*No such file"):
        loader.batch_at(0)
    for name in NAMES:
        np.save(tmp_path / f"{name}.npy", np.zeros((7, 2), np.float16))
    with pytest.raises(DataError, match=r"shape \(7, 2\) for a scene of 1500 points"):
        loader.batch_at(0)


def test_several_who_teach_stay_apart_in_their_order(root, tmp_path):
    for name in NAMES:
        np.save(tmp_path / f"{name}.npy", np.load(root / f"{name}.npy")[:, ::-1])
    loader = Loader(root, NAMES, MIXED, batch_size=2, soft=(root, tmp_path, root)).measured(2)
    soft = loader.batch_at(0).soft
    assert soft.shape[1:] == (3, 3)
    assert soft[:, 0].any()
    np.testing.assert_array_equal(soft[:, 1], soft[:, 0, ::-1])
    np.testing.assert_array_equal(soft[:, 2], soft[:, 0])


@pytest.mark.usefixtures("unchecked_annotations")
def test_one_folder_is_given_as_a_tuple(root):
    with pytest.raises(ValueError, match=r"soft: '.*', expected a tuple of folders"):
        Loader(root, NAMES, soft=str(root))


def test_resuming_tells_by_how_many_something_was_said(root):
    loader = Loader(root, NAMES, t.plain(0.1))
    given = replace(loader, soft=(root,)).fingerprint()
    differing = {name for name, value in loader.fingerprint().items() if given[name] != value}
    assert differing == {"soft"}
    assert replace(loader, soft=(root / "elsewhere",)).fingerprint() == given
    assert replace(loader, soft=(root, root)).fingerprint() != given
