"""Folders of frames: layouts, sizes, cameras."""

import shutil

import numpy as np
import pytest
from PIL import Image

from haskd_jax.data import frame_folder
from haskd_jax.data.errors import DataError
from haskd_jax.data.frame_folder import find_frames, read_frames
from haskd_jax.data.images import read_colour, sample_nearest, scale_intrinsics
from haskd_jax.data.scannet_labels import class_table
from tests.data import raw


def test_the_order_of_numbers_that_are_not_padded(tmp_path):
    raw.write_frames(tmp_path, raw.walk(12))
    assert [path.stem for path in find_frames(tmp_path).colour] == [str(i) for i in range(12)]


def test_poses_of_numbers_that_are_not_padded(tmp_path):
    poses = raw.walk(12)
    raw.write_frames(tmp_path, poses, names=[f"frame{i}" for i in range(12)])
    shutil.rmtree(tmp_path / "pose")
    np.savetxt(tmp_path / "poses.txt", poses.reshape(12, 16)[:, :12])
    found = find_frames(tmp_path)
    assert [path.stem for path in found.colour] == [f"frame{i}" for i in range(12)]
    np.testing.assert_allclose(found.poses, poses, atol=1e-9)


def test_round_trip(tmp_path):
    poses = raw.walk(3)
    raw.write_frames(tmp_path, poses, unit=512.0)
    for frame, pose in zip(
        read_frames(find_frames(tmp_path), units_per_metre=512.0), poses, strict=True
    ):
        colour, depth = raw.render(pose, raw.intrinsics((64, 48)), (64, 48))
        np.testing.assert_array_equal(frame.colour, colour)
        np.testing.assert_allclose(frame.depth / 1000, depth, atol=0.5 / 512 + 0.0006)
        np.testing.assert_allclose(frame.camera_to_world, pose, atol=1e-9)


def test_resized_frames_still_project(tmp_path):
    """A resized frame is what a camera of the scaled intrinsics sees."""
    poses = raw.walk(1)
    raw.write_frames(tmp_path, poses, size=(128, 96), depth_size=(64, 48))
    (frame,) = read_frames(find_frames(tmp_path), size=(32, 24))
    colour, depth = raw.render(poses[0], frame.intrinsics, (32, 24))
    assert np.abs(frame.colour.astype(int) - colour).mean() < 3
    # Depth is picked, not blended: from a pixel at most half a depth pixel away.
    assert np.quantile(np.abs(frame.depth / 1000 - depth), 0.95) < 0.06


def test_images_that_were_resized_after_calibration(tmp_path):
    """ScanNet's exporters shrink images and leave the intrinsics of 1296x968."""
    k = raw.intrinsics((1296, 968))
    raw.write_frames(tmp_path, raw.walk(1), size=(162, 121), k=k)
    notes = []
    (frame,) = read_frames(find_frames(tmp_path), on_note=notes.append)
    np.testing.assert_allclose(frame.intrinsics, raw.intrinsics((162, 121)), rtol=1e-9)
    (note,) = notes
    assert "of images of 1296x968, and were scaled to 162x121" in note


@pytest.mark.parametrize(
    ("size", "sensor"),
    [((160, 90), (192, 108)), ((120, 90), (128, 96)), ((128, 96), (144, 108))],
)
def test_the_sensor_that_fits_best(tmp_path, monkeypatch, size, sensor):
    """Sizes of a tenth: 1600x900 of 1920x1080, 1200x900 of 1280x960, 1280x960 of 1440x1080."""
    monkeypatch.setattr(frame_folder, "_SENSOR_SIZES", (sensor,))
    raw.write_frames(tmp_path, raw.walk(1), size=size, k=raw.intrinsics(sensor))
    (frame,) = read_frames(find_frames(tmp_path))
    np.testing.assert_allclose(frame.intrinsics, raw.intrinsics(size), rtol=1e-9)


def test_a_principal_point_off_the_middle(tmp_path):
    k = raw.intrinsics((64, 48))
    k[1, 2] += 1.6
    raw.write_frames(tmp_path, raw.walk(1), k=k)
    notes = []
    (frame,) = read_frames(find_frames(tmp_path), on_note=notes.append)
    np.testing.assert_array_equal(frame.intrinsics, k)
    assert not notes


def test_intrinsics_of_no_size_are_refused(tmp_path):
    raw.write_frames(tmp_path, raw.walk(1), k=raw.intrinsics((333, 250)))
    with pytest.raises(DataError, match="fits no image of 64x48"):
        list(read_frames(find_frames(tmp_path)))


def test_poses_in_one_file_with_a_subset(tmp_path):
    poses = raw.walk(5)
    names = ["b", "c"]
    raw.write_frames(tmp_path, poses[[3, 1]], names=names)
    for path in (tmp_path / "pose").iterdir():
        path.unlink()
    (tmp_path / "pose").rmdir()
    np.savetxt(tmp_path / "poses.txt", poses.reshape(5, 16)[:, :12])
    with pytest.raises(DataError, match=r"5 poses for 2 images; add subset\.txt"):
        find_frames(tmp_path)
    (tmp_path / "subset.txt").write_text("3 b.png\n1 c.png\n")
    np.testing.assert_allclose(find_frames(tmp_path).poses, poses[[3, 1]], atol=1e-9)
    (tmp_path / "subset.txt").write_text("3 b.png\n5 c.png\n")
    with pytest.raises(DataError, match="names pose line 5, there are 5"):
        find_frames(tmp_path)
    (tmp_path / "subset.txt").write_text("3 b.png\n")
    with pytest.raises(DataError, match=r"does not name image 'c\.png'"):
        find_frames(tmp_path)


