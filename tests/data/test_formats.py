"""PLY, PCD and NPZ: what was written is what is read, and damage is named."""

import numpy as np
import pytest

from haskd_jax.data.clouds import read_cloud
from haskd_jax.data.errors import DataError
from haskd_jax.data.pcd import read_pcd
from haskd_jax.data.ply import read_ply
from tests.data import raw

TRIANGLES = [(0, 1, 2), (2, 1, 3)]


@pytest.mark.parametrize("layout", ["ascii", "binary", "big"])
@pytest.mark.parametrize("faces", [None, TRIANGLES, [(0, 1, 2, 3), (0, 1, 2)]])
def test_ply_round_trip(tmp_path, layout, faces):
    points, side = raw.room_cloud(50)
    columns = raw.vertices(points, label=side.astype(np.int32))
    raw.write_ply(tmp_path / "a.ply", columns, faces, layout)
    ply = read_ply(tmp_path / "a.ply")
    for name, column in columns.items():
        np.testing.assert_array_equal(ply.column(name), column)
    expected = {None: [], (0, 1, 2): TRIANGLES, (0, 1, 2, 3): [(0, 1, 2), (0, 2, 3), (0, 1, 2)]}
    assert ply.faces.tolist() == [list(t) for t in expected[faces and faces[0]]]
    cloud = read_cloud(tmp_path / "a.ply")
    np.testing.assert_array_equal(cloud.points, points)
    np.testing.assert_array_equal(cloud.colour, raw.paint(points.astype(np.float64)))
    np.testing.assert_array_equal(cloud.label, side)
    assert (cloud.normals is None) == (faces is None)


@pytest.mark.parametrize("layout", ["ascii", "binary"])
@pytest.mark.parametrize("faces", [None, TRIANGLES])
@pytest.mark.parametrize("announced", [9, 11])
def test_ply_with_a_wrong_count(tmp_path, layout, faces, announced):
    path = tmp_path / "a.ply"
    raw.write_ply(path, raw.vertices(raw.room_cloud(10)[0]), faces, layout)
    path.write_bytes(path.read_bytes().replace(b"vertex 10", b"vertex %d" % announced))
    with pytest.raises(DataError, match=r"a\.ply: "):
        read_ply(path)


def test_ply_cut_short_no_ply_and_folder(tmp_path):
    path = tmp_path / "a.ply"
    raw.write_ply(path, raw.vertices(raw.room_cloud(10)[0]))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="not a whole PLY file"):
        read_ply(path)
    path.write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match="not a whole PLY file"):
        read_ply(path)
    with pytest.raises(DataError, match=r"[Dd]irectory"):
        read_ply(tmp_path)


def test_ply_face_beyond_the_vertices(tmp_path):
    raw.write_ply(tmp_path / "a.ply", raw.vertices(raw.room_cloud(3)[0]), TRIANGLES)
    with pytest.raises(DataError, match="beyond the 3"):
        read_ply(tmp_path / "a.ply")


def pcd_fields(count=200):
    points, side = raw.room_cloud(count)
    colour = raw.paint(points.astype(np.float64)).astype(np.uint32)
    packed = colour[:, 0] << 16 | colour[:, 1] << 8 | colour[:, 2]
    fields = {name: points[:, i] for i, name in enumerate("xyz")}
    return fields | {"rgb": packed.view(np.float32), "label": side.astype(np.int32)}, points, side


@pytest.mark.parametrize("layout", ["binary", "binary_compressed", "ascii"])
def test_pcd_round_trip(tmp_path, layout):
    fields, points, side = pcd_fields()
    if layout == "ascii":
        fields["rgb"] = fields["rgb"].view(np.uint32)
    raw.write_pcd(tmp_path / "a.pcd", fields, layout)
    cloud = read_cloud(tmp_path / "a.pcd")
    np.testing.assert_array_equal(cloud.points, points)
    np.testing.assert_array_equal(cloud.colour, raw.paint(points.astype(np.float64)))
    np.testing.assert_array_equal(cloud.label, side)


def test_pcd_compression_copies_over_itself(tmp_path):
    values = np.zeros(3000, np.float32)  # a match that reaches into what it writes
    raw.write_pcd(tmp_path / "a.pcd", {"x": values}, "binary_compressed")
    assert (tmp_path / "a.pcd").stat().st_size < 500
    np.testing.assert_array_equal(read_pcd(tmp_path / "a.pcd")["x"], values)


@pytest.mark.parametrize("layout", ["binary", "binary_compressed", "ascii"])
def test_pcd_cut_short(tmp_path, layout):
    path = tmp_path / "a.pcd"
    raw.write_pcd(path, pcd_fields()[0], layout)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"a\.pcd: "):
        read_pcd(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"DATA", b"DOTO"), (b"SIZE 4", b"SIZE x"), (b"binary", b"brotli"), (b"TYPE F", b"TYPE Q")],
)
def test_pcd_damaged_header(tmp_path, old, new):
    path = tmp_path / "a.pcd"
    raw.write_pcd(path, pcd_fields()[0])
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(DataError, match=r"a\.pcd: "):
        read_pcd(path)


