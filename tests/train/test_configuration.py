"""Cards, configurations, schedules, logs: what a training is before its first step."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax import models
from haskd_jax.experiments.arms import ARMS, in_order
from haskd_jax.experiments.config import ClusterConfig, ScenesConfig, ViewsConfig
from haskd_jax.experiments.synthrooms import SynthRoomsExperiment
from haskd_jax.train.card import ModelCard, ModelConfig, TeacherConfig, read_card, write_card
from haskd_jax.train.config import ASDConfig, IHDConfig, OptimizerConfig, TrainConfig
from haskd_jax.train.log import Log, read_log
from haskd_jax.train.networks import make_network
from haskd_jax.train.optimizer import cycle_ends, make_optimizer, make_schedule

CARD = ModelCard("student", ModelConfig(), "rooms", ("wall", "floor"), 0.05)


class TestCard:
    def test_round_trip(self, tmp_path):
        card = ModelCard(
            "teacher",
            ModelConfig(channels=(8, 8), blocks=(1, 1), dtype="bfloat16"),
            "rooms",
            ("wall",),
            0.02,
            TeacherConfig(image_channels=(4,)),
        )
        write_card(tmp_path, card)
        assert read_card(tmp_path) == card

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "not readable as JSON"),
            ("[]", "not the card of a model"),
            ('{"format": "haskd-model", "version": 9}', "version 9, this package reads 1"),
            ('{"format": "haskd-model", "version": 1, "card": {"kind": "pupil"}}', "pupil"),
        ],
    )
    def test_damage_is_named(self, tmp_path, text, message):
        (tmp_path / "card.json").write_text(text)
        with pytest.raises(ValueError, match=message) as error:
            read_card(tmp_path)
        assert str(tmp_path / "card.json") in str(error.value)

    def test_no_folder_of_a_training(self, tmp_path):
        with pytest.raises(ValueError, match=r"card.json: missing: is .* the folder of a training"):
            read_card(tmp_path)

    def test_a_student_has_no_teacher(self):
        with pytest.raises(ValueError, match=r"teacher: .* for a student"):
            ModelCard("student", ModelConfig(), "rooms", ("wall",), 0.05, TeacherConfig())

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (ModelConfig(family="pointnet"), "model.family: 'pointnet', expected minkunet, spvcnn"),
            (ModelConfig(shape="huge"), "model.shape: 'huge', expected one of minkunet14a"),
            (ModelConfig(family="no.such:Net"), "cannot be imported"),
            (
                ModelConfig(family=f"{__name__}:own_network", dtype="bfloat16"),
                "model.dtype: bfloat16, but .*:own_network has no argument dtype",
            ),
        ],
    )
    def test_unknown_networks(self, model, message):
        with pytest.raises(ValueError, match=message):
            make_network(ModelCard("student", model, "rooms", ("wall",), 0.05))

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_a_network_of_ones_own_computes_in_what_is_asked(self, dtype):
        model = ModelConfig(family=f"{__name__}:own_network_of_a_dtype", dtype=dtype)
        make_network(ModelCard("student", model, "rooms", ("wall",), 0.05))
        assert asked == [jnp.dtype(dtype)]

    def test_every_family_has_the_shapes_it_draws(self):
        small = {"channels": (8, 8), "blocks": (1, 1), "stem": 8, "stem_kernel": 3}
        for family in ("minkunet", "spvcnn"):
            card = ModelCard("student", ModelConfig(family, **small), "rooms", ("wall",), 0.05)
            network = make_network(card)
            drawn = network.init(3)
            assert jax.tree.structure(drawn) == jax.tree.structure(network.shapes)
            same = jax.tree.map(
                lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), drawn, network.shapes
            )
            assert all(jax.tree.leaves(same))
            assert network.levels == 1


asked = []


def own_network(*, in_channels, num_classes, axis_name, rngs):
    small = models.MinkUNetConfig((8, 8), (1, 1), stem=8, stem_kernel=3)
    return models.MinkUNet(small, in_channels, num_classes, axis_name=axis_name, rngs=rngs)


def own_network_of_a_dtype(*, dtype, **options):
    asked[:] = [dtype]
    return own_network(**options)


class TestSchedules:
    @pytest.mark.parametrize("schedule", ["onecycle", "poly"])
    def test_falls_to_nothing(self, schedule):
        with jax.numpy_dtype_promotion("standard"):
            rate = make_schedule(OptimizerConfig(schedule=schedule, learning_rate=0.5), 200)
            values = np.array([rate(i) for i in range(0, 201, 10)])
        assert values.max() == pytest.approx(0.5, rel=0.05)
        assert values[-1] < 1e-3 and np.all(np.diff(values[2:]) < 0)

    def test_cycles_restart_where_snapshots_are_taken(self):
        config = OptimizerConfig(
            schedule="cyclic", cycles=3, first_cycle=0.5, restart=0.4, learning_rate=1.0
        )
        ends = cycle_ends(config, 120)
        assert ends == (60, 90, 120)
        with jax.numpy_dtype_promotion("standard"):
            rate = make_schedule(config, 120)
            assert float(rate(59)) < 0.02 and float(rate(60)) == pytest.approx(0.4)
            assert float(rate(89)) < 0.02 and float(rate(90)) == pytest.approx(0.4)

    @pytest.mark.parametrize(
        ("steps", "accumulate", "cycles", "first"),
        [(501, 3, 4, None), (1000, 4, 2, None), (602, 7, 2, 0.7)],
    )
    def test_snapshots_are_taken_after_the_smallest_steps(self, steps, accumulate, cycles, first):
        """With accumulation too: as far as the parameters move just before."""
        config = OptimizerConfig(
            name="sgd", learning_rate=1.0, momentum=0.0, weight_decay=0.0, clip=0.0,
            schedule="cyclic", cycles=cycles, first_cycle=first, accumulate=accumulate,
        )  # fmt: skip
        params = {"w": jnp.zeros(())}
        optimizer = make_optimizer(config, steps)
        moved = []
        with jax.numpy_dtype_promotion("standard"):
            update, state = jax.jit(optimizer.update), optimizer.init(params)
            for _ in range(steps):
                change, state = update({"w": jnp.ones(())}, state, params)
                moved.append(-float(change["w"]))
        ends = cycle_ends(config, steps)
        assert len(ends) == cycles and ends[-1] == steps
        lengths = np.diff([0, *ends]) / accumulate
        for end, length in zip(ends, lengths, strict=True):
            assert 0 < moved[end - 1] <= 0.011 + np.pi**2 / (4 * (0.9 * length) ** 2)
        assert np.count_nonzero(moved) == steps // accumulate

    def test_cycles_that_do_not_fit(self):
        with pytest.raises(ValueError, match="cycles: 5 do not fit into 5 changes"):
            cycle_ends(OptimizerConfig(schedule="cyclic", cycles=5), 5)

    def test_muon_moves_weights_by_what_a_singular_value_decomposition_says(self):
        """Of a kernel as one matrix from all inputs; singular values become nearly 1."""
        rng = np.random.default_rng(0)
        kernel = rng.normal(size=(27, 8, 12)).astype(np.float32)
        gradient = rng.normal(size=kernel.shape) * np.logspace(0, -2, 12)
        config = OptimizerConfig(
            name="muon", learning_rate=1.0, schedule="poly", weight_decay=0.0, clip=0.0
        )
        params = {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(12)}
        gradients = {"kernel": jnp.asarray(gradient, jnp.float32), "bias": jnp.ones(12)}
        with jax.numpy_dtype_promotion("standard"):
            optimizer = make_optimizer(config, 10)
            updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        moved = -np.asarray(updates["kernel"], np.float64).reshape(216, 12)
        left, _, right = np.linalg.svd(gradient.reshape(216, 12), full_matrices=False)
        # Five steps of Newton and Schulz leave singular values between 0.7 and 1.2.
        turned = left.T @ moved @ right.T / (0.2 * 216**0.5)
        sizes = np.diag(turned)
        assert np.all((sizes > 0.6) & (sizes < 1.3))
        assert np.abs(turned - np.diag(sizes)).max() < 0.01
        # The root mean square of a step is that of AdamW's, 0.2 of the rate.
        assert np.sqrt(np.mean(moved**2)) == pytest.approx(0.2, rel=0.3)
        # AdamW's, with Nesterov's momentum: of the rate's size, whatever the gradient's.
        assert np.all((updates["bias"] < -1) & (updates["bias"] > -2))

    @pytest.mark.parametrize("name", ["adamw", "muon"])
    def test_only_matrices_decay(self, name):
        config = OptimizerConfig(name=name, learning_rate=0.1, weight_decay=1.0, clip=0.0)
        params = {"kernel": jnp.ones((2, 2)), "scale": jnp.ones(2)}
        with jax.numpy_dtype_promotion("standard"):
            optimizer = make_optimizer(config, 10)
            state = optimizer.init(params)
            zero = jax.tree.map(jnp.zeros_like, params)
            updates, _ = optimizer.update(zero, state, params)
        assert np.all(np.asarray(updates["kernel"]) < 0)
        np.testing.assert_array_equal(updates["scale"], 0)

    def test_accumulated_batches_are_one(self):
        config = OptimizerConfig(name="sgd", learning_rate=0.1, clip=0.0, accumulate=2)
        once = OptimizerConfig(name="sgd", learning_rate=0.1, clip=0.0)
        params = {"w": jnp.ones((2, 2))}
        gradients = [{"w": jnp.full((2, 2), value)} for value in (1.0, 3.0)]
        with jax.numpy_dtype_promotion("standard"):
            optimizer = make_optimizer(config, 20)
            state = optimizer.init(params)
            first, state = optimizer.update(gradients[0], state, params)
            second, _ = optimizer.update(gradients[1], state, params)
            single = make_optimizer(once, 10)
            mean = {"w": jnp.full((2, 2), 2.0)}
            expected, _ = single.update(mean, single.init(params), params)
        np.testing.assert_array_equal(first["w"], 0)
        np.testing.assert_allclose(second["w"], expected["w"], rtol=1e-6)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"learning_rate": 0.0}, "learning_rate: 0.0, expected a positive"),
            ({"restart": -1.0}, "restart: -1.0"),
            ({"cycles": 0}, "cycles: 0, expected 1 or more"),
            ({"momentum": 1.0}, r"momentum: 1.0, expected a number in \[0, 1\)"),
            ({"first_cycle": 1.5}, r"first_cycle: 1.5, expected a share"),
        ],
    )
    def test_ranges(self, values, message):
        with pytest.raises(ValueError, match=message):
            OptimizerConfig(**values)

    def test_ranges_of_a_training(self):
        with pytest.raises(ValueError, match=r"steps: 10, expected a multiple .* 4: the last"):
            TrainConfig(steps=10, optimizer=OptimizerConfig(accumulate=4))
        with pytest.raises(ValueError, match="steps: 0, expected 1 or more"):
            TrainConfig(steps=0)


class TestExperiment:
    def test_arms_come_after_what_they_need(self):
        assert in_order(["haskd"]) == ("teacher", "haskd")
        assert in_order(["haskd"], offline=True) == ("teacher", "ihd_cyclic", "haskd")
        assert in_order(["asd"], offline=True) == ("cyclic", "asd")
        assert in_order(["snapshots"]) == ("cyclic", "snapshots")
        for name in ARMS:
            assert in_order([name])[-1] == name

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"train": TrainConfig(steps=4)}, "cycles: 5, but the parameters change 4 times"),
            ({"arms": ()}, "arms: none, expected one or more"),
            ({"stages": ()}, "stages: none, expected one or more"),
            ({"scenes": ScenesConfig(calibration=0)}, "scenes.calibration: 0, but experts"),
            (
                {"arms": ("asd",), "snapshots": "online", "scenes": ScenesConfig(calibration=0)},
                "scenes.calibration: 0, but experts",
            ),
            (
                {"arms": ("snapshots",), "scenes": ScenesConfig(calibration=0)},
                "scenes.calibration: 0, but experts",
            ),
            (
                {
                    "arms": ("plain",),
                    "scenes": ScenesConfig(calibration=0),
                    "train": TrainConfig(optimizer=OptimizerConfig(schedule="cyclic")),
                },
                "scenes.calibration: 0, but experts",
            ),
            (
                {"snapshots": "online", "asd": ASDConfig(teaching="offline")},
                "asd.teaching: offline needs finished snapshots",
            ),
            (
                {
                    "arms": ("asd",),
                    "snapshots": "online",
                    "train": TrainConfig(optimizer=OptimizerConfig(cycles=1)),
                },
                "cycles: 1, but online a snapshot teaches from the next",
            ),
            ({"asd": ASDConfig(margin=0.1)}, "asd.margin: needs online snapshots"),
            ({"pictures": -1}, "pictures: -1"),
            ({"ensemble": 0}, "ensemble: 0"),
        ],
    )
    def test_contradictions(self, values, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            SynthRoomsExperiment(out=tmp_path, **values)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: ScenesConfig(voxel_size=-1.0), "voxel_size: -1.0, expected a positive"),
            (
                lambda: ScenesConfig(labelled=0.5, labelled_list=Path("few.txt")),
                "give one of them",
            ),
            (lambda: ScenesConfig(mix=2.0), "mix: 2.0, expected a share"),
            (lambda: ScenesConfig(calibration=-1), "calibration: -1, expected 0 or more"),
            (lambda: ViewsConfig(rho=2.0), "rho: 2.0, expected a share"),
            (lambda: ClusterConfig(processes=2), "processes: 2, but the cluster is not enabled"),
            (lambda: ASDConfig(temperature=0.0), "temperature: 0.0, expected a positive"),
            (lambda: IHDConfig(weight=float("nan")), "weight: nan, expected 0 or more"),
            (lambda: TrainConfig(buckets=0), "buckets: 0, expected 1 or more"),
        ],
    )
    def test_ranges(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()


class TestLog:
    def test_goes_on_where_the_checkpoint_stands(self, tmp_path):
        with Log(tmp_path, step=0) as log:
            for step in range(1, 6):
                log.write(step, loss=float(step), iou=np.array([0.5, np.nan]))
        with Log(tmp_path, step=3) as log:
            log.write(4, loss=40.0)
        lines = read_log(tmp_path)
        assert [line["step"] for line in lines] == [1, 2, 3, 4]
        assert lines[0]["iou"] == [0.5, None] and lines[-1]["loss"] == 40.0

    def test_a_half_written_line_is_left_out(self, tmp_path):
        with Log(tmp_path, step=0) as log:
            log.write(1, loss=1.0)
        path = tmp_path / "metrics.jsonl"
        path.write_text(path.read_text() + json.dumps({"step": 2})[:5])
        assert [line["step"] for line in read_log(tmp_path)] == [1]

    def test_damage_is_named_by_line(self, tmp_path):
        (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n')
        with pytest.raises(ValueError, match=r"metrics.jsonl, line 2: no JSON"):
            read_log(tmp_path)

    def test_other_processes_write_nothing(self, tmp_path):
        with Log(tmp_path / "none", step=0, enabled=False) as log:
            log.write(1, loss=1.0)
        assert not (tmp_path / "none").exists()

    def test_wandb_gets_the_numbers_in_one_run_however_often_it_goes_on(
        self, tmp_path, monkeypatch
    ):
        """Of the real package `init(id=..., resume="allow")`, `log` and `finish` are called."""
        runs, logged, ended = [], [], []
        run = SimpleNamespace(
            log=lambda values, step: logged.append((step, values)), finish=lambda: ended.append(1)
        )
        monkeypatch.setitem(
            sys.modules, "wandb", SimpleNamespace(init=lambda **given: runs.append(given) or run)
        )
        for step in (0, 1):
            with Log(tmp_path / "plain", step=step, wandb="rooms") as log:
                log.write(step + 1, loss=0.5, terms={"asd": 2.0}, iou=[1.0], nothing=math.nan)
        first, second = runs
        assert first == second and first["resume"] == "allow" and first["id"]
        assert (first["project"], first["name"]) == ("rooms", "plain")
        assert logged == [(step, {"loss": 0.5, "terms/asd": 2.0}) for step in (1, 2)]
        assert len(ended) == 2

    def test_wandb_that_is_not_there(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "wandb", None)
        with pytest.raises(
            ValueError, match="wandb: 'rooms' is asked for, but wandb is not installed"
        ):
            Log(tmp_path, step=0, wandb="rooms")
