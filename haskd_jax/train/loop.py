"""The training loop: steps, snapshots at the ends of cycles, checkpoints, and what stops it."""

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Float, Int, PyTree

from haskd_jax.data.loader import Loader
from haskd_jax.data.loader_batch import Batch
from haskd_jax.data.loader_iterator import BatchIterator
from haskd_jax.train.checkpoints import Checkpoints, save_weights
from haskd_jax.train.compilations import count_compilations
from haskd_jax.train.experts import with_experts
from haskd_jax.train.log import Log
from haskd_jax.train.mesh import put_batches, put_whole, replicated
from haskd_jax.train.objectives import Guides
from haskd_jax.train.optimizer import cycle_ends, make_optimizer, make_schedule
from haskd_jax.train.snapshots import Snapshot, Snapshots
from haskd_jax.train.state import TrainState, deployed
from haskd_jax.train.step import Task, make_step
from haskd_jax.train.stopping import Stopped, save_batch, sigterm

_logger = logging.getLogger(__name__)

# From parameters and running statistics, on the host, to the IoU of every class on the calibration
# scenes, [C], NaN for classes that they lack; and to how many points are of the class, [C].
Calibrate = Callable[[PyTree, PyTree], tuple[Float[np.ndarray, " C"], Int[np.ndarray, " C"]]]
# To what the log keeps, "miou" among it.
Evaluate = Callable[[PyTree, PyTree], Mapping[str, Any]]
Show = Callable[[int, Mapping[str, float]], None]

_AGREED = 10  # steps, after which several processes ask each other whether to leave


def fit(
    task: Task,
    loader: Loader,
    folder: Path,
    *,
    mesh: Mesh,
    guides: Guides | None = None,
    online: bool = False,
    calibrate: Calibrate | None = None,
    evaluate: Evaluate | None = None,
    show: Show | None = None,
    wandb: str | None = None,
) -> TrainState:
    """Trains, going on where an earlier run of the same training was ended, however it was.

    Args:
        task: What is trained.
        loader: Of one device's batches, with capacities.
        folder: Gets checkpoints, snapshots, log and weights.
        mesh: The devices, of all processes.
        guides: The networks that teach; their arrays on the host.
        online: Each cycle's snapshot joins the bank and teaches from the next cycle on.
        calibrate: Needed with a cyclic schedule.
        evaluate: Gives what the log keeps every `evaluate_every` steps.
        show: Told of every step that is logged.
        wandb: The name of a wandb project.

    Returns:
        The state after the last step.

    Raises:
        Stopped: SIGTERM came; all is saved.
        FloatingPointError: Loss or gradient is not finite; names the step and the file that holds
            its batch.
        ValueError: A checkpoint is of another network or of other data.
    """
    config = task.config
    ends = cycle_ends(config.optimizer, config.steps)
    if ends and calibrate is None:
        raise ValueError("calibrate: None, but the cyclic schedule leaves snapshots to calibrate")
    optimizer = make_optimizer(config.optimizer, config.steps)
    # Under jit it is one program; operation by operation it would be twenty.
    rate = jax.jit(make_schedule(config.optimizer, config.steps))
    step = make_step(task, optimizer, mesh)
    state = task.init(optimizer, mesh)
    guides = Guides() if guides is None else guides
    capacities = {size[0]: size for size in loader.capacities or ()}
    first_process = jax.process_index() == 0

    with ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(folder / "checkpoints", keep=config.keep))
        snapshots = Snapshots(folder / "snapshots")
        iterators = [
            stack.enter_context(part.batches(threads=config.threads))
            for part in _parts(loader, mesh)
        ]
        restored = checkpoints.restore(state)
        done = 0
        if restored is not None:
            done, state = restored.step, restored.state
            try:
                _set_state(iterators, restored.loader_state)
            except ValueError as error:
                raise ValueError(
                    f"{folder}: its training cannot be gone on with: {error}. Remove the folder to "
                    "train anew, or go on with the options and the version it was begun with"
                ) from error
            _logger.info("%s: going on after step %d", folder, done)
        experts: list[Snapshot] = []
        if ends:
            experts = snapshots.load(*_like(state), up_to_step=done)
        if online:
            guides = with_experts(guides, experts, len(ends) - 1, task)
        on_devices = put_whole(mesh, guides)
        log = stack.enter_context(Log(folder, step=done, enabled=first_process, wandb=wandb))
        terminated = stack.enter_context(sigterm())
        if guides.bank is not None and not online and restored is None:
            log.write(
                0, experts=np.asarray(guides.bank.iou), adeptness=np.asarray(guides.adeptness)
            )
        compilations = count_compilations()
        pending: tuple[int, list[Batch], Mapping[str, jax.Array]] | None = None
        begun = since = time.perf_counter()
        logged = done
        scores: dict[str, float] = {}  # the last mIoU on calibration scenes, to be shown

        def check(pending) -> dict[str, float]:
            """The numbers of a step, which are waited for while the next one runs."""
            number, batches, metrics = pending
            values = {name: float(value) for name, value in metrics.items()}
            # A gradient that is not finite spoils the parameters before the loss shows it.
            finite = np.isfinite([values["loss"], values["gradient_norm"]]).all()
            if not finite or values["overflow"]:
                _stop(folder, number, batches, loader.scenes, values)
            return values

        while done < config.steps:
            batches = [next(iterator) for iterator in iterators]
            capacity = capacities[len(batches[0].coords)]
            state, metrics = step(state, put_batches(mesh, batches), on_devices, capacity=capacity)
            if pending is not None:
                check(pending)
            done += 1
            pending = done, batches, metrics
            leave = _any_process(terminated, done % _AGREED == 0)
            whole = done in ends or leave or done == config.steps
            evaluates = bool(config.evaluate_every) and done % config.evaluate_every == 0
            if whole or evaluates or done % config.log_every == 0 or done % config.save_every == 0:
                values = check(pending)
                now = time.perf_counter()
                with jax.numpy_dtype_promotion("standard"):  # as optax needs it
                    learning_rate = float(rate((done - 1) // config.optimizer.accumulate))
                numbers = {
                    "loss": values.pop("loss"),
                    "left_out": values.pop("left_out"),
                    "learning_rate": learning_rate,
                    "seconds": now - begun,
                    "step_seconds": (now - since) / max(1, done - logged),
                }
                del values["overflow"]
                log.write(done, **numbers, terms=values)
                since, logged = now, done
                if show is not None:
                    show(done, numbers | scores)
            if done in ends:
                assert calibrate is not None
                params, running = to_host(deployed(state), mesh)
                iou, counts = calibrate(params, running)
                snapshot = Snapshot(ends.index(done), done, params, running, iou, counts)
                snapshots.save(snapshot)
                experts.append(snapshot)
                scores = {"miou": float(np.mean(iou[counts > 0]))}
                if online:
                    guides = with_experts(guides, experts, len(ends) - 1, task)
                    on_devices = put_whole(mesh, guides)
                log.write(
                    done,
                    cycle=snapshot.cycle,
                    iou=iou,
                    adeptness=None if guides.adeptness is None else np.asarray(guides.adeptness),
                )
                since = time.perf_counter()
            if evaluates and evaluate is not None:
                found = dict(evaluate(*to_host(deployed(state), mesh)))
                log.write(done, evaluation=found)
                scores = {"miou": found["miou"]}
                since = time.perf_counter()
            if leave or done == config.steps or done % config.save_every == 0:
                checkpoints.save(done, state, _state_of(iterators))
            if leave and done < config.steps:
                checkpoints.wait()
                raise Stopped(f"{folder}: stopped by SIGTERM and saved after step {done}")
        checkpoints.wait()
        _logger.info("%s: %d compilations", folder, compilations())
        log.write(done, compilations=compilations())
        save_weights(folder, *to_host(deployed(state), mesh))
        # SIGTERM during the last step, its calibration or the saving: what comes next is not begun.
        if _any_process(terminated, True):
            raise Stopped(f"{folder}: stopped by SIGTERM when it was done")
    return state


def to_host(tree: PyTree, mesh: Mesh) -> PyTree:
    """Whole arrays on the host of every process, gathered if they were spread."""
    return jax.tree.map(np.asarray, _gather(mesh)(tree))


@functools.cache  # or every call would compile
def _gather(mesh: Mesh) -> Callable[[PyTree], PyTree]:
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


def _like(state: TrainState) -> tuple[PyTree, PyTree]:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), deployed(state))