def test_lost_poses_are_dropped(tmp_path):
    poses = raw.walk(3)
    poses[1] = np.inf
    raw.write_frames(tmp_path, poses)
    dropped = []
    frames = list(read_frames(find_frames(tmp_path), on_drop=dropped.append))
    assert [frame.name for frame in frames] == ["0", "2"]
    assert dropped == ["frame: pose is not finite"]


def label_image(folder, values):
    (folder / "label").mkdir()
    Image.fromarray(values).save(folder / "label" / "0.png")


def test_label_images(tmp_path):
    raw.write_frames(tmp_path, raw.walk(1))
    values = np.zeros((48, 64), np.uint8)
    values[:, :20], values[:, 20:40] = 39, 13
    label_image(tmp_path, values)
    (frame,) = read_frames(find_frames(tmp_path), size=(32, 24), class_of=class_table())
    assert (frame.label[:, :10] == 19).all()
    assert (frame.label[:, 10:] == -1).all()


def test_label_images_of_unknown_ids(tmp_path):
    raw.write_frames(tmp_path, raw.walk(1))
    label_image(tmp_path, np.full((48, 64), 1163, np.uint16))
    with pytest.raises(DataError, match="unknown label id 1163: expected 0 to 40"):
        list(read_frames(find_frames(tmp_path), class_of=class_table()))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: (f / "depth" / "1.png").unlink(), r"1\.png: missing"),
        (lambda f: (f / "pose" / "1.txt").unlink(), r"1\.txt: No such file"),
        (lambda f: (f / "pose" / "1.txt").write_text("1 2 3\n"), r"a matrix \(1, 3\)"),
        (lambda f: (f / "pose" / "1.txt").write_text("a b\n"), "not a matrix"),
        (lambda f: (f / "intrinsic" / "intrinsic_color.txt").unlink(), "no intrinsics"),
        (
            lambda f: np.savetxt(f / "intrinsic" / "intrinsic_color.txt", np.zeros((3, 3))),
            "no camera matrix",
        ),
        (
            lambda f: Image.new("I;16", (60, 48)).save(f / "depth" / "1.png"),
            r"1\.png: depth of size \(60, 48\), the first has \(64, 48\)",
        ),
        (
            lambda f: Image.new("RGB", (60, 48)).save(f / "color" / "1.png"),
            r"1\.png: size \(60, 48\), the first image has \(64, 48\)",
        ),
        (lambda f: Image.new("RGB", (64, 48)).save(f / "depth" / "1.png"), "one channel"),
        (lambda f: (f / "color" / "1.png").write_bytes(b""), "not a readable image"),
        (
            lambda f: (f / "color" / "1.png").write_bytes(
                (f / "color" / "1.png").read_bytes()[:900]
            ),
            "damaged image",
        ),
        (
            lambda f: [(f / "color" / f"{i}.png").unlink() for i in range(2)],
            "color: holds no images",
        ),
    ],
)
def test_spoilt_folders(tmp_path, spoil, reason):
    raw.write_frames(tmp_path, raw.walk(2))
    spoil(tmp_path)
    with pytest.raises(DataError, match=reason):
        list(read_frames(find_frames(tmp_path)))


def test_depth_of_another_shape(tmp_path):
    raw.write_frames(tmp_path, raw.walk(1), depth_size=(64, 64))
    with pytest.raises(DataError, match="not registered to colour"):
        list(read_frames(find_frames(tmp_path)))


@pytest.mark.parametrize("factor", [2, 4, 3])
def test_jpegs_are_reduced_without_a_shift(tmp_path, factor):
    """The decoder's own reduction, where it is taken, keeps pixels where the camera has them."""
    size = (240, 192)
    row, column = np.mgrid[: size[1], : size[0]]
    image = np.stack([column, row, column], axis=-1).astype(np.uint8)
    (tmp_path / "a.jpg").write_bytes(raw.encode(image, "jpeg"))
    small, native = read_colour(tmp_path / "a.jpg", (size[0] // factor, size[1] // factor))
    assert native == size
    centre = (np.arange(small.shape[1]) + 0.5) * factor - 0.5
    inner = slice(4, -4)
    error = small[inner, inner, 0].mean(axis=0) - centre[inner]
    assert abs(error.mean()) < 0.25


def test_nearest_sampling_keeps_a_point_in_its_pixel():
    rng = np.random.default_rng(0)
    image = rng.integers(1, 1000, (12, 16))
    k = raw.intrinsics((16, 12))
    np.testing.assert_array_equal(sample_nearest(image, k, k, (16, 12)), image)
    double = sample_nearest(image, k, scale_intrinsics(k, (16, 12), (32, 24)), (32, 24))
    np.testing.assert_array_equal(double, image.repeat(2, axis=0).repeat(2, axis=1))
    shifted = k + np.array([[0, 0, 3], [0, 0, 0], [0, 0, 0]])
    moved = sample_nearest(image, k, shifted, (16, 12))
    np.testing.assert_array_equal(moved[:, 3:], image[:, :-3])
    assert (moved[:, :3] == 0).all()
