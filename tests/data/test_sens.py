"""`.sens` recordings: what went in comes out, and damage is named."""

import re

import numpy as np
import pytest

from haskd_jax.data.errors import DataError
from haskd_jax.data.sens import read_header, read_sens, records
from tests.data import raw

HALF = (32, 24)  # at which the frames' camera is the fixture's depth camera


@pytest.mark.parametrize("depth_kind", [0, 1])
@pytest.mark.parametrize("colour_kind", [0, 1, 2])
def test_round_trip(tmp_path, colour_kind, depth_kind):
    poses = raw.walk(4)
    colours, depths = raw.write_sens(
        tmp_path / "a.sens", poses, colour_kind=colour_kind, depth_kind=depth_kind
    )
    frames = list(read_sens(tmp_path / "a.sens"))
    assert [frame.name for frame in frames] == ["000000", "000001", "000002", "000003"]
    for frame, pose, colour in zip(frames, poses, colours, strict=True):
        np.testing.assert_allclose(frame.camera_to_world, pose, atol=1e-6)
        np.testing.assert_allclose(frame.intrinsics, raw.intrinsics((64, 48)), atol=1e-4)
        if colour_kind == 2:  # JPEG loses a little
            assert np.abs(frame.colour.astype(int) - colour).mean() < 2
        else:
            np.testing.assert_array_equal(frame.colour, colour)
    for frame, depth in zip(read_sens(tmp_path / "a.sens", size=HALF), depths, strict=True):
        np.testing.assert_array_equal(frame.depth, depth)
        np.testing.assert_allclose(frame.intrinsics, raw.intrinsics(HALF), atol=1e-4)


def test_depth_lands_in_the_pixels_of_the_colour_image(tmp_path):
    poses = raw.walk(1)
    raw.write_sens(tmp_path / "a.sens", poses, depth_size=(48, 40))
    (frame,) = read_sens(tmp_path / "a.sens", size=(40, 30))
    _, depth = raw.render(poses[0], frame.intrinsics, (40, 30))
    known = frame.depth > 0
    assert known.mean() > 0.9
    assert np.quantile(np.abs(frame.depth / 1000 - depth)[known], 0.95) < 0.05


def test_stride_and_lost_poses(tmp_path):
    poses = raw.walk(7)
    poses[2] = -np.inf
    poses[4, :3, :3] *= 2
    raw.write_sens(tmp_path / "a.sens", poses)
    dropped = []
    frames = list(read_sens(tmp_path / "a.sens", stride=2, on_drop=dropped.append))
    assert [frame.name for frame in frames] == ["000000", "000006"]
    assert dropped == ["frame: pose is not finite", "frame: pose is not a rotation and a shift"]


def test_frames_without_payload_are_dropped(tmp_path):
    path = tmp_path / "a.sens"
    raw.write_sens(path, raw.walk(2))
    with path.open("rb") as stream:
        first, _ = records(stream, read_header(stream, path), path)
    data = bytearray(path.read_bytes())
    begin, size = first.colour
    data[begin - 16 : begin - 8] = (0).to_bytes(8, "little")
    del data[begin : begin + size]
    path.write_bytes(data)
    dropped = []
    assert len(list(read_sens(path, on_drop=dropped.append))) == 1
    assert dropped == ["frame: no colour image"]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.9, 0.99])
def test_truncated(tmp_path, share):
    path = tmp_path / "a.sens"
    raw.write_sens(path, raw.walk(5))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"a\.sens: ends inside (frame \d of 5|the header)"):
        list(read_sens(path, stride=100))


def test_more_frames_announced_than_there_are(tmp_path):
    raw.write_sens(tmp_path / "a.sens", raw.walk(2), announced=10**12)
    with pytest.raises(DataError, match="ends inside frame 2 of 1000000000000"):
        list(read_sens(tmp_path / "a.sens"))


def header_of(path):
    with path.open("rb") as stream:
        return read_header(stream, path)


