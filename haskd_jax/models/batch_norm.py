"""Batch normalisation that knows padding, and is global over devices."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from haskd_jax import sparse
from haskd_jax.native_kernels import sum_dtype


class BatchNorm(nnx.Module):
    """Normalises each channel over the rows that a mask admits.

    Rows outside of the mask are zero in the result and touch neither a statistic nor a gradient,
    whatever they hold. Statistics are formed in float32 (float64 for float64) around the mean, so
    that a large mean costs no digits. Of the running statistics the first batches form the plain
    mean: they can be used from the first step on.

    Under `jit` statistics are of the whole batch, however it is sharded. Inside `shard_map` and
    `vmap` a device sees its own part, unless `axis_name` names the axes to take the others' from.

    `train()` and `eval()` of the module, or of one that holds it, choose between the batch's
    statistics and the running ones.

    Attributes:
      scale: `[C]` float32.
      bias: `[C]` float32.
      mean: `[C]` float32, running.
      var: `[C]` float32, running.
      batches: `[]` int32, how many the running statistics hold.

    Example:
      >>> norm = BatchNorm(1)
      >>> x = jnp.array([[1.0], [3.0], [jnp.nan]])
      >>> norm(x, jnp.array([True, True, False]))[:, 0].round(3).tolist()
      [-1.0, 1.0, 0.0]
      >>> norm.mean[...].tolist(), norm.var[...].tolist()
      ([2.0], [1.0])
    """

    def __init__(
        self,
        num_features: int,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        axis_name: str | tuple[str, ...] | None = None,
    ):
        """Makes a norm that changes nothing.

        Args:
          num_features: C.
          momentum: what the running statistics keep of themselves at a batch, in the long run.
          epsilon: added to the variance.
          axis_name: of the `shard_map` or `vmap` axes over which the batch is spread.
        """
        self.scale = nnx.Param(jnp.ones(num_features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(num_features, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(num_features, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(num_features, jnp.float32))
        self.batches = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.momentum = momentum
        self.epsilon = epsilon
        self.axis_name = axis_name
        self.use_running_average = False

    def __call__(
        self,
        x: Float[Array, "V C"],
        mask: Bool[Array, " V"],
        *,
        residual: Float[Array, "V C"] | None = None,
        relu: bool = False,
    ) -> Float[Array, "V C"]:
        """Normalises, and counts the batch into the running statistics when training.

        Args:
          x: `[V, C]` float of any width.
          mask: `[V]`, False for padding.
          residual: `[V, C]`, dtype of `x`, added to the result.
          relu: whether a ReLU follows.

        Returns:
          `[V, C]` of the dtype of `x`; zero outside of the mask.
        """
        scale, bias = self.scale[...], self.bias[...]
        if self.use_running_average:
            wide = sum_dtype(x.dtype)
            mean, var = self.mean[...].astype(wide), self.var[...].astype(wide)
            factor = scale.astype(wide) * jax.lax.rsqrt(var + self.epsilon)
            return sparse.normalize(x, mask, mean, factor, bias, residual=residual, relu=relu)
        y, moments = sparse.batch_norm(
            x, mask, scale, bias,
            residual=residual, relu=relu, epsilon=self.epsilon, axis_name=self.axis_name,
        )  # fmt: skip
        self._count_in(*moments)
        return y

    def _count_in(self, count, mean, var):
        batches = self.batches[...]
        share = jnp.maximum(1 - self.momentum, 1 / (batches.astype(jnp.float32) + 1))
        share = jnp.where(count > 0, share, 0)  # a batch without voxels says nothing
        for running, batch in ((self.mean, mean), (self.var, var)):
            change = batch.astype(jnp.float32) - running[...]
            running[...] = running[...] + share * change
        self.batches[...] = batches + (count > 0).astype(jnp.int32)
