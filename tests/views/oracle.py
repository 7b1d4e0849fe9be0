"""What the functions mean, in NumPy f64 and written for clarity; imports nothing of the package."""

from itertools import combinations

import numpy as np
from scipy.signal import convolve2d


def made_up_scene(rng, *, frames=5, voxels=300, height=12, width=16, tolerance=0.05):
    """Cameras in a cloud of points of which many, but not all, lie on the depth maps.

    Returns points, depth, intrinsics, camera_to_world (all f32) and the tolerance.
    """
    intrinsics = np.tile([[20.0, 0.3, 7.2], [0.0, 21.0, 5.9], [0.0, 0.0, 1.0]], (frames, 1, 1))
    poses = np.tile(np.eye(4), (frames, 1, 1))
    rotations, _ = np.linalg.qr(rng.normal(size=(frames, 3, 3)))
    poses[:, :3, :3] = rotations * np.sign(np.linalg.det(rotations))[:, None, None]
    poses[:, :3, 3] = rng.uniform(-2, 2, (frames, 3))
    depth = rng.uniform(1, 3, (frames, height, width))
    depth[rng.random(depth.shape) < 0.1] = 0
    depth[rng.random(depth.shape) < 0.05] = np.nan
    # Points in front of a random frame, near its depth; some beyond the image's border.
    frame = rng.integers(0, frames, voxels)
    column, row = rng.uniform(-1.5, width + 0.5, voxels), rng.uniform(-1.5, height + 0.5, voxels)
    nearest = [
        np.clip(np.rint(x).astype(int), 0, n - 1) for x, n in ((row, height), (column, width))
    ]
    z = np.nan_to_num(depth[frame, nearest[0], nearest[1]], nan=2.0) + rng.normal(
        0, tolerance, voxels
    )
    rays = (
        np.linalg.inv(intrinsics[frame]) @ np.stack([column, row, np.ones(voxels)], 1)[:, :, None]
    )
    points = poses[frame, :3, :3] @ (rays * z[:, None, None]) + poses[frame, :3, 3:]
    arrays = points[:, :, 0], depth, intrinsics, poses
    return *(array.astype(np.float32) for array in arrays), tolerance


def project(points, intrinsics, camera_to_world):
    """[V, 2] column and row, and [V] depth, by homogeneous coordinates."""
    world_to_camera = np.linalg.inv(np.asarray(camera_to_world, np.float64))
    homogeneous = np.concatenate(
        [np.asarray(points, np.float64), np.ones((len(points), 1))], axis=1
    )
    in_camera = homogeneous @ world_to_camera[:3].T
    image = in_camera @ np.asarray(intrinsics, np.float64).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return image[:, :2] / image[:, 2:], in_camera[:, 2]


def nearest_pixels(uv, z, height, width):
    """[V] row and column of the pixel whose square holds the projection, or -1; and [V] how close
    a call it was, in pixels."""
    rows, columns, margins = [], [], []
    for (u, v), depth in zip(uv, z, strict=True):
        row = [i for i in range(height) if i - 0.5 <= v < i + 0.5]
        column = [i for i in range(width) if i - 0.5 <= u < i + 0.5]
        inside = depth > 0 and row and column
        rows.append(row[0] if inside else -1)
        columns.append(column[0] if inside else -1)
        margins.append(min(abs(u % 1 - 0.5), abs(v % 1 - 0.5)))
    return np.array(rows), np.array(columns), np.array(margins)


def visibility(points, depth, intrinsics, camera_to_world, tolerance):
    """[F, V] visible, and [F, V] whether rounding to f32 cannot turn the answer."""
    visible, certain = [], []
    for frame in range(len(depth)):
        uv, z = project(points, intrinsics[frame], camera_to_world[frame])
        row, column, margin = nearest_pixels(uv, z, *depth.shape[1:])
        measured = np.where(row >= 0, depth[frame][row, column].astype(np.float64), 0.0)
        off = np.abs(measured - z)
        visible.append((measured > 0) & (off <= tolerance))
        certain.append((margin > 1e-3) & (np.abs(off - tolerance) > 1e-5))
    return np.stack(visible), np.stack(certain)


def entropy(image):
    """Bits of the grey levels' histogram over 8; u8 image."""
    levels, counts = np.unique(grey(image), return_counts=True)
    assert levels.min() >= 0 and levels.max() <= 255
    share = counts / counts.sum()
    return float(np.sum(share * np.log2(1 / share))) / 8


def grey(image):
    """BT.601 luma with weights in 256ths, rounded half up."""
    return np.floor(image.astype(np.float64) @ np.array([77, 150, 29]) / 256 + 0.5)


def laplacian_variance(image):
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    return np.var(convolve2d(grey(image), kernel, mode="valid"))


def phi(visible, frames, quality, information, rho):
    """Probabilistic coverage of a set of frames."""
    unseen = np.ones(visible.shape[1])
    for frame in frames:
        unseen = unseen * np.where(visible[frame], 1 - rho * quality[frame], 1.0)
    return float(np.sum(information * (1 - unseen)))


def best_phi(visible, num_views, quality, information, rho, where):
    """Of all sets of `num_views` frames, by trying each."""
    frames = np.flatnonzero(where)
    sets = combinations(frames, min(num_views, len(frames)))
    return max(phi(visible, chosen, quality, information, rho) for chosen in sets)
