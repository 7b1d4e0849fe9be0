"""One training step: per device within `shard_map`, under `jax.jit` with shardings and donation."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, PyTree

from haskd_jax.data.loader_batch import Batch
from haskd_jax.train.config import ASDConfig, IHDConfig, TrainConfig
from haskd_jax.train.image_augmentation import augment_images
from haskd_jax.train.inputs import Inputs, make_inputs
from haskd_jax.train.mesh import DATA, replicated, spread
from haskd_jax.train.networks import Network, Output
from haskd_jax.train.objectives import Guides, Labels, adept, heterogeneous, supervised
from haskd_jax.train.state import TrainState, init_state

Metrics = dict[str, Float[Array, ""]]
Step = Callable[..., tuple[TrainState, Metrics]]


@dataclass(frozen=True)
class Task:
    """What is trained, and who teaches it.

    Attributes:
        network: A student or a teacher, made with `axis_name=DATA`.
        config: How.
        seed: Of its parameters and of what it draws.
        teacher: The teacher of a student; its weights come in `Guides`.
        ihd: How it teaches.
        asd: How the experts teach.
        alike: Every expert teaches every class alike: the control without adeptness.
    """

    network: Network
    config: TrainConfig
    seed: int = 0
    teacher: Network | None = None
    ihd: IHDConfig = field(default_factory=IHDConfig)
    asd: ASDConfig = field(default_factory=lambda: ASDConfig(weight=0.0))
    alike: bool = False

    @property
    def tolerance(self) -> float | None:
        """Of visibility; None where no network sees images."""
        own = self.network.tolerance
        return own if own is not None or self.teacher is None else self.teacher.tolerance

    def init(self, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
        """The state before the first step, where it belongs on the mesh."""

        def make(seed) -> TrainState:
            network, running = self.network.init(seed)
            params = {"network": network}
            if self.teacher is not None and self.ihd.weight and self.ihd.features:
                shape = self.network.num_features, self.teacher.num_features
                key = jax.random.key(seed)
                params["projection"] = jax.random.normal(key, shape, jnp.float32) / jnp.sqrt(
                    jnp.float32(shape[0])
                )
            ema = self.config.optimizer.ema > 0
            with jax.numpy_dtype_promotion("standard"):
                return init_state(params, running, optimizer, seed=seed, ema=ema)

        # The seed is an argument, so that runs of all seeds share one compilation.
        seed = np.int32(self.seed)
        shardings = self.shardings(mesh, jax.eval_shape(make, seed))
        return jax.jit(make, out_shardings=shardings)(seed)

    def shardings(self, mesh: Mesh, state: TrainState) -> PyTree:
        """Where each array of a state belongs."""
        if self.config.shard_parameters:
            return spread(mesh, state)
        return jax.tree.map(lambda _: replicated(mesh), state)


def make_step(task: Task, optimizer: optax.GradientTransformation, mesh: Mesh) -> Step:
    """The step of a task, compiled once for each capacity and for each kind of guides.

    Args:
        task: What is trained.
        optimizer: See `make_optimizer`.
        mesh: The devices.

    Returns:
        `step(state, batch, guides, *, capacity)` to the next state, whose arrays replace those of
        the first, and metrics: the loss, its terms, the voxels that did not fit their grids, which
        must be 0, and those that the loader left out, see `Batch.left_out`.
    """
    state_shape = jax.eval_shape(lambda: task.init(optimizer, mesh))
    shardings = task.shardings(mesh, state_shape)

    @partial(jax.jit, static_argnames="capacity", donate_argnums=0, out_shardings=(shardings, None))
    def step(
        state: TrainState, batch: Batch, guides: Guides, *, capacity: tuple[int, ...]
    ) -> tuple[TrainState, Metrics]:
        gradients, running, metrics = jax.shard_map(
            partial(_gradients, task, capacity),
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(DATA), PartitionSpec()),
            out_specs=PartitionSpec(),
        )((state.seed, state.step, state.params, state.state), batch, guides)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes Python floats and float32
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            metrics["gradient_norm"] = optax.tree.norm(gradients)
        ema = state.ema
        if ema is not None:
            decay = jnp.float32(task.config.optimizer.ema)
            # Bias of the first steps corrected by a shorter memory.
            count = state.step.astype(jnp.float32)
            decay = jnp.minimum(decay, (1 + count) / (10 + count))
            ema = jax.tree.map(
                lambda mean, new: decay * mean + (1 - decay) * new, ema, params["network"]
            )
        state = replace(
            state, step=state.step + 1, params=params, state=running, opt_state=opt_state, ema=ema
        )
        return state, metrics

    return step


def _gradients(task: Task, capacity: tuple[int, ...], state, batch: Batch, guides: Guides):
    """On each device: gradients and statistics of all devices' batches together."""
    seed, count, params, running = state
    batch = jax.tree.map(lambda leaf: leaf[0], batch)
    key = jax.random.fold_in(jax.random.key(seed), count)
    own_key, expert_key = jax.random.split(key)
    own_key = jax.random.fold_in(own_key, jax.lax.axis_index(DATA))
    inputs = make_inputs(batch, capacity, tolerance=task.tolerance)
    scenes = len(batch.scene)
    labels = Labels(
        jnp.asarray(batch.label), jnp.clip(jnp.asarray(batch.coords)[:, 0], 0, scenes - 1), scenes
    )
    teacher_said, experts_said = _said(task, guides, batch)

    def loss(params):
        own = inputs
        if own.views is not None and task.network.card.kind == "teacher":
            image_key, drop_key = jax.random.split(own_key)
            if task.config.image_augmentation:
                own = own._replace(views=augment_images(image_key, own.views))
        else:
            drop_key = None
        output, new = task.network.forward(
            params["network"], running, own, train=True, key=drop_key
        )
        total, terms = supervised(output, own, labels, task.config.loss, DATA)
        taught = _teaching(task, guides, inputs, teacher_said)
        if taught is not None and task.ihd.weight:
            more, added = heterogeneous(
                output, taught, inputs, labels, params.get("projection"), task.ihd, DATA
            )
            total, terms = total + more, terms | added
        if guides.bank is not None and task.asd.weight:
            more, added = adept(
                output, task.network, guides, inputs, labels, task.asd, expert_key, DATA,
                said=experts_said,
            )  # fmt: skip
            total, terms = total + more, terms | added
        return total, (new, terms)

    (total, (new, terms)), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    lost = jax.lax.psum(inputs.maps.overflow, DATA).astype(jnp.float32)
    left_out = jax.lax.psum(batch.left_out, DATA).astype(jnp.float32)
    return gradients, new, {"loss": total, **terms, "overflow": lost, "left_out": left_out}


def _said(
    task: Task, guides: Guides, batch: Batch
) -> tuple[Float[Array, "T V C"], Float[Array, "M V C"] | None]:
    """What was said of the batch's points before: by a teacher or none, and by the experts."""
    said = jnp.moveaxis(jnp.asarray(batch.soft).astype(jnp.float32), 1, 0)
    if guides.bank is None or task.asd.teaching == "online":
        return said, None
    first = len(said) - len(guides.bank.iou)
    return said[:first], said[first:]


def _teaching(
    task: Task, guides: Guides, inputs: Inputs, said: Float[Array, "T V C"]
) -> Output | None:
    """What the teacher says of the batch: now, or of its points when it saw them before."""
    if guides.teacher is not None and task.teacher is not None:
        return task.teacher.forward(*guides.teacher, inputs, train=False)[0]
    if len(said):
        (logits,) = said
        return Output(features=logits[:, :0], logits=logits)
    return None
