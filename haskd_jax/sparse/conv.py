"""Sparse convolution.

Forward, input gradient and weight gradient are one bilinear map seen from its three sides, so each
is written with the others and all can be differentiated again:

    out[i]  = sum_k features[neighbours[k, i]] @ weights[k]
    d features = the same, through the map turned round, with weights[k] transposed
    d weights[k] = sum_i outer(features[neighbours[k, i]], d out[i])
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from haskd_jax import native_kernels
from haskd_jax.implementation import run, varying
from haskd_jax.sparse import _validate as validate
from haskd_jax.sparse._gather import gather
from haskd_jax.sparse._validate import AnyArray
from haskd_jax.sparse.kernel_map import KernelMap


def conv(
    features: Float[AnyArray, "V_in C"],
    weights: Float[AnyArray, "K C D"],
    kmap: KernelMap,
    *,
    implementation: str | None = None,
) -> Float[Array, "V_out D"]:
    """Sparse convolution: `out[i] = sum_k features[neighbours[k, i]] @ weights[k]`.

    In other words cross-correlation. Submanifold, strided, transposed and inverse convolution
    differ in the map alone. Sums are formed in float32 (float64 for float64), in an order that does
    not depend on the number of threads. Rows without a neighbour, padding among them, are zero;
    values in padding rows are never read.

    Args:
      features: `[V_in, C]`, float32, bfloat16, float16 or float64.
      weights: `[K, C, D]`, same dtype; offsets in the order of `kernel_offsets`.
      kmap: from the grid of `features` to that of the result.
      implementation: None for the best there is; "xla" is portable, "native" runs on CPU.

    Returns:
      `[V_out, D]`, dtype of `features`.

    Raises:
      ValueError: for shapes or dtypes that disagree, or an implementation that is not available.

    Example:
      >>> import numpy as np
      >>> from haskd_jax import sparse
      >>> grid, _ = sparse.grid_from_coords(np.array([[0, 0, 0, 0], [0, 0, 0, 1]]), capacity=3)
      >>> kmap = sparse.kernel_map(grid, kernel_size=3)
      >>> conv(jnp.array([[1.0], [10.0], [7.0]]), jnp.ones((27, 1, 1)), kmap)[:, 0].tolist()
      [11.0, 11.0, 0.0]
    """
    offsets = kmap.neighbours.shape[0]
    features = validate.array("features", features, shape=(kmap.num_inputs, None), kinds="f")
    weights = validate.array(
        "weights", weights, shape=(offsets, features.shape[1], None), kinds="f"
    )
    if features.dtype != weights.dtype:
        raise ValueError(
            f"weights has dtype {weights.dtype}, features {features.dtype}: cast one to the other's"
        )
    features, weights, kmap = varying((features, weights, kmap))
    if not (features.shape[0] and kmap.neighbours.shape[1]):  # nothing meets anything
        return jnp.zeros((kmap.neighbours.shape[1], weights.shape[2]), features.dtype)
    return _conv_compiled(features, weights, kmap, implementation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _conv(features, weights, kmap, implementation):
    return run(
        implementation,
        native=_conv_native,
        xla=_conv_xla,
        args=(features, weights, kmap.neighbours),
    )


def _conv_forward(features, weights, kmap, implementation):
    return _conv(features, weights, kmap, implementation), (features, weights, kmap)


def _conv_backward(implementation, residuals, cotangent):
    features, weights, kmap = residuals
    d_features = _conv(cotangent, *_turned(weights, kmap), implementation)
    d_weights = _weight_gradient(features, cotangent, kmap, implementation)
    return d_features, d_weights, None


_conv.defvjp(_conv_forward, _conv_backward)
_conv_compiled = jax.jit(_conv, static_argnums=3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _weight_gradient(features, cotangent, kmap, implementation):
    """[K, C, D] from features [V_in, C] and the result's cotangent [V_out, D]."""
    return run(
        implementation,
        native=_weight_gradient_native,
        xla=_weight_gradient_xla,
        args=(features, cotangent, kmap.neighbours),
    )


def _weight_gradient_forward(features, cotangent, kmap, implementation):
    result = _weight_gradient(features, cotangent, kmap, implementation)
    return result, (features, cotangent, kmap)


def _weight_gradient_backward(implementation, residuals, weights):
    features, cotangent, kmap = residuals
    d_features = _conv(cotangent, *_turned(weights, kmap), implementation)
    return d_features, _conv(features, weights, kmap, implementation), None


_weight_gradient.defvjp(_weight_gradient_forward, _weight_gradient_backward)


def _turned(weights, kmap):
    """Weights and map of the transposed convolution."""
    transposed = jnp.swapaxes(weights, 1, 2)
    if kmap.reverse is None:
        return transposed[::-1], kmap  # the reversed map is this map with offsets mirrored
    return transposed, kmap.T


def _where_met(rows, values):
    """Values [..., D] of the pairs that exist, zero elsewhere: padding may hold anything."""
    return jnp.where((rows >= 0)[..., None], values, 0)


def _matmul(a, b):
    """Sums in float32 or wider. Left to itself XLA multiplies float32 with 10 bits on GPU (TF32),
    and with 7 on TPU."""
    wide = native_kernels.sum_dtype(a.dtype)
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST, preferred_element_type=wide)


