"""Batch normalisation of masked rows, with what stands around it: a residual sum and a ReLU.

On CPU these are passes over memory, and between narrow convolutions they take as long as the
convolutions do: the native kernels do in one pass what can be done in one.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from haskd_jax import native_kernels
from haskd_jax.implementation import run, varying
from haskd_jax.sparse import _validate as validate
from haskd_jax.sparse._validate import AnyArray

_ROWS_AT_ONCE = 128  # XLA:CPU splits longer sums among however many threads it has


class Moments(NamedTuple):
    """Of each channel, over the rows that a mask admits.

    Attributes:
      rows: `[]`, how many, float32 (float64 for float64) as the others.
      mean: `[C]`.
      var: `[C]`, around the mean, divided by the count.
    """

    rows: Float[Array, ""]
    mean: Float[Array, " C"]
    var: Float[Array, " C"]


def batch_norm(
    x: Float[AnyArray, "V C"],
    mask: Bool[AnyArray, " V"],
    scale: Float[AnyArray, " C"],
    bias: Float[AnyArray, " C"],
    *,
    residual: Float[AnyArray, "V C"] | None = None,
    relu: bool = False,
    epsilon: float = 1e-5,
    axis_name: str | tuple[str, ...] | None = None,
    implementation: str | None = None,
) -> tuple[Float[Array, "V C"], Moments]:
    """Normalises by the batch's own statistics: `(x - mean) / sqrt(var + epsilon) * scale + bias`.

    Statistics are formed in float32 (float64 for float64) around the mean, so that a large mean
    costs no digits, in an order that does not depend on the number of threads. Rows outside of the
    mask are zero in the result and touch neither a statistic nor a gradient, whatever they hold.

    Args:
      x: `[V, C]`, float32, bfloat16, float16 or float64.
      mask: `[V]`, False for padding.
      scale: `[C]` float.
      bias: `[C]` float.
      residual: `[V, C]`, dtype of `x`, added to the result.
      relu: whether a ReLU follows.
      epsilon: added to the variance.
      axis_name: of the `shard_map` or `vmap` axes over which the batch is spread.
      implementation: None for the best there is, "xla" or "native".

    Returns:
      `[V, C]`, dtype of `x`, and the batch's statistics, which carry no gradient.

    Raises:
      ValueError: for shapes or dtypes that disagree, or an epsilon below 0.

    Example:
      >>> x, mask = jnp.array([[1.0], [3.0], [jnp.nan]]), jnp.array([True, True, False])
      >>> y, moments = batch_norm(x, mask, jnp.ones(1), jnp.zeros(1), relu=True)
      >>> y[:, 0].round(3).tolist(), moments.mean.tolist(), moments.var.tolist()
      ([0.0, 1.0, 0.0], [2.0], [1.0])
    """
    if not 0 <= epsilon < float("inf"):
        raise ValueError(f"epsilon={epsilon}: must be 0 or more")
    x, mask, residual = _rows(x, mask, residual)
    scale, bias = _by_channel(x, scale=scale, bias=bias)
    arrays = varying((x, mask, scale, bias, residual))
    y, *moments = _batch_norm(_Options(relu, implementation, epsilon, axis_name), *arrays)
    return y, Moments(*map(jax.lax.stop_gradient, moments))


def normalize(
    x: Float[AnyArray, "V C"],
    mask: Bool[AnyArray, " V"],
    mean: Float[AnyArray, " C"],
    factor: Float[AnyArray, " C"],
    bias: Float[AnyArray, " C"],
    *,
    residual: Float[AnyArray, "V C"] | None = None,
    relu: bool = False,
    implementation: str | None = None,
) -> Float[Array, "V C"]:
    """Normalises by given statistics: `(x - mean) * factor + bias`, zero outside of the mask.

    Args:
      x: as for `batch_norm`.
      mask: `[V]`, False for padding.
      mean: `[C]` float.
      factor: `[C]` float, scale over standard deviation.
      bias: `[C]` float.
      residual: `[V, C]`, dtype of `x`, added to the result.
      relu: whether a ReLU follows.
      implementation: None for the best there is, "xla" or "native".

    Returns:
      `[V, C]`, dtype of `x`.

    Raises:
      ValueError: for shapes or dtypes that disagree.

    Example:
      >>> x, mask = jnp.array([[1.0], [3.0]]), jnp.array([True, False])
      >>> normalize(x, mask, jnp.array([2.0]), jnp.array([0.5]), jnp.array([1.0])).tolist()
      [[0.5], [0.0]]
    """
    x, mask, residual = _rows(x, mask, residual)
    mean, factor, bias = _by_channel(x, mean=mean, factor=factor, bias=bias)
    arrays = varying((x, mask, mean, factor, bias, residual))
    return _apply(_Options(relu, implementation), *arrays)


def _rows(x, mask, residual):
    x = validate.array("x", x, shape=(None, None), kinds="f")
    mask = validate.array("mask", mask, shape=(x.shape[0],), kinds="b")
    if residual is not None:
        residual = validate.array("residual", residual, shape=x.shape, kinds="f")
        if residual.dtype != x.dtype:
            raise ValueError(
                f"residual has dtype {residual.dtype}, x {x.dtype}: cast one to the other's"
            )
    return x, mask, residual


def _by_channel(x, **arrays):
    """What belongs to channels, in the dtype that sums are formed in."""
    wide = native_kernels.sum_dtype(x.dtype)
    return [
        validate.array(name, value, shape=(x.shape[1],), kinds="f").astype(wide)
        for name, value in arrays.items()
    ]


class _Options(NamedTuple):
    relu: bool
    implementation: str | None
    epsilon: float = 0.0
    axis_name: str | tuple[str, ...] | None = None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _batch_norm(options, x, mask, scale, bias, residual):
    """The result, and the batch's count, mean and variance."""
    return _forward(options, x, mask, scale, bias, residual)[0]


