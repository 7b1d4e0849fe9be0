"""Batch normalisation that knows padding, and is global over devices."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

_ROWS_AT_ONCE = 128  # XLA:CPU splits longer sums among however many threads it has


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

    def __call__(self, x: Float[Array, "V C"], mask: Bool[Array, " V"]) -> Float[Array, "V C"]:
        """Normalises, and counts the batch into the running statistics when training.

        Args:
          x: `[V, C]` float of any width.
          mask: `[V]`, False for padding.

        Returns:
          `[V, C]` of the dtype of `x`; zero outside of the mask.
        """
        wide = at_least_float32(x.dtype)
        scale, bias = self.scale[...].astype(wide), self.bias[...].astype(wide)
        if self.use_running_average:
            scale = scale * jax.lax.rsqrt(self.var[...].astype(wide) + self.epsilon)
            shift = bias - self.mean[...].astype(wide) * scale
            valid = mask[:, None]  # before and after: no gradient meets what padding holds
            y = jnp.where(valid, x.astype(wide), 0) * scale[None] + shift[None]
            return jnp.where(valid, y, 0).astype(x.dtype)
        arrays = _as_varying_as(x, (mask, scale, bias))
        y, count, mean, var = _normalise(self.epsilon, self.axis_name, x, *arrays)
        self._count_in(*jax.lax.stop_gradient((count, mean, var)))
        return y

    def _count_in(self, count, mean, var):
        batches = self.batches[...]
        share = jnp.maximum(1 - self.momentum, 1 / (batches.astype(jnp.float32) + 1))
        share = jnp.where(count > 0, share, 0)  # a batch without voxels says nothing
        for running, batch in ((self.mean, mean), (self.var, var)):
            change = batch.astype(jnp.float32) - running[...]
            running[...] = running[...] + share * change
        self.batches[...] = batches + (count > 0).astype(jnp.int32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _normalise(epsilon, axis_name, x, mask, scale, bias):
    """The result, and the batch's count, mean and variance.

    Its gradient by autodiff would take 1.5 to 3 times as long on CPU.
    """
    return _forward(epsilon, axis_name, x, mask, scale, bias)[0]


def _forward(epsilon, axis_name, x, mask, scale, bias):
    valid = mask[:, None]
    wide = x.astype(scale.dtype)
    count = _over_devices(jnp.sum(mask, dtype=scale.dtype), axis_name)
    total = jnp.maximum(count, 1)
    mean = _over_devices(_column_sums(jnp.where(valid, wide, 0)), axis_name) / total
    centred = jnp.where(valid, wide - mean[None], 0)
    var = _over_devices(_column_sums(jnp.square(centred)), axis_name) / total
    inverse = jax.lax.rsqrt(var + epsilon)
    y = jnp.where(valid, centred * (inverse * scale)[None] + bias[None], 0).astype(x.dtype)
    return (y, count, mean, var), (x, mask, scale, total, mean, inverse)


def _backward(epsilon, axis_name, residuals, cotangents):
    x, mask, scale, total, mean, inverse = residuals
    valid = mask[:, None]
    gradient = jnp.where(valid, cotangents[0].astype(scale.dtype), 0)
    standard = jnp.where(valid, (x.astype(scale.dtype) - mean[None]) * inverse[None], 0)
    d_bias, d_scale = _column_sums(gradient), _column_sums(gradient * standard)
    # The statistics are of all devices, so their gradient is; parameters' are summed by whoever
    # spread them.
    by_mean = _over_devices(d_bias, axis_name) / total
    by_var = _over_devices(d_scale, axis_name) / total
    change = gradient - by_mean[None] - standard * by_var[None]
    d_x = jnp.where(valid, (inverse * scale)[None] * change, 0)
    return d_x.astype(x.dtype), None, d_scale, d_bias


_normalise.defvjp(_forward, _backward)


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """What sums over values of `dtype` are formed in."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


def _over_devices(value, axis_name):
    return value if axis_name is None else jax.lax.psum(value, axis_name)


def _column_sums(x):
    """Sums over rows, in two steps: fast on CPU, and the same bits with any number of threads."""
    rows, columns = x.shape
    x = jnp.pad(x, ((0, -rows % _ROWS_AT_ONCE), (0, 0)))
    return x.reshape(-1, _ROWS_AT_ONCE, columns).sum(axis=1).sum(axis=0)


def _as_varying_as(x, arrays):
    """Marks arrays as varying over the `shard_map` axes that `x` varies over.

    Its transpose sums their gradients over the devices, so it stands outside of the custom one.
    """
    axes = jax.typeof(x).manual_axis_type.varying

    def mark(array):
        missing = axes - jax.typeof(array).manual_axis_type.varying
        return jax.lax.pcast(array, tuple(sorted(missing)), to="varying") if missing else array

    return jax.tree.map(mark, arrays)
