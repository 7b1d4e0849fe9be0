"""A small scene with everything the losses take, and every loss of it as one number."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from haskd_jax import losses

from . import oracle

TEMPERATURE = 2.0
SMOOTHING = 0.1
ALPHA, BETA = 0.5, 2.0
IHD_WEIGHTS = {"logit_weight": 0.5, "feature_weight": 2.0, "relation_weight": 3.0}


class Scene(NamedTuple):
    """V voxels (some masked, some unlabelled), and a graph with one padding node, of index V."""

    rows: dict[str, jax.Array]  # what is given per voxel and may be differentiated
    labels: jax.Array  # [V]
    where: jax.Array  # [V]
    senders: jax.Array  # [edges]
    receivers: jax.Array
    n_edge: jax.Array  # [2] real and padding edges
    projection: jax.Array  # [D, E]
    class_weights: jax.Array  # [C]
    omega: jax.Array  # [M, C]

    def graph(self) -> jraph.GraphsTuple:
        return jraph.GraphsTuple(
            nodes=None,
            edges=None,
            globals=None,
            senders=self.senders,
            receivers=self.receivers,
            n_node=jnp.array([self.labels.shape[0], 1], jnp.int32),
            n_edge=self.n_edge,
        )

    def real_edges(self) -> list[tuple[int, int]]:
        """Edges that count (NumPy only): between voxels that count, no self-loops."""
        count = int(self.n_edge[0])
        pairs = zip(self.senders[:count].tolist(), self.receivers[:count].tolist(), strict=True)
        return [(i, j) for i, j in pairs if i != j and self.where[i] and self.where[j]]


def scene(seed=0, *, voxels=12, classes=5, experts=3, edges=30) -> Scene:
    """In NumPy f64. The first voxel is masked; the next three count, two of them unlabelled."""
    rng = np.random.default_rng(seed)
    real = edges - 4
    ends = rng.integers(0, voxels, (2, edges))
    ends[:, real:] = voxels
    omega = rng.random((experts, classes))
    omega /= omega.sum(0)
    omega[:, -1] *= classes == 1  # nobody teaches the last class
    labels, where = rng.integers(-1, classes, voxels), rng.random(voxels) < 0.7
    labels[1:3] = -1
    where[:4] = [False, True, True, True][:voxels]
    return Scene(
        rows={
            "student": 2 * rng.normal(size=(voxels, classes)),
            "teacher": 2 * rng.normal(size=(voxels, classes)),
            "experts": 2 * rng.normal(size=(experts, voxels, classes)),
            "student_features": rng.normal(size=(voxels, 6)),
            "teacher_features": rng.normal(size=(voxels, 4)),
        },
        labels=labels.astype(np.int32),
        where=where,
        senders=ends[0].astype(np.int32),
        receivers=ends[1].astype(np.int32),
        n_edge=np.array([real, edges - real], np.int32),
        projection=rng.normal(size=(6, 4)),
        class_weights=rng.random(classes) + 0.5,
        omega=omega,
    )


def to_jax(given: Scene, dtype=np.float32) -> Scene:
    def convert(array):
        array = np.asarray(array)
        return jnp.asarray(array, dtype if array.dtype.kind == "f" else array.dtype)

    return jax.tree.map(convert, given)


def map_rows(function: Callable, given: Scene) -> Scene:
    """Applies `function` to all per-voxel rows, with the voxel axis first."""
    rows = {
        name: np.moveaxis(function(np.moveaxis(array, -2, 0)), 0, -2)
        for name, array in given.rows.items()
    }
    return given._replace(rows=rows)


def subset(given: Scene) -> Scene:
    """The scene of the voxels that count alone."""
    kept = np.flatnonzero(given.where)
    index = {int(old): new for new, old in enumerate(kept)}
    edges = [(index[i], index[j]) for i, j in given.real_edges()]
    ends = np.array([*edges, (len(kept), len(kept))], np.int32).T
    return map_rows(lambda rows: rows[kept], given)._replace(
        labels=given.labels[kept],
        where=np.ones(len(kept), bool),
        senders=ends[0],
        receivers=ends[1],
        n_edge=np.array([len(edges), 1], np.int32),
    )


def with_garbage(given: Scene, seed=0) -> Scene:
    """NaN, infinities and huge numbers where the mask is False."""
    rng = np.random.default_rng(seed)

    def spoil(rows):
        garbage = rng.choice([np.nan, np.inf, -np.inf, 3e38, -3e38], rows.shape)
        return np.where(given.where.reshape(-1, *[1] * (rows.ndim - 1)), rows, garbage)

    return map_rows(spoil, given)


# --- every loss as one number ---------------------------------------------------------------


def _cross_entropy(s: Scene):
    values = losses.cross_entropy(
        s.rows["student"],
        s.labels,
        class_weights=s.class_weights,
        label_smoothing=SMOOTHING,
        where=s.where,
    )
    labelled = (s.labels >= 0) & (s.labels < s.class_weights.shape[0])
    return losses.masked_mean(values, where=s.where & labelled)


def _lovasz_softmax(s: Scene):
    return losses.lovasz_softmax(s.rows["student"], s.labels, where=s.where)


def _kl_divergence(s: Scene):
    values = losses.kl_divergence(
        s.rows["student"], s.rows["teacher"], temperature=TEMPERATURE, where=s.where
    )
    return losses.masked_mean(values, where=s.where)


def _decoupled_kl_divergence(s: Scene):
    values = losses.decoupled_kl_divergence(
        s.rows["student"],
        s.rows["teacher"],
        s.labels,
        temperature=TEMPERATURE,
        target_weight=ALPHA,
        non_target_weight=BETA,
        where=s.where,
    )
    in_range = (s.labels >= -1) & (s.labels < s.class_weights.shape[0])
    return losses.masked_mean(values, where=s.where & in_range)


def _feature_cosine(s: Scene):
    values = losses.feature_cosine(
        s.rows["student_features"],
        s.rows["teacher_features"],
        projection=s.projection,
        where=s.where,
    )
    return losses.masked_mean(values, where=s.where)


def _relational(s: Scene):
    values = losses.relational(
        s.rows["student_features"], s.rows["teacher_features"], s.graph(), where=s.where
    )
    counts = losses.edge_mask(s.graph(), s.where.shape[0], where=s.where)
    return losses.masked_mean(values, where=counts)


def _ihd_loss(s: Scene):
    total, _ = losses.ihd_loss(
        s.rows["student"],
        s.rows["teacher"],
        student_features=s.rows["student_features"],
        teacher_features=s.rows["teacher_features"],
        projection=s.projection,
        graph=s.graph(),
        weights=losses.information_weights(s.rows["teacher"], mode="confidence", where=s.where),
        where=s.where,
        temperature=TEMPERATURE,
        **IHD_WEIGHTS,
    )
    return total


def _asd_loss(s: Scene, unlabelled):
    return losses.asd_loss(
        s.rows["student"],
        s.rows["experts"],
        s.omega,
        s.labels,
        temperature=TEMPERATURE,
        unlabelled=unlabelled,
        where=s.where,
    )


LOSSES: dict[str, Callable[[Scene], jax.Array]] = {
    "cross_entropy": _cross_entropy,
    "lovasz_softmax": _lovasz_softmax,
    "kl_divergence": _kl_divergence,
    "decoupled_kl_divergence": _decoupled_kl_divergence,
    "feature_cosine": _feature_cosine,
    "relational": _relational,
    "ihd_loss": _ihd_loss,
    "asd_loss": functools.partial(_asd_loss, unlabelled="consensus"),
    "asd_loss of labelled voxels": functools.partial(_asd_loss, unlabelled="ignore"),
}


@functools.cache
def value_and_grad(name: str) -> Callable[[Scene], tuple[jax.Array, dict[str, jax.Array]]]:
    """Jitted: the loss, and its gradient with respect to every per-voxel row."""

    def loss(rows, rest):
        return LOSSES[name](rest._replace(rows=rows))

    compiled = jax.jit(jax.value_and_grad(loss))
    return lambda given: compiled(given.rows, given)


# --- the same by the oracle ------------------------------------------------------------------


def expected(name: str, s: Scene) -> float:
    """`s` in NumPy; everything over the voxels that count."""
    valid = np.flatnonzero(s.where)
    labelled = [i for i in valid if s.labels[i] >= 0]
    student, teacher, experts = s.rows["student"], s.rows["teacher"], s.rows["experts"]
    features = s.rows["student_features"], s.rows["teacher_features"]

    def mean(values, weights=None):
        return np.average(values, weights=weights) if len(values) else 0.0

    def kl():
        return [oracle.kl_divergence(student[i], teacher[i], TEMPERATURE) for i in valid]

    def cosine():
        return [1 - oracle.cosine(features[0][i] @ s.projection, features[1][i]) for i in valid]

    if name == "cross_entropy":
        return mean(
            [
                oracle.cross_entropy(student[i], s.labels[i], s.class_weights, SMOOTHING)
                for i in labelled
            ]
        )
    if name == "lovasz_softmax":
        return oracle.lovasz_softmax(student[labelled], s.labels[labelled])
    if name == "kl_divergence":
        return mean(kl())
    if name == "decoupled_kl_divergence":
        options = TEMPERATURE, ALPHA, BETA
        return mean(
            [
                oracle.decoupled_kl_divergence(student[i], teacher[i], s.labels[i], *options)
                for i in valid
            ]
        )
    if name == "feature_cosine":
        return mean(cosine())
    if name == "relational":
        return mean(oracle.relational(*features, s.real_edges()))
    if name == "ihd_loss":
        return (
            IHD_WEIGHTS["logit_weight"] * mean(kl(), [oracle.confidence(teacher[i]) for i in valid])
            + IHD_WEIGHTS["feature_weight"] * mean(cosine())
            + IHD_WEIGHTS["relation_weight"] * mean(oracle.relational(*features, s.real_edges()))
        )
    unlabelled = "ignore" if name == "asd_loss of labelled voxels" else "consensus"
    values = [
        oracle.adept_divergence(
            student[i], experts[:, i], s.omega, s.labels[i], TEMPERATURE, unlabelled
        )
        for i in valid
    ]
    return mean([value for value in values if value is not None])
