"""Losses of 3D segmentation and of its distillation: pure functions on arrays.

All of them can be jitted, differentiated and vmapped. Element losses return one value per voxel (or
per edge of a voxel graph) and zero where `where` is False; `masked_mean` reduces them. Whatever
dtype comes in, sums run in f32, and in f64 if an input is f64. Teachers and experts get no
gradient. A row that `where` excludes changes neither a value nor a gradient, whatever it holds, NaN
included.

Outside `jit` wrong shapes and wrong values raise ValueError; inside `jit`, where values are not
known, voxels with a label outside [-1, C) are left out.
"""

from haskd_jax.losses._adept import adept_divergence, adeptness, asd_loss
from haskd_jax.losses._distillation import (
    decoupled_kl_divergence,
    feature_cosine,
    kl_divergence,
)
from haskd_jax.losses._heterogeneous import ihd_loss, information_weights
from haskd_jax.losses._reduction import masked_mean
from haskd_jax.losses._relational import edge_mask, relational
from haskd_jax.losses._segmentation import cross_entropy, lovasz_softmax

__all__ = [
    "adept_divergence",
    "adeptness",
    "asd_loss",
    "cross_entropy",
    "decoupled_kl_divergence",
    "edge_mask",
    "feature_cosine",
    "ihd_loss",
    "information_weights",
    "kl_divergence",
    "lovasz_softmax",
    "masked_mean",
    "relational",
]
