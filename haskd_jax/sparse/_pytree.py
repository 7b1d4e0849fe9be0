"""Frozen dataclasses as pytrees."""

import dataclasses
from typing import dataclass_transform

import jax

static = {"static": True}  # metadata of a field that is part of the structure, not an array


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def pytree(cls):
    """Makes a class a frozen dataclass and a pytree; `metadata=static` marks fields of structure.

    `jax.tree_util.register_dataclass` rebuilds through `__init__`, where checks of types and shapes
    hold for what users pass, not for what JAX puts in the arrays' places (shapes, axes, batches).
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)
    arrays = [f.name for f in fields if not f.metadata.get("static")]
    structure = [f.name for f in fields if f.metadata.get("static")]

    def flatten(node):
        leaves = [(jax.tree_util.GetAttrKey(name), getattr(node, name)) for name in arrays]
        return leaves, tuple(getattr(node, name) for name in structure)

    def unflatten(aux, leaves):
        node = object.__new__(cls)
        for name, value in zip(arrays + structure, (*leaves, *aux), strict=True):
            object.__setattr__(node, name, value)
        return node

    jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
    return cls
