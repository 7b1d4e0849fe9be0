"""experiments/synthrooms/adeptness.py: what two halves of the rooms agree on."""

import numpy as np
import pytest


@pytest.fixture
def agreement(script):
    return script("adeptness").agreement


def test_halves_that_agree_and_classes_that_one_lacks(agreement):
    half = np.array([[0.9, 0.2, 0.5, np.nan], [0.1, 0.6, 0.5, 0.3]])
    classes, correlation, same, gain = agreement(np.stack([half, half]))
    assert (classes, same) == (3, 1.0) and correlation == pytest.approx(1)
    # By class (0.9 + 0.6 + 0.5) / 3, against (0.9 + 0.2 + 0.5) / 3 of the better snapshot.
    assert gain == pytest.approx(0.4 / 3)


def test_halves_that_contradict_each_other(agreement):
    half = np.array([[0.6, 0.4], [0.4, 0.5]])
    classes, correlation, same, gain = agreement(np.stack([half, half[:, ::-1]]))
    assert (classes, same) == (2, 0.0) and correlation == pytest.approx(-1)
    # Chosen by the other half: snapshot 0 for one class and 1 for the other, which score 0.4 each.
    assert gain == pytest.approx(0.4 - 0.5)


def test_a_snapshot_that_is_better_at_everything_is_no_adeptness(agreement):
    """What is left without the means of snapshots and classes is noise, here none in common."""
    rng = np.random.default_rng(0)
    level = np.array([[0.2], [0.5]]) + np.linspace(0, 0.3, 400)
    noisy = level + rng.normal(scale=0.01, size=(2, 2, 400))
    _, correlation, same, gain = agreement(noisy)
    assert abs(correlation) < 0.15 and 0.4 < same < 0.6 and gain == pytest.approx(0, abs=1e-12)
