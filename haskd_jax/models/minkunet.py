"""U-Nets of sparse convolutions: MinkUNet's and SpUNet's shapes."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from haskd_jax import sparse
from haskd_jax.models.layers import ConvNormRelu, Head, ResidualBlock
from haskd_jax.sparse import Pyramid, VoxelGrid


@dataclass(frozen=True)
class MinkUNetConfig:
    """Shape of a U-Net: n stages down and n up, on the n + 1 grids of a pyramid.

    Attributes:
      channels: widths of the stages down, then up: 2n numbers.
      blocks: residual blocks of each stage: 2n numbers, 1 or more.
      stem: width of the first convolution, on the finest grid.
      stem_kernel: its edge; other than 3 it needs a map of its own, built at every call.
      widen_at_down: whether the strided convolution goes to the stage's width (SpUNet), or keeps
        the width and leaves that to the stage's first block (MinkUNet).
    """

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    stem: int = 32
    stem_kernel: int = 5
    widen_at_down: bool = False

    def __post_init__(self):
        """Checks that the tables agree."""
        if len(self.channels) < 2 or len(self.channels) % 2:
            raise ValueError(
                f"channels={self.channels}: give as many widths for stages down as for stages up"
            )
        if len(self.blocks) != len(self.channels) or min(self.blocks) < 1:
            raise ValueError(
                f"blocks={self.blocks}: give 1 or more for each of the {len(self.channels)} stages"
            )
        if min(*self.channels, self.stem) < 1:
            raise ValueError(f"channels={self.channels}, stem={self.stem}: widths are 1 or more")
        if self.stem_kernel not in (1, 3, 5):
            raise ValueError(f"stem_kernel={self.stem_kernel}: must be 1, 3 or 5")

    @property
    def num_stages(self) -> int:
        """Stages down: a pyramid needs as many coarser grids."""
        return len(self.channels) // 2


def _table(channels: str, blocks: str, **options) -> MinkUNetConfig:
    def numbers(text):
        return tuple(map(int, text.split()))

    return MinkUNetConfig(numbers(channels), numbers(blocks), **options)


_BLOCKS_14, _BLOCKS_18, _BLOCKS_34 = "1 1 1 1 1 1 1 1", "2 2 2 2 2 2 2 2", "2 3 4 6 2 2 2 2"

# Widths and depths of the published networks, by their published names.
MINKUNET: Mapping[str, MinkUNetConfig] = MappingProxyType(
    {
        "minkunet14a": _table("32 64 128 256 128 128 96 96", _BLOCKS_14),
        "minkunet14c": _table("32 64 128 256 192 192 128 128", _BLOCKS_14),
        "minkunet18a": _table("32 64 128 256 128 128 96 96", _BLOCKS_18),
        "minkunet34a": _table("32 64 128 256 256 128 64 64", _BLOCKS_34),
        "minkunet34c": _table("32 64 128 256 256 128 96 96", _BLOCKS_34),
        "spunet": _table("32 64 128 256 256 128 96 96", _BLOCKS_34, widen_at_down=True),
    }
)


class Encoding(nnx.Module):
    """A stage down: a strided convolution to the next grid, and residual blocks there."""

    def __init__(self, in_features, out_features, blocks, *, widen_at_down, axis_name, rngs):
        """Makes the stage; see `MinkUNetConfig`."""
        width = out_features if widen_at_down else in_features
        self.down = ConvNormRelu(in_features, width, 2, axis_name=axis_name, rngs=rngs)
        self.blocks = _blocks(width, out_features, blocks, axis_name, rngs)

    def __call__(self, x: Float[Array, "V_fine C"], maps: Pyramid, level: int):
        """From the grid `level` to the next."""
        mask, kmap = maps.grids[level + 1].mask, maps.submanifold[level + 1]
        x = self.down(x, maps.down[level], mask)
        for block in self.blocks:
            x = block(x, kmap, mask)
        return x


class Decoding(nnx.Module):
    """A stage up: an inverse convolution, the skip joins, residual blocks."""

    def __init__(self, in_features, skip_features, out_features, blocks, *, axis_name, rngs):
        """Makes the stage; see `MinkUNetConfig`."""
        self.up = ConvNormRelu(in_features, out_features, 2, axis_name=axis_name, rngs=rngs)
        self.blocks = _blocks(out_features + skip_features, out_features, blocks, axis_name, rngs)

    def __call__(self, x: Float[Array, "V_coarse C"], skip, maps: Pyramid, level: int, extra=None):
        """From the grid `level + 1` to `level`; `extra` is added before the skip joins."""
        mask, kmap = maps.grids[level].mask, maps.submanifold[level]
        x = self.up(x, maps.down[level].T, mask)
        if extra is not None:
            x = x + extra.astype(x.dtype)
        x = jnp.concatenate([x, skip], axis=1)
        for block in self.blocks:
            x = block(x, kmap, mask)
        return x


def _blocks(in_features, out_features, count, axis_name, rngs):
    widths = [in_features] + [out_features] * count
    return nnx.List(
        ResidualBlock(before, after, 3, axis_name=axis_name, rngs=rngs)
        for before, after in itertools.pairwise(widths)
    )


class UNet(nnx.Module):
    """The stages of a U-Net, without head: what the student families share."""

    def __init__(self, config: MinkUNetConfig, in_channels: int, *, axis_name, rngs: nnx.Rngs):
        """Draws the parameters."""
        self.config = config
        stages = config.num_stages
        self.stem = ConvNormRelu(
            in_channels, config.stem, config.stem_kernel, axis_name=axis_name, rngs=rngs
        )
        skips = (config.stem, *config.channels[:stages])  # by level
        self.encoder = nnx.List(  # from each level to the next
            Encoding(
                skips[level], skips[level + 1], config.blocks[level],
                widen_at_down=config.widen_at_down, axis_name=axis_name, rngs=rngs,
            )
            for level in range(stages)
        )  # fmt: skip
        self.decoder = nnx.List(  # to each level from the next
            Decoding(
                self.width_up_to(level + 1), skips[level], self.width_up_to(level),
                config.blocks[-1 - level], axis_name=axis_name, rngs=rngs,
            )
            for level in range(stages)
        )  # fmt: skip

    def width_up_to(self, level: int) -> int:
        """Width on the way up, at a level; at the coarsest, where it begins."""
        stages = self.config.num_stages
        return self.config.channels[stages - 1 if level == stages else -1 - level]

    @property
    def extra_features(self) -> dict[int, int]:
        """Width of the extras of each level, 0 the finest."""
        return {level: self.width_up_to(level) for level in range(self.config.num_stages)}

    def check(self, maps: Pyramid, extras) -> None:
        """Refuses pyramids that are too flat or of other kernels, and extras for unknown levels."""
        stages = self.config.num_stages
        if len(maps.down) < stages:
            raise ValueError(
                f"maps has {len(maps.grids)} grids, this network works on {stages + 1}: build it "
                f"with sparse.pyramid(grid, capacities=...), {stages} capacities or more"
            )
        size = maps.submanifold[0].kernel_size
        if size != 3:
            raise ValueError(f"maps has kernel_size {size}: build it with kernel_size=3")
        unknown = sorted(set(extras or ()) - set(self.extra_features))
        if unknown:
            raise ValueError(f"extras has level {unknown[0]}: levels here are 0 to {stages - 1}")

    def down(
        self, maps: Pyramid, x: Float[Array, "V C"]
    ) -> tuple[Float[Array, "V_l D"], list[Float[Array, "..."]]]:
        """The stem and the stages down: the coarsest features, and the skips by level."""
        fine, size = maps.submanifold[0], self.config.stem_kernel
        if fine.kernel_size != size:
            fine = sparse.kernel_map(maps.grids[0], kernel_size=size)
        skips = [self.stem(x, fine, maps.grids[0].mask)]
        for level, stage in enumerate(self.encoder):
            skips.append(stage(skips[-1], maps, level))
        return skips[-1], skips[:-1]

    def up(
        self, maps: Pyramid, x: Float[Array, "V_l C"], skips, extras, *, start: int, stop: int
    ) -> Float[Array, "V_m D"]:
        """The stages up from level `start` to level `stop`."""
        for level in range(start - 1, stop - 1, -1):
            x = self.decoder[level](x, skips[level], maps, level, (extras or {}).get(level))
        return x


class MinkUNet(nnx.Module):
    """A U-Net of sparse convolutions. Follows the `Student` protocol.

    Attributes:
      config: its shape.
      num_features: F, width of the penultimate features.
      extra_features: for each level that takes extras, their width.

    Example:
      >>> import jax
      >>> config = MinkUNetConfig((8, 16, 8, 8), (1, 1, 1, 1), stem=8, stem_kernel=3)
      >>> student = MinkUNet(config, in_channels=3, num_classes=5, rngs=nnx.Rngs(0))
      >>> points = jax.random.uniform(jax.random.key(0), (50, 3), jnp.float32)
      >>> grid, row = sparse.voxelize(points, voxel_size=0.1, capacity=64)
      >>> maps = sparse.pyramid(grid, capacities=(64, 32))
      >>> features, logits = student(grid, maps, sparse.voxel_mean(points, row, 64))
      >>> features.shape, logits.shape
      ((64, 8), (64, 5))

    References:
      Choy et al., 4D Spatio-Temporal ConvNets (https://arxiv.org/abs/1904.08755); SpUNet is the
      baseline of Pointcept (https://github.com/Pointcept/Pointcept).
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
        """Draws the parameters, which are float32.

        Args:
          config: a shape of one's own, or one of `MINKUNET`.
          in_channels: of the voxels' features.
          num_classes: of the logits.
          dtype: what is computed in, such as bfloat16; statistics and logits stay float32.
          axis_name: as for `BatchNorm`.
          rngs: gives `params`.
        """
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.unet = UNet(config, in_channels, axis_name=axis_name, rngs=rngs)
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
    ) -> tuple[Float[Array, "V F"], Float[Array, "V classes"]]:
        """See `Student` and `FusingStudent`. Extras join a level where its stage up begins.

        Raises:
          ValueError: where `maps` has not the grids that the stages need, or extras are for a level
            that takes none.
        """
        self.unet.check(maps, extras)
        x, skips = self.unet.down(maps, features.astype(self.dtype))
        x = self.unet.up(maps, x, skips, extras, start=self.config.num_stages, stop=0)
        return x, self.head(x, grid.mask)