def _forward(options, x, mask, scale, bias, residual):
    count, mean, squares = _moments(options, x, mask)
    if options.axis_name is not None:
        own, own_count = mean, count
        count = jax.lax.psum(count, options.axis_name)
        mean = jax.lax.psum(own_count * own, options.axis_name) / jnp.maximum(count, 1)
        squares = jax.lax.psum(squares + own_count * jnp.square(own - mean), options.axis_name)
    total = jnp.maximum(count, 1)
    var = squares / total
    inverse = jax.lax.rsqrt(var + options.epsilon)
    y = _apply(options, x, mask, mean, inverse * scale, bias, residual)
    result = y if options.relu else None
    # No values of it are needed, only whether there is one.
    joined = None if residual is None else residual[:0]
    return (y, count, mean, var), (x, mask, scale, total, mean, inverse, result, joined)


def _backward(options, residuals, cotangents):
    x, mask, scale, total, mean, inverse, result, joined = residuals
    dy = cotangents[0]
    d_bias, products = _gradient_sums(options, dy, result, x, mask, mean)
    d_scale = products * inverse
    # The statistics are of all devices, so their gradient is; parameters' are summed by whoever
    # spread them.
    by_mean, by_var = d_bias, d_scale
    if options.axis_name is not None:
        by_mean, by_var = jax.lax.psum((by_mean, by_var), options.axis_name)
    factor = inverse * scale
    shift, slope = factor * by_mean / total, factor * inverse * by_var / total
    gradients = _gradient(options, dy, result, x, mask, mean, factor, shift, slope, joined)
    d_x, d_residual = gradients if joined is not None else (gradients[0], None)
    return d_x, None, d_scale, d_bias, d_residual


_batch_norm.defvjp(_forward, _backward)


def _operation(native, portable):
    """An operation of two implementations, with the derivative of the portable one."""

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def operation(options, *args):
        chosen = {"native": native, "xla": portable}
        chosen = {name: functools.partial(f, options) for name, f in chosen.items()}
        return run(options.implementation, **chosen, args=args)

    def forward(options, *args):
        return operation(options, *args), args

    def backward(options, args, cotangents):
        return jax.vjp(functools.partial(portable, options), *args)[1](cotangents)

    operation.defvjp(forward, backward)
    return operation


# ---- Moments ------------------------------------------------------------------------------------


