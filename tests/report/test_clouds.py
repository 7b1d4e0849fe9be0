import numpy as np
import pytest

from haskd_jax.report.clouds import from_above, from_corner, hanging, on_white

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plate(x, y, z, normal, colour, step=0.02):
    """Points of an axis-aligned plate; one of x, y, z is a number, two are ranges."""
    axes = [np.arange(*v, step) if isinstance(v, tuple) else np.array([v]) for v in (x, y, z)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)
    count = len(points)
    return points, np.tile(np.float32(normal), (count, 1)), np.tile(np.uint8(colour), (count, 1))


def room():
    """4 x 2 x 2.5 m: a red floor, blue walls, a green ceiling."""
    parts = [
        plate((0, 4), (0, 2), 0.0, (0, 0, 1), RED),
        plate((0, 4), (0, 2), 2.5, (0, 0, -1), GREEN),
        plate(0.0, (0, 2), (0, 2.5), (1, 0, 0), BLUE),
        plate(4.0, (0, 2), (0, 2.5), (-1, 0, 0), BLUE),
        plate((0, 4), 0.0, (0, 2.5), (0, 1, 0), BLUE),
        plate((0, 4), 2.0, (0, 2.5), (0, -1, 0), BLUE),
    ]
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def share(image, channel):
    """Of the opaque pixels, those in which this channel is by far the strongest."""
    opaque = image[..., 3] > 128
    rest = np.delete(image[..., :3], channel, axis=2).max(axis=2)
    return float(((image[..., channel] > 2 * rest.astype(int) + 20) & opaque).sum() / opaque.sum())


def test_the_ceiling_does_not_hide_the_floor():
    points, normals, colours = room()
    image = from_above(points, normals, width=200).draw(colours)
    assert image.shape[1] == 200 and image.shape[2] == 4 and image.dtype == np.uint8
    assert share(image, 0) > 0.85 and share(image, 1) == 0


def test_without_normals_what_is_above_head_height_goes():
    points, normals, colours = room()
    hidden = hanging(points, np.zeros_like(normals))
    assert hidden[(colours == GREEN).all(axis=1)].all()
    assert not hidden[(colours == RED).all(axis=1)].any()


def test_walls_seen_from_behind_do_not_hide_the_room():
    points, normals, colours = room()
    image = from_corner(points, normals, width=200, height=160).draw(colours)
    assert image.shape == (160, 200, 4)
    assert share(image, 0) > 0.3 and share(image, 2) > 0.2 and share(image, 1) == 0


def test_surfaces_are_closed():
    points, normals, colours = plate((0, 2), (0, 1), 0.0, (0, 0, 1), RED, step=0.05)
    alpha = from_above(points, normals, width=400).draw(colours)[..., 3]
    rows, columns = np.nonzero(alpha)
    inner = alpha[rows.min() + 4 : rows.max() - 4, columns.min() + 4 : columns.max() - 4]
    assert (inner == 255).all()


def test_what_is_nearer_is_in_front():
    low = plate((0, 2), (0, 2), 0.0, (0, 0, 1), RED)
    high = plate((0.5, 1.5), (0.5, 1.5), 0.7, (0, 0, 1), BLUE)
    for parts in ((low, high), (high, low)):
        points, normals, colours = (np.concatenate(a) for a in zip(*parts, strict=True))
        image = from_above(points, normals, width=100).draw(colours)
        middle = image[image.shape[0] // 2, 50]
        assert middle[2] > 200 and middle[0] == 0


def test_what_faces_no_corner_is_drawn_all_the_same():
    points, normals, colours = plate((0, 2), (0, 1), 0.0, (0, 0, -1), RED)
    image = from_corner(points, normals, width=100).draw(colours)
    assert share(image, 0) > 0.9


def test_a_turned_room_is_drawn_straight():
    points, normals, colours = room()
    c, s = np.cos(0.6), np.sin(0.6)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)
    image = from_above(points @ turn.T, normals @ turn.T, width=200).draw(colours)
    assert image.shape[0] == pytest.approx(100, abs=12)
    assert (image[..., 3] > 0).mean() > 0.8


def test_drawing_takes_the_colours_of_the_points():
    points, normals, colours = room()
    view = from_above(points, normals, width=100)
    assert share(view.draw(np.roll(colours, 1, axis=1)), 1) > 0.85


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("view", [from_above, from_corner])
def test_tiny_clouds(count, view):
    points = np.zeros((count, 3), np.float32)
    normals = np.tile(np.float32([0, 0, 1]), (count, 1))
    image = view(points, normals, width=40).draw(np.full((count, 3), 9, np.uint8))
    assert image[..., 3].any()


@pytest.mark.parametrize("view", [from_above, from_corner])
def test_no_points(view):
    none = np.zeros((0, 3), np.float32)
    with pytest.raises(ValueError, match="points: none"):
        view(none, none)


def test_on_white():
    image = np.array([[[10, 20, 30, 255], [0, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)
    assert on_white(image).tolist() == [[[10, 20, 30], [255, 255, 255], [204, 204, 204]]]