def test_depth_of_another_size(tmp_path):
    path = tmp_path / "a.sens"
    raw.write_sens(path, raw.walk(1), depth_size=(32, 24))
    place = header_of(path).first_frame - 8 - 4 - 16
    data = bytearray(path.read_bytes())
    data[place : place + 16] = np.array([64, 48, 32, 25], "<u4").tobytes()
    path.write_bytes(data)
    with pytest.raises(DataError, match="frame 0: depth of another size: 1536 bytes"):
        list(read_sens(path))
    data[place : place + 16] = np.array([65, 48, 32, 24], "<u4").tobytes()
    path.write_bytes(data)
    with pytest.raises(DataError, match=re.escape("colour of size (64, 48), the header says")):
        list(read_sens(path))


def test_depth_of_another_shape_cannot_be_registered(tmp_path):
    path = tmp_path / "a.sens"
    raw.write_sens(path, raw.walk(1), depth_size=(32, 32))
    place = 4 + 8 + 9 + 2 * 64 + 8  # the depth camera's centre
    data = bytearray(path.read_bytes())
    data[place : place + 4] = np.array([300], "<f4").tobytes()
    path.write_bytes(data)
    with pytest.raises(DataError, match="not registered"):
        list(read_sens(path))


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (0, b"\x03", "version 3"),
        (4, b"\xff\xff\xff", "sensor name"),
        (4 + 8 + 9 + 256, b"\x07", "colour compression 7"),
        (4 + 8 + 9 + 260, b"\x02", "depth compression 2"),
        (4 + 8 + 9 + 264, b"\0\0\0\0", "above 0"),
        (4 + 8 + 9 + 264, b"\xff\xff\xff\xff", "16384"),
        (4 + 8 + 9 + 280, b"\0\0\xc0\x7f", "above 0"),
    ],
)
def test_damaged_header(tmp_path, offset, value, reason):
    path = tmp_path / "a.sens"
    raw.write_sens(path, raw.walk(1))
    data = bytearray(path.read_bytes())
    data[offset : offset + len(value)] = value
    path.write_bytes(data)
    with pytest.raises(DataError, match=reason):
        list(read_sens(path))


@pytest.mark.parametrize("part", ["colour", "depth"])
def test_damaged_payload(tmp_path, part):
    path = tmp_path / "a.sens"
    raw.write_sens(path, raw.walk(1))
    with path.open("rb") as stream:
        (record,) = records(stream, read_header(stream, path), path)
    begin, size = getattr(record, part)
    data = bytearray(path.read_bytes())
    data[begin : begin + size] = b"\x55" * size
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.sens frame 0: (not a readable|damaged)"):
        list(read_sens(path))


def test_a_payload_that_inflates_without_end_stays_small(tmp_path):
    path = tmp_path / "a.sens"
    raw.write_sens(path, raw.walk(1))
    with path.open("rb") as stream:
        (record,) = records(stream, read_header(stream, path), path)
    bomb = raw.zlib.compress(bytes(50_000_000))
    data = path.read_bytes()
    begin, size = record.depth
    head = bytearray(data[:begin])
    head[record.colour[0] - 8 : record.colour[0]] = len(bomb).to_bytes(8, "little")
    path.write_bytes(bytes(head) + bomb + data[begin + size :])
    with pytest.raises(DataError, match="1537 bytes"):
        list(read_sens(path))


def test_foreign_extrinsics_are_told(tmp_path):
    turned = np.eye(4)
    turned[0, 3] = 0.05
    raw.write_sens(tmp_path / "a.sens", raw.walk(1), extrinsic=turned)
    notes = []
    assert len(list(read_sens(tmp_path / "a.sens", on_note=notes.append))) == 1
    assert notes == ["a.sens: extrinsics are not the identity, and not applied"]


def test_a_folder(tmp_path):
    (tmp_path / "a.sens").mkdir()
    with pytest.raises(DataError, match="directory"):
        list(read_sens(tmp_path / "a.sens"))
