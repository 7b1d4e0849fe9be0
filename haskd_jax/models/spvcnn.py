"""Point-voxel students: a point branch beside the voxels' U-Net."""

import itertools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int32

from haskd_jax import sparse
from haskd_jax.models.layers import Head, LinearNorm
from haskd_jax.models.minkunet import MinkUNetConfig, UNet
from haskd_jax.sparse import Pyramid, VoxelGrid


class PointTransform(nnx.Module):
    """Linear map, norm, ReLU of every point."""

    def __init__(self, in_features: int, out_features: int, *, axis_name, rngs: nnx.Rngs):
        """Takes the arguments of `Linear` and of `BatchNorm`."""
        self.linear = LinearNorm(in_features, out_features, axis_name=axis_name, rngs=rngs)

    def __call__(self, z: Float[Array, "N C"], mask: Bool[Array, " N"]) -> Float[Array, "N D"]:
        """`mask` is of the points."""
        return jax.nn.relu(self.linear(z, mask))


class SPVCNN(nnx.Module):
    """A U-Net of sparse convolutions with a point branch. Follows the `Student` protocol.

    The point branch keeps full resolution: it never passes a strided convolution. At the
    bottleneck, half the way up and at the end, each point adds what the voxels around it say
    (trilinear) to a transform of its own features, and the voxels go on from the mean of their
    points. So thin things survive coarse grids.

    What the points are: the finest voxels, at their centres, or true points by keyword. Either way
    features and logits are of voxels, as the protocol says.

    Attributes:
      config: shape of the U-Net.
      num_features: F, width of the penultimate features.
      extra_features: for each level that takes extras, their width.

    Example:
      >>> from haskd_jax.models import MinkUNetConfig
      >>> config = MinkUNetConfig((8, 16, 8, 8), (1, 1, 1, 1), stem=8, stem_kernel=3)
      >>> student = SPVCNN(config, in_channels=3, num_classes=5, rngs=nnx.Rngs(0))
      >>> points = jax.random.uniform(jax.random.key(0), (50, 3), jnp.float32)
      >>> grid, row = sparse.voxelize(points, voxel_size=0.1, capacity=64)
      >>> maps, x = sparse.pyramid(grid, capacities=(64, 32)), sparse.voxel_mean(points, row, 64)
      >>> features, logits = student(grid, maps, x, points=points, point_to_voxel=row)
      >>> features.shape, logits.shape
      ((64, 8), (64, 5))

    References:
      Tang et al., Searching Efficient 3D Architectures with Sparse Point-Voxel Convolution
      (https://arxiv.org/abs/2007.16100). The paper's points are those of the scan.
    """

    def __init__(
        self,
        config: MinkUNetConfig,
        in_channels: int,
        num_classes: int,
        *,
        dtype: DTypeLike = jnp.float32,
        axis_name: str | tuple[str, ...] | None = None,
        rngs: nnx.Rngs,
    ):
        """Draws the parameters; the arguments are those of `MinkUNet`."""
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.unet = UNet(config, in_channels, axis_name=axis_name, rngs=rngs)
        # The levels at which points and voxels meet, coarsest first.
        self.meetings = tuple(sorted({config.num_stages, config.num_stages // 2, 0}, reverse=True))
        widths = (config.stem, *(self.unet.width_up_to(level) for level in self.meetings))
        self.transforms = nnx.List(
            PointTransform(before, after, axis_name=axis_name, rngs=rngs)
            for before, after in itertools.pairwise(widths)
        )
        self.head = Head(self.num_features, num_classes, rngs=rngs)

    @property
    def num_features(self) -> int:
        """Width of the penultimate features."""
        return self.config.channels[-1]

    @property
    def extra_features(self) -> dict[int, int]:
        """Width of the extras of each level, 0 the finest."""
        return self.unet.extra_features

    def __call__(
        self,
        grid: VoxelGrid,
        maps: Pyramid,
        features: Float[Array, "V C"],
        extras: Mapping[int, Float[Array, "V_l F_l"]] | None = None,
        *,
        points: Float[Array, "N 3"] | None = None,
        point_to_voxel: Int32[Array, " N"] | None = None,
    ) -> tuple[Float[Array, "V F"], Float[Array, "V classes"]]:
        """See `Student` and `FusingStudent`.

        Args:
          grid: the finest grid.
          maps: its pyramid.
          features: `[V, C]`, of the grid's voxels.
          extras: features of another modality at decoder levels.
          points: `[N, 3]`, true points, in the unit of `grid.voxel_size`; the voxels' centres if
            left out.
          point_to_voxel: `[N]`, from `sparse.voxelize`; -1 leaves a point out. Given with `points`.

        Raises:
          ValueError: as `MinkUNet`; where one of `points` and `point_to_voxel` is missing.
        """
        if (points is None) != (point_to_voxel is None):
            raise ValueError("points and point_to_voxel belong together: give both, or neither")
        self.unet.check(maps, extras)
        rows = _rows_by_level(grid, maps, point_to_voxel, self.config.num_stages)
        seen = rows[0] >= 0
        position = _centres(grid) if points is None else jnp.where(seen[:, None], points, 0)
        scene = jnp.where(seen, grid.coords[jnp.maximum(rows[0], 0), 0], -1)

        def at_points(x, level):
            if level == 0 and points is None:
                return x
            return sparse.devoxelize(x, maps.grids[level], position, scene, mode="trilinear")

        x, skips = self.unet.down(maps, features.astype(self.dtype))
        z = at_points(skips[0], 0)
        level = self.config.num_stages
        for meeting, transform in zip(self.meetings, self.transforms, strict=True):
            x = self.unet.up(maps, x, skips, extras, start=level, stop=meeting)
            z = transform(z, seen) + jnp.where(seen[:, None], at_points(x, meeting), 0)
            x = sparse.voxel_mean(z, rows[meeting], maps.grids[meeting].capacity)
            level = meeting
        return x, self.head(x, grid.mask)


def _centres(grid):
    voxel = jnp.where(grid.mask[:, None], grid.coords[:, 1:], 0).astype(jnp.float32)
    return (voxel + 0.5) * grid.voxel_size


def _rows_by_level(grid, maps, point_to_voxel, stages):
    """Row of each point's voxel at every level, -1 where it has none."""
    rows = point_to_voxel
    if rows is None:
        rows = jnp.where(grid.mask, jnp.arange(grid.capacity, dtype=jnp.int32), -1)
    by_level = [rows]
    for kmap in maps.down[:stages]:
        rows = jnp.where(rows >= 0, kmap.parents[jnp.maximum(rows, 0)], -1)
        by_level.append(rows)
    return by_level
