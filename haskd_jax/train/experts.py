"""Snapshots become the experts that teach."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from haskd_jax import models
from haskd_jax.train.objectives import Guides
from haskd_jax.train.snapshots import Snapshot
from haskd_jax.train.step import Task


def with_experts(
    guides: Guides, snapshots: Sequence[Snapshot], capacity: int, task: Task
) -> Guides:
    """The guides with a bank of snapshots, the last of which is the student as it was then.

    Args:
        guides: Who else teaches.
        snapshots: In order of their cycles.
        capacity: Slots of the bank; snapshots beyond it do not join.
        task: Says who teaches what.

    Returns:
        The guides; without a bank where there is no snapshot yet, or no slot. Where the experts
        teach offline the bank has no parameters: what they said comes with the batches.
    """
    config = task.asd
    if not snapshots or not capacity or not config.weight:
        return guides
    first = snapshots[0]
    bank = models.empty_bank(
        first.params, first.state, capacity=capacity, num_classes=len(first.iou)
    )
    for snapshot in snapshots[:capacity]:
        iou = snapshot.iou.astype(np.float32)
        bank = models.add_expert(bank, snapshot.params, snapshot.state, iou)
    if task.alike:
        filled = np.asarray(bank.filled)
        share = np.where(filled, 1 / filled.sum(), 0).astype(np.float32)
        omega = np.tile(share[:, None], (1, len(first.iou)))
    else:
        options: dict[str, Any] = {"mode": config.adeptness, "counts": snapshots[-1].counts}
        if config.adeptness == "soft":
            options["temperature"] = config.sharpness
        if config.margin is not None:
            options |= {"student_iou": snapshots[-1].iou.astype(np.float32)}
            options |= {"margin": config.margin}
        omega = np.asarray(models.bank_adeptness(bank, shrinkage=config.shrinkage, **options))
    if config.teaching == "offline":
        bank = replace(bank, params={}, state={})
    return replace(guides, bank=bank, adeptness=jax.device_put(omega))