def test_ply_with_comments_before_its_format(tmp_path):
    points, _ = raw.room_cloud(20)
    path = tmp_path / "a.ply"
    raw.write_ply(path, raw.vertices(points), None, "ascii")
    comments = b"ply\n" + b"comment made by hand\n" * 9
    path.write_bytes(path.read_bytes().replace(b"ply\n", comments, 1))
    np.testing.assert_array_equal(read_cloud(path).points, points)


@pytest.mark.parametrize("largest", [1.0, 1.0001, 1.4])
def test_fractions_that_a_filter_made_too_large(tmp_path, largest):
    colour = np.array([[0, 0.25, 0.5], [0.75, 1, largest]], np.float32)
    np.savez(tmp_path / "a.npz", xyz=np.eye(3)[:2], rgb=colour)
    np.testing.assert_array_equal(
        read_cloud(tmp_path / "a.npz").colour, [[0, 64, 128], [191, 255, 255]]
    )
    np.savez(tmp_path / "b.npz", xyz=np.eye(3)[:2], rgb=np.array([[0, 1, 1], [1.0, 0, 2]]))
    assert read_cloud(tmp_path / "b.npz").colour.max() == 2


def test_npz_round_trip_and_fractions_of_colour(tmp_path):
    points, side = raw.room_cloud(30)
    colour = raw.paint(points.astype(np.float64))
    np.savez(tmp_path / "a.npz", xyz=points * 1000, rgb=colour / 255, labels=side.astype(np.int64))
    cloud = read_cloud(tmp_path / "a.npz", metres_per_unit=0.001)
    np.testing.assert_allclose(cloud.points, points, atol=1e-6)
    np.testing.assert_array_equal(cloud.colour, colour)
    np.testing.assert_array_equal(cloud.label, side)


def test_what_other_programs_call_it(tmp_path):
    """CloudCompare's scalar fields, and a PCD with a field a colour."""
    points, side = raw.room_cloud(30)
    label = side.astype(np.float32)
    raw.write_ply(tmp_path / "a.ply", raw.vertices(points, scalar_Label=label))
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.ply").label, side)
    assert read_cloud(tmp_path / "a.ply", labels=False).label is None
    other = {"label": side.astype(np.int32), "scalar_Label": label + 1}
    raw.write_ply(tmp_path / "b.ply", raw.vertices(points, **other))
    np.testing.assert_array_equal(read_cloud(tmp_path / "b.ply").label, side)
    raw.write_ply(tmp_path / "c.ply", raw.vertices(points, Label=label, scalar_Class=label))
    with pytest.raises(DataError, match=r"c\.ply: label: Label, scalar_Class may be meant"):
        read_cloud(tmp_path / "c.ply")
    colour = raw.paint(points.astype(np.float64))
    fields = dict(zip("xyz", points.T, strict=True)) | dict(zip("rgb", colour.T, strict=True))
    raw.write_pcd(tmp_path / "a.pcd", fields | {"Segment": side.astype(np.int32)})
    cloud = read_cloud(tmp_path / "a.pcd")
    np.testing.assert_array_equal(cloud.colour, colour)
    np.testing.assert_array_equal(cloud.label, side)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"points": np.array([{"a": 1}], object)}, "without pickle"),
        ({"colour": np.zeros((3, 3))}, "no coordinates"),
        ({"points": np.zeros((0, 3))}, "empty"),
        ({"points": np.full((4, 3), np.nan)}, "empty"),
        ({"points": np.zeros((4, 2))}, "expected"),
        ({"points": np.zeros((4, 3)), "label": np.zeros(5, int)}, "5 rows of label"),
        ({"points": np.zeros((4, 3)), "label": np.full(4, 0.5)}, "not integers"),
        ({"points": np.zeros((4, 3)), "label": np.array(list("abcd"))}, "label: <U1 that are not"),
        ({"points": np.zeros((4, 3)), "label": np.full(4, np.nan)}, "float64 that are not"),
        ({"points": np.float64(3)}, r"points: shape \(\), expected"),
        ({"points": np.zeros(12)}, r"points: shape \(12,\), expected"),
        ({"points": np.zeros((4, 3)), "colour": np.uint8(3)}, "1 rows of colour"),
        ({"points": np.zeros((4, 3)), "label": np.full(4, -7)}, "below -1"),
        ({"points": np.zeros((4, 3)), "colour": np.full((4, 3), 300)}, "above 255"),
        ({"points": np.full((4, 3), 5e6)}, "subtract an offset"),
    ],
)
def test_npz_that_is_refused(tmp_path, arrays, reason):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=reason):
        read_cloud(tmp_path / "a.npz")


def test_a_cloud_of_another_kind(tmp_path):
    (tmp_path / "a.las").write_bytes(b"LASF")
    with pytest.raises(DataError, match=r"\.ply, \.pcd, \.npz"):
        read_cloud(tmp_path / "a.las")
