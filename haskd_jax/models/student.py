"""What a student is, and how its parameters come out as plain pytrees."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from flax import nnx
from jaxtyping import Array, Float, PyTree

from haskd_jax.sparse import Pyramid, VoxelGrid


@runtime_checkable
class Student(Protocol):
    """A network from voxels to logits: all that training asks of it. An `nnx.Module`.

    Rows of the result beyond the grid's mask are the caller's to leave out; rows of the features
    there may hold anything.

    Attributes:
      num_features: F, width of the penultimate features.
    """

    num_features: int

    def __call__(
        self, grid: VoxelGrid, maps: Pyramid, features: Float[Array, "V C"]
    ) -> tuple[Float[Array, "V F"], Float[Array, "V classes"]]:
        """Computes penultimate features and logits.

        Args:
          grid: the finest grid.
          maps: its pyramid; `maps.grids[0]` is `grid`.
          features: `[V, C]`, of the grid's voxels.
        """
        ...


@runtime_checkable
class FusingStudent(Protocol):
    """A student that takes features of another modality at some levels of its decoder.

    Attributes:
      num_features: as of `Student`.
      extra_features: for each level that takes extras, 0 the finest, their width.
    """

    num_features: int
    extra_features: Mapping[int, int]

    def __call__(
        self,
        grid: VoxelGrid,
        maps: Pyramid,
        features: Float[Array, "V C"],
        extras: Mapping[int, Float[Array, "V_l F_l"]] | None = None,
    ) -> tuple[Float[Array, "V F"], Float[Array, "V classes"]]:
        """As `Student`; adds `extras` to its own features. Zero rows must change nothing."""
        ...


def functional(
    module: nnx.Module, *, frozen: Sequence[str] = ()
) -> tuple[Callable[..., tuple[Any, PyTree]], PyTree, PyTree]:
    """Splits a module into a pure function and plain nested dictionaries of arrays.

    Args:
      module: any; left as it is.
      frozen: names of its submodules that are not trained. Their parameters are part of the state,
        and they use their running statistics.

    Returns:
      - `apply(params, state, *args, train, **kwargs) -> outputs, state`, which calls the module
        with `args` and `kwargs`, with the batch's statistics if `train`, else the running ones;
      - `params`, what is trained (`nnx.Param`);
      - `state`, all else: running statistics, and what is frozen.

    Raises:
      ValueError: `frozen` names what is no submodule.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from haskd_jax import models
      >>> apply, params, state = models.functional(models.BatchNorm(1))
      >>> x, mask = jnp.array([[1.0], [3.0]]), jnp.array([True, True])
      >>> y, state = jax.jit(apply, static_argnames="train")(params, state, x, mask, train=True)
      >>> state["mean"].tolist(), sorted(params)
      ([2.0], ['bias', 'scale'])
    """
    for name in frozen:
        if not isinstance(getattr(module, name, None), nnx.Module):
            raise ValueError(f"frozen: {name!r} is no submodule of {type(module).__name__}")
    trained = nnx.All(nnx.Param, lambda path, _: path[0] not in frozen)
    graph, *trees = nnx.split(module, trained, ...)
    params, state = (nnx.to_pure_dict(tree) for tree in trees)

    def apply(params: PyTree, state: PyTree, *args, train: bool, **kwargs):
        module = nnx.merge(graph, params, state)
        if train:
            module.train()
            for name in frozen:
                getattr(module, name).eval()
        else:
            module.eval()
        outputs = module(*args, **kwargs)
        split = nnx.split(module, trained, ...)
        return outputs, nnx.to_pure_dict(split[-1])

    return apply, params, state
