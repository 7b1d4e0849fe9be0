"""docs/backbones.md: its code runs as it stands, and trains like any student."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from haskd_jax import models

from .scenes import CAPACITIES, IMAGES, NUM_CLASSES, accuracy, scene, train
from .test_teacher import views


@pytest.fixture
def backbone(root):
    page = (root / "docs" / "backbones.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(code.splitlines()) < 40
    names = {}
    exec(compile(code, "backbones.md", "exec"), names)
    return names["MyBackbone"](3, NUM_CLASSES, rngs=nnx.Rngs(0))


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