# Of gathered rows that stand in memory at once, where one matrix product meets all offsets.
_GATHERED_BYTES = 2**28


def _conv_xla(features, weights, neighbours):
    return jax.lax.platform_dependent(
        features, weights, neighbours, cpu=_sum_over_offsets, default=_one_product
    ).astype(features.dtype)


def _sum_over_offsets(features, weights, neighbours):
    """One gather and matrix product an offset, added where the sums stand: no scatter."""

    def term(weight, rows):
        product = _matmul(gather(features, rows), weight)
        return _where_met(rows, product)  # zeros times a weight that is not finite are NaN

    def add(total, offset):
        return total + term(*offset), None

    first = term(weights[0], neighbours[0])
    return jax.lax.scan(add, first, (weights[1:], neighbours[1:]))[0]


def _one_product(features, weights, neighbours):
    """The rows of all offsets side by side times all weights: few, large kernels, as GPUs like."""
    offsets, channels, width = weights.shape
    # Zeros stand for rows that are not met, and zeros times infinity would be NaN.
    finite = jnp.isfinite(weights)
    flat = jnp.where(finite, weights, 0).reshape(offsets * channels, width)
    spoilt = ~jnp.all(finite, axis=(1, 2))[:, None]

    def product(neighbours):
        result = _matmul(_side_by_side(features, neighbours), flat)
        meets_spoilt = jnp.any(spoilt & (neighbours >= 0), axis=0)
        return jnp.where(meets_spoilt[:, None], jnp.nan, result)

    parts = _parts(neighbours, features)
    if len(parts) == 1:
        return product(neighbours)
    products = jax.lax.map(product, parts)
    return products.reshape(parts.shape[0] * parts.shape[2], width)[: neighbours.shape[1]]


def _weight_gradient_xla(features, cotangent, neighbours):
    return jax.lax.platform_dependent(
        features, cotangent, neighbours, cpu=_products_by_rows, default=_one_product_of_rows
    ).astype(features.dtype)


def _one_product_of_rows(features, cotangent, neighbours):
    """As `_one_product`, for the gradient of all weights: NaN in one row's cotangent is in all."""
    parts = _parts(neighbours, features)
    count, offsets, rows = parts.shape
    cotangent = jnp.pad(cotangent, ((0, count * rows - cotangent.shape[0]), (0, 0)))
    cotangent = cotangent.reshape(count, rows, cotangent.shape[1])

    def product(neighbours, cotangent):
        meets_any = jnp.any(neighbours >= 0, axis=0)  # padding rows of the cotangent may be NaN
        cotangent = jnp.where(meets_any[:, None], cotangent, 0)
        return _matmul(_side_by_side(features, neighbours).T, cotangent)

    def add(total, part):
        return total + product(*part), None

    first = product(parts[0], cotangent[0])
    total, _ = jax.lax.scan(add, first, (parts[1:], cotangent[1:]))
    return total.reshape(offsets, features.shape[1], cotangent.shape[2])


def _side_by_side(features, neighbours):
    """[R, K C]: the input rows that each of R output rows meets, zeros where it meets none."""
    offsets, rows = neighbours.shape
    return gather(features, neighbours.T).reshape(rows, offsets * features.shape[1])


def _parts(neighbours, features):
    """The map [K, V] in parts [P, K, R] whose gathered rows are few enough, padded with -1."""
    offsets, rows = neighbours.shape
    width = max(1, offsets * features.shape[1] * features.dtype.itemsize)
    count = -(-rows // max(1, _GATHERED_BYTES // width))
    each = -(-rows // count)
    padded = jnp.pad(neighbours, ((0, 0), (0, count * each - rows)), constant_values=-1)
    return padded.reshape(offsets, count, each).swapaxes(0, 1)


def _products_by_rows(features, cotangent, neighbours, rows_at_once=128):
    """A few rows at a time: XLA:CPU shares longer sums out among as many threads as it has."""
    offsets, outputs = neighbours.shape
    padding = -outputs % rows_at_once
    neighbours = jnp.pad(neighbours, ((0, 0), (0, padding)), constant_values=-1)
    neighbours = neighbours.reshape(offsets, -1, rows_at_once).swapaxes(0, 1)
    cotangent = jnp.pad(cotangent, ((0, padding), (0, 0)))
    cotangent = cotangent.reshape(-1, rows_at_once, cotangent.shape[1])

    def products(rows, cotangent):
        gathered, gradient = gather(features, rows), _where_met(rows, cotangent[None])
        return _matmul(gathered.swapaxes(1, 2), gradient)

    def add(total, chunk):
        return total + products(*chunk), None

    first = products(neighbours[0], cotangent[0])
    return jax.lax.scan(add, first, (neighbours[1:], cotangent[1:]))[0]


def _conv_native(features, weights, neighbours):
    shape = (neighbours.shape[1], weights.shape[2])
    return native_kernels.call_float("haskd_conv", shape, (features, weights), neighbours)


def _weight_gradient_native(features, cotangent, neighbours):
    shape = (neighbours.shape[0], features.shape[1], cotangent.shape[1])
    return native_kernels.call_float(
        "haskd_conv_weight_grad", shape, (features, cotangent), neighbours
    )