def _parts(loader: Loader, mesh: Mesh) -> list[Loader]:
    """A loader for each device of this process."""
    own = [
        i
        for i, device in enumerate(mesh.devices.flat)
        if device.process_index == jax.process_index()
    ]
    return [replace(loader, process=number, processes=mesh.size) for number in own]


def _state_of(iterators: Sequence[BatchIterator]) -> dict[str, Any]:
    return iterators[0].get_state()


def _set_state(iterators: Sequence[BatchIterator], saved: Mapping[str, Any]) -> None:
    """All devices stand at the same step; a checkpoint keeps the first one's state."""
    for iterator in iterators:
        own = iterator.get_state()["loader"]["process"]
        iterator.set_state({**saved, "loader": {**saved["loader"], "process": own}})


def _any_process(terminated: list[int], agreed: bool) -> bool:
    """Whether to leave after this step; several processes leave together, at agreed steps."""
    if jax.process_count() == 1:
        return bool(terminated)
    if not agreed:
        return False
    return bool(multihost_utils.process_allgather(np.array(bool(terminated))).any())


def _stop(
    folder: Path,
    step: int,
    batches: list[Batch],
    scenes: Sequence[str],
    values: Mapping[str, float],
) -> None:
    arrays = {
        f"device{i}/{name}": array
        for i, batch in enumerate(batches)
        for name, array in batch._asdict().items()
    }
    path = save_batch(folder, step, arrays)
    names = ", ".join(scenes[i] for batch in batches for i in batch.scene.tolist() if i >= 0)
    numbers = ", ".join(f"{name} {value:.6g}" for name, value in values.items())
    reason = "loss or gradient is not finite"
    advice = "lower the learning rate, or look at the scenes with haskd doctor"
    if values["overflow"]:  # batches are cropped to their capacities before
        reason = "voxels did not fit their grids"
        advice = (
            "was capacities.json changed? Remove the folder to measure and train anew; or does a "
            "backbone of your own make more grids than its attribute levels says"
        )
    raise FloatingPointError(
        f"step {step}: {reason} ({numbers}); scenes {names}; the batch is in {path}: {advice}; "
        "checkpoints of earlier steps stay"
    )
