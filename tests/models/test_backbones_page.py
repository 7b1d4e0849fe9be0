"""docs/backbones.md: its code runs as it stands, and trains like any student."""

import functools
import importlib
import re
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from haskd_jax import models
from haskd_jax.train.card import ModelCard, ModelConfig
from haskd_jax.train.networks import OWN_LEVELS, make_network

from .scenes import CAPACITIES, IMAGES, NUM_CLASSES, accuracy, scene, train
from .test_teacher import views


@pytest.fixture
def family(root, tmp_path, monkeypatch):
    """What `--model.family` takes, with the page's code saved as a module."""
    page = (root / "docs" / "backbones.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(code.splitlines()) < 40
    (tmp_path / "backbones_page.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "backbones_page", raising=False)
    return "backbones_page:MyBackbone"


@pytest.fixture
def backbone(family):
    module, _, name = family.partition(":")
    return getattr(importlib.import_module(module), name)(3, NUM_CLASSES, rngs=nnx.Rngs(0))


def test_training_builds_it_from_the_command_lines_name(family):
    card = ModelCard("student", ModelConfig(family), "rooms", ("wall", "floor"), 0.05)
    network = make_network(card)
    params, _ = network.init(0)
    assert network.levels == OWN_LEVELS
    assert jax.tree.leaves(params)
    with pytest.raises(ValueError, match="has no argument dtype"):
        make_network(replace(card, model=ModelConfig(family, dtype="bfloat16")))


def test_it_follows_the_protocol(backbone):
    assert isinstance(backbone, models.Student)
    assert isinstance(backbone, models.FusingStudent)
    apply, params, state = models.functional(backbone)
    run = jax.jit(functools.partial(apply, train=True))
    small, large = (
        scene(capacities=tuple(c + more for c in CAPACITIES), garbage=garbage)
        for more, garbage in ((0, 0.0), (64, np.nan))
    )
    (features, logits), _ = run(params, state, small.grid, small.maps, small.features)
    (_, padded), _ = run(params, state, large.grid, large.maps, large.features)
    assert features.shape == (CAPACITIES[0], backbone.num_features)
    np.testing.assert_allclose(padded[: CAPACITIES[0]], logits, atol=1e-5)


def test_it_trains(backbone):
    trained = train(backbone, scene(), steps=60)
    assert accuracy(*trained, scene()) >= 0.95


def test_a_teacher_is_built_around_it(backbone):
    teacher = models.Teacher(backbone, IMAGES, num_classes=NUM_CLASSES, rngs=nnx.Rngs(1))
    apply, params, state = models.functional(teacher)
    data, (images, given) = scene(), views()
    run = jax.jit(functools.partial(apply, train=False))
    args = params, state, data.grid, data.maps, data.features
    one, other = (run(*args, x, **given)[0] for x in (images, 1 - images))
    assert teacher.late is None
    assert np.isfinite(one.logits).all()
    assert jnp.abs(one.logits - other.logits).max() > 1e-4
