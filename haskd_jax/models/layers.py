"""What the voxel networks are made of."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from haskd_jax import sparse
from haskd_jax.models.batch_norm import BatchNorm
from haskd_jax.native_kernels import sum_dtype
from haskd_jax.sparse import KernelMap


def product(x: Float[Array, "V C"], kernel: Float[Array, "C D"]) -> Float[Array, "V D"]:
    """A matrix product, as a convolution that meets every row itself.

    The engine forms the kernel's gradient, a sum over all rows, in the same order whatever the
    number of threads. A matrix product of XLA:CPU does not.
    """
    rows = jnp.arange(x.shape[0], dtype=jnp.int32)
    itself = KernelMap(rows[None], None, kernel_size=1, dilation=1, strides=(1, 1))
    return sparse.conv(x, kernel[None], itself)


class Conv(nnx.Module):
    """Sparse convolution without bias: submanifold, strided or inverse, as its map says.

    Attributes:
      kernel: `[K, C, D]` float32, offsets in the order of `sparse.kernel_offsets`.
    """

    def __init__(self, in_features: int, out_features: int, kernel_size: int, *, rngs: nnx.Rngs):
        """Draws a kernel.

        Args:
          in_features: C.
          out_features: D.
          kernel_size: edge; K is its cube.
          rngs: gives `params`.
        """
        shape = (kernel_size**3, in_features, out_features)
        self.kernel = nnx.Param(_draw(rngs, shape))

    def __call__(self, x: Float[Array, "V_in C"], kmap: KernelMap) -> Float[Array, "V_out D"]:
        """Convolves in the dtype of `x`; see `sparse.conv`."""
        return sparse.conv(x, self.kernel[...].astype(x.dtype), kmap)


class Linear(nnx.Module):
    """A linear map of every row, without bias: zero rows stay zero.

    Attributes:
      kernel: `[C, D]` float32.
    """

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        """Draws a kernel, of `rngs`' `params`."""
        self.kernel = nnx.Param(_draw(rngs, (in_features, out_features)))

    def __call__(self, x: Float[Array, "V C"]) -> Float[Array, "V D"]:
        """Multiplies in the dtype of `x`."""
        return product(x, jnp.asarray(self.kernel[...], x.dtype))


class Head(nnx.Module):
    """Logits from features, in float32; zero outside of the mask."""

    def __init__(self, in_features: int, num_classes: int, *, rngs: nnx.Rngs):
        """Draws the linear map; the bias begins at zero."""
        self.linear = Linear(in_features, num_classes, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(num_classes, jnp.float32))

    def __call__(self, x: Float[Array, "V C"], mask: Bool[Array, " V"]) -> Float[Array, "V D"]:
        """Losses and metrics want more digits than bfloat16 has."""
        x = x.astype(sum_dtype(x.dtype))
        # The bias as a product with ones: its gradient is a sum over all rows, too.
        ones = jnp.ones_like(x, shape=(x.shape[0], 1))
        bias = product(ones, jnp.asarray(self.bias[...], x.dtype)[None])
        return jnp.where(mask[:, None], self.linear(x) + bias, 0)


class ConvNormRelu(nnx.Module):
    """Convolution, norm, ReLU."""

    def __init__(
        self, in_features: int, out_features: int, kernel_size: int, *, axis_name, rngs: nnx.Rngs
    ):
        """Takes the arguments of `Conv` and of `BatchNorm`."""
        self.conv = Conv(in_features, out_features, kernel_size, rngs=rngs)
        self.norm = BatchNorm(out_features, axis_name=axis_name)

    def __call__(
        self, x: Float[Array, "V_in C"], kmap: KernelMap, mask: Bool[Array, " V_out"]
    ) -> Float[Array, "V_out D"]:
        """`mask` is of the rows that the convolution goes to."""
        return self.norm(self.conv(x, kmap), mask, relu=True)


class LinearNorm(nnx.Module):
    """A linear map of every row, and a norm."""

    def __init__(self, in_features: int, out_features: int, *, axis_name, rngs: nnx.Rngs):
        """Takes the arguments of `Linear` and of `BatchNorm`."""
        self.linear = Linear(in_features, out_features, rngs=rngs)
        self.norm = BatchNorm(out_features, axis_name=axis_name)

    def __call__(self, x: Float[Array, "V C"], mask: Bool[Array, " V"]) -> Float[Array, "V D"]:
        """`x` is zero, or anything finite, outside of the mask."""
        return self.norm(self.linear(x), mask)


class ResidualBlock(nnx.Module):
    """The basic residual block: two 3x3x3 convolutions around a shortcut.

    Where the widths differ the shortcut is a linear map and a norm.

    References:
      He et al., Deep Residual Learning for Image Recognition (https://arxiv.org/abs/1512.03385).
    """

    def __init__(
        self, in_features: int, out_features: int, kernel_size: int, *, axis_name, rngs: nnx.Rngs
    ):
        """Takes the arguments of `Conv` and of `BatchNorm`."""
        self.first = ConvNormRelu(
            in_features, out_features, kernel_size, axis_name=axis_name, rngs=rngs
        )
        self.second = Conv(out_features, out_features, kernel_size, rngs=rngs)
        self.norm = BatchNorm(out_features, axis_name=axis_name)
        if in_features == out_features:
            self.shortcut = None
        else:
            self.shortcut = LinearNorm(in_features, out_features, axis_name=axis_name, rngs=rngs)

    def __call__(
        self, x: Float[Array, "V C"], kmap: KernelMap, mask: Bool[Array, " V"]
    ) -> Float[Array, "V D"]:
        """`kmap` is a map within one grid, `mask` that grid's."""
        y = self.second(self.first(x, kmap, mask), kmap)
        if self.shortcut is not None:
            x = self.shortcut(x, mask)
        return self.norm(y, mask, residual=x, relu=True)


def _draw(rngs, shape):
    """He's normal initialisation; inputs are all axes but the last."""
    inputs = 1
    for size in shape[:-1]:
        inputs *= size
    return jax.random.normal(rngs.params(), shape, jnp.float32) * jnp.sqrt(2 / inputs).astype(
        jnp.float32
    )