def _moments_xla(options, x, mask):
    """Count, mean, and sum of squares around it."""
    valid = mask[:, None]
    wide = x.astype(native_kernels.sum_dtype(x.dtype))
    count = jnp.sum(mask, dtype=wide.dtype)
    total = jnp.maximum(count, 1)
    mean = _column_sums(jnp.where(valid, wide, 0)) / total
    # A mean of large numbers is off by its rounding, which the numbers less it tell.
    centred = jnp.where(valid, wide - mean[None], 0)
    rest = _column_sums(centred) / total
    squares = _column_sums(jnp.square(centred)) - count * jnp.square(rest)
    return count, mean + rest, jnp.maximum(squares, 0)


def _moments_native(options, x, mask):
    channels = (x.shape[1],)
    return native_kernels.call_wide("haskd_moments", ((), channels, channels), x, mask)


_moments = _operation(_moments_native, _moments_xla)


# ---- Normalisation ------------------------------------------------------------------------------


def _apply_xla(options, x, mask, mean, factor, bias, residual):
    """`(x - mean) * factor + bias`, the residual, ReLU."""
    valid = mask[:, None]  # before and after: no gradient meets what padding holds
    y = (jnp.where(valid, x.astype(mean.dtype), 0) - mean[None]) * factor[None] + bias[None]
    if residual is not None:
        y = y + jnp.where(valid, residual.astype(mean.dtype), 0)
    y = jax.nn.relu(y) if options.relu else y
    return jnp.where(valid, y, 0).astype(x.dtype)


def _apply_native(options, x, mask, mean, factor, bias, residual):
    arrays = x, mask, mean, factor, bias, _or_no_rows(residual, x)
    (y,) = native_kernels.call_wide("haskd_normalize", (x.shape,), *arrays, relu=options.relu)
    return y.astype(x.dtype)


_apply = _operation(_apply_native, _apply_xla)


# ---- Gradient -----------------------------------------------------------------------------------


def _before_relu(dy, result, mask, dtype):
    """The gradient of what ReLU got; `result` is what it made of it, None without one."""
    passes = mask[:, None] if result is None else mask[:, None] & (result > 0)
    return jnp.where(passes, dy.astype(dtype), 0)


def _gradient_sums_xla(options, dy, result, x, mask, mean):
    """Sums of the gradient g before ReLU, and of g * (x - mean)."""
    g = _before_relu(dy, result, mask, mean.dtype)
    centred = jnp.where(mask[:, None], x.astype(mean.dtype) - mean[None], 0)
    return _column_sums(g), _column_sums(g * centred)


def _gradient_sums_native(options, dy, result, x, mask, mean):
    channels = (x.shape[1],)
    arrays = dy, _or_no_rows(result, x), x, mask, mean
    return native_kernels.call_wide("haskd_norm_gradient_sums", (channels, channels), *arrays)


_gradient_sums = _operation(_gradient_sums_native, _gradient_sums_xla)


def _gradient_xla(options, dy, result, x, mask, mean, factor, shift, slope, joined):
    """`g * factor - shift - (x - mean) * slope`; and g, for the residual where there is one."""
    g = _before_relu(dy, result, mask, mean.dtype)
    valid = mask[:, None]
    centred = jnp.where(valid, x.astype(mean.dtype) - mean[None], 0)
    d_x = g * factor[None] - shift[None] - centred * slope[None]
    d_x = jnp.where(valid, d_x, 0).astype(x.dtype)
    return d_x, (g[:0] if joined is None else g).astype(x.dtype)


def _gradient_native(options, dy, result, x, mask, mean, factor, shift, slope, joined):
    shapes = x.shape, ((0, x.shape[1]) if joined is None else x.shape)
    arrays = dy, _or_no_rows(result, x), x, mask, mean, factor, shift, slope
    d_x, d_residual = native_kernels.call_wide("haskd_norm_gradient", shapes, *arrays)
    return d_x.astype(x.dtype), d_residual.astype(x.dtype)


_gradient = _operation(_gradient_native, _gradient_xla)


def _or_no_rows(rows, like):
    """What the kernels take for an operand that is left out."""
    return like[:0] if rows is None else rows


def _column_sums(x):
    """Sums over rows, in two steps: fast on CPU, and the same bits with any number of threads."""
    rows, columns = x.shape
    x = jnp.pad(x, ((0, -rows % _ROWS_AT_ONCE), (0, 0)))
    return x.reshape(-1, _ROWS_AT_ONCE, columns).sum(axis=1).sum(axis=0)
