"""Sweeps over seeds: their tables from records written by hand, their processes from tiny runs."""

import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import get_args, get_type_hints

import msgspec
import numpy as np
import pytest
from scipy import stats

from haskd_jax.experiments import sweep, synthrooms
from haskd_jax.experiments.config import ScenesConfig
from haskd_jax.experiments.sweep_tables import (
    read_seed,
    setting_in_words,
    training_seconds,
    write_tables,
)
from haskd_jax.files import write_json
from haskd_jax.report import read_results, write_report
from haskd_jax.train.config import OptimizerConfig
from tests.report import fake

ARMS = ("plain", "cyclic", "snapshots")
SEEDS = (3, 4, 5)
RARE = [2, 3]  # of the classes that occur, by `truth` below


def truth(c):
    """How many points are of class c: two rare ones, one that does not occur."""
    return {0: 60_000, 1: 39_400, 2: 500, 3: 100}.get(c, 0)


def confusion(rng):
    matrix = np.zeros((fake.C, fake.C), np.int64)
    for c in range(4):
        right = int(truth(c) * rng.uniform(0.3, 0.9))
        matrix[c, c], matrix[c, (c + 1) % 5] = right, truth(c) - right
    return matrix


def line(step, seconds, step_seconds):
    return json.dumps({"step": step, "seconds": seconds, "step_seconds": step_seconds}) + "\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Three seeds of three arms; gives the folder, and the confusion matrices by arm and seed."""
    out = tmp_path_factory.mktemp("sweep")
    rng = np.random.default_rng(0)
    found = {}
    for seed in SEEDS:
        folder = out / f"seed_{seed}"
        folder.mkdir()
        run = {"format": "haskd-run", "version": 1, "arms": list(ARMS), "experiment": "synthrooms"}
        write_json(folder / "run.json", run)
        for number, arm in enumerate(ARMS):
            matrix = found[arm, seed] = confusion(rng)
            fake.write_evaluation(folder / arm, matrix, seconds=0.1 + number)
            if arm != "snapshots":
                text = line(10, 4.0 + number, 0.4) + line(20, 8.0 + number, 0.4)
                (folder / arm / "metrics.jsonl").write_text(text)
    read = [read_seed(out / f"seed_{s}", setting="all labels", seed=s) for s in SEEDS]
    write_tables(out, read)
    return out, found


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def shares(matrix):
    """IoU of the four classes that occur."""
    hit, union = np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1) - np.diag(matrix)
    return hit[:4] / union[:4]


def test_results(written):
    out, found = written
    table = rows(out / "results.csv")
    heads = ["setting", "arm", "seed", "miou", "accuracy", "parameters", "seconds_per_scene"]
    assert list(table[0]) == [*heads, "training_seconds", *fake.CLASSES]
    assert [(r["arm"], int(r["seed"])) for r in table] == [(a, s) for a in ARMS for s in SEEDS]
    for row in table:
        matrix = found[row["arm"], int(row["seed"])]
        iou = [float(row[name]) for name in fake.CLASSES[:4]]
        np.testing.assert_allclose(iou, shares(matrix), rtol=1e-12)
        np.testing.assert_allclose(float(row["miou"]), shares(matrix).mean(), rtol=1e-12)
        accuracy = np.trace(matrix) / matrix.sum()
        np.testing.assert_allclose(float(row["accuracy"]), accuracy, rtol=1e-12)
        # The fifth class is predicted and never true: it did not occur.
        assert all(row[name] == "" for name in fake.CLASSES[4:])
    # An ensemble of snapshots took the training of its snapshots.
    seconds = {row["arm"]: float(row["training_seconds"]) for row in table}
    assert seconds == {"plain": 8.0, "cyclic": 9.0, "snapshots": 9.0}
    assert len(read_results(out / "results.csv")) == len(ARMS) * len(SEEDS)


def test_an_ensemble_took_the_trainings_of_the_members_that_were_scored(tmp_path):
    """The folder may hold more, of a command that asked for them."""
    write_json(
        tmp_path / "run.json",
        {"format": "haskd-run", "version": 1, "arms": ["ensemble"], "experiment": "synthrooms"},
    )
    matrix = confusion(np.random.default_rng(0))
    fake.write_evaluation(tmp_path / "ensemble", matrix, seconds=0.1, ensemble=2)
    for folder, seconds in (("plain", 8.0), ("ensemble/1", 9.0), ("ensemble/2", 100.0)):
        (tmp_path / folder).mkdir(exist_ok=True)
        text = line(10, seconds / 2, 0.4) + line(20, seconds, 0.4)
        (tmp_path / folder / "metrics.jsonl").write_text(text)
    (row,) = read_seed(tmp_path, setting="all labels", seed=0).results
    assert row.values["training_seconds"] == 17.0


def test_summary(written):
    out, found = written
    table = rows(out / "summary.csv")
    assert [row["arm"] for row in table] == list(ARMS)
    for row in table:
        iou = np.array([shares(found[row["arm"], seed]) for seed in SEEDS])
        assert row["seeds"] == "3" and row["setting"] == "all labels"
        np.testing.assert_allclose(float(row["miou"]), iou.mean(), rtol=1e-12)
        np.testing.assert_allclose(float(row["miou_sd"]), iou.mean(axis=1).std(ddof=1), rtol=1e-9)
        np.testing.assert_allclose(float(row["rare classes"]), iou[:, RARE].mean(), rtol=1e-12)
        np.testing.assert_allclose(float(row[fake.CLASSES[1]]), iou[:, 1].mean(), rtol=1e-12)
        assert row[fake.CLASSES[4]] == ""
        assert float(row["seconds_per_scene"]) == pytest.approx(0.1 + ARMS.index(row["arm"]))


def test_differences(written):
    out, found = written
    table = rows(out / "differences.csv")
    # Only the comparisons whose two arms are there.
    tests = {
        ("cyclic", "plain"): "the cyclic schedule",
        ("snapshots", "cyclic"): "the ensemble of snapshots against the last one",
    }
    metrics = ["miou", "rare classes", *fake.CLASSES[:4]]
    assert [(row["metric"], row["arm"], row["reference"]) for row in table] == [
        (metric, *pair) for metric in metrics for pair in tests
    ]
    iou_of = {a: np.array([shares(found[a, s]) for s in SEEDS]) for pair in tests for a in pair}
    of_metric = {name: lambda iou, c=c: iou[:, c] for c, name in enumerate(fake.CLASSES[:4])}
    of_metric |= {"miou": lambda iou: iou.mean(axis=1)}
    of_metric |= {"rare classes": lambda iou: iou[:, RARE].mean(axis=1)}
    for row in table:
        pair = row["arm"], row["reference"]
        one, other = (of_metric[row["metric"]](iou_of[arm]) for arm in pair)
        test = stats.ttest_rel(one, other)
        interval = test.confidence_interval(0.95)
        found_interval = float(row["low"]), float(row["high"])
        np.testing.assert_allclose(found_interval, (interval.low, interval.high), rtol=1e-9)
        np.testing.assert_allclose(float(row["mean"]), (one - other).mean(), rtol=1e-9)
        np.testing.assert_allclose(float(row["sd"]), (one - other).std(ddof=1), rtol=1e-9)
        assert row["excludes_zero"] == ("yes" if test.pvalue < 0.05 else "no")
        assert row["tests"] == tests[pair] and row["seeds"] == "3"


def test_one_seed_has_no_interval(written, tmp_path):
    out, _ = written
    write_tables(tmp_path, [read_seed(out / "seed_3", setting="all labels", seed=3)])
    few = read_seed(out / "seed_3", setting="all labels", seed=3, arms=("plain", "asd"))
    assert [row.arm for row in few.results] == ["plain"]
    row = rows(tmp_path / "differences.csv")[0]
    assert (row["sd"], row["low"], row["high"], row["excludes_zero"]) == ("", "", "", "")


def test_nothing_evaluated_is_no_table(written, tmp_path):
    with pytest.raises(ValueError, match="no arm of any seed"):
        write_tables(tmp_path, [])
    assert not list(tmp_path.iterdir())


def test_a_class_named_as_a_column_is_read_back_as_it_was_written(tmp_path):
    """An arm may be one of a robot's, and parameters are no IoU."""
    names = ["arm", "seed", "parameters", "rare classes", *fake.CLASSES[4:]]
    seeds = []
    for seed in (0, 1):
        matrix = confusion(np.random.default_rng(seed))
        run = {"format": "haskd-run", "version": 1, "arms": ["plain"], "experiment": "own"}
        write_json(tmp_path / f"seed_{seed}" / "run.json", run)
        fake.write_evaluation(tmp_path / f"seed_{seed}" / "plain", matrix, classes=names)
        seeds.append(read_seed(tmp_path / f"seed_{seed}", setting="all", seed=seed))
        iou = [seeds[-1].results[0].values[f"class {name}"] for name in names[:4]]
        np.testing.assert_allclose(iou, shares(matrix), rtol=1e-12)
    write_tables(tmp_path, seeds)
    assert read_results(tmp_path / "results.csv") == sum((one.results for one in seeds), ())
    first = rows(tmp_path / "summary.csv")[0]
    mean = np.mean([[one.results[0].values[f"class {n}"] for n in names[2:4]] for one in seeds])
    assert float(first["rare classes"]) == pytest.approx(mean)
    assert float(first["parameters"]) == 612_404
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert (
        "Rare classes have under 1 % of the points: class parameters, class rare classes." in page
    )


def test_recorded_tables_are_read(root):
    tables = sorted((root / "experiments" / "synthrooms" / "results").glob("*/results.csv"))
    assert tables and all(len(read_results(table)) > 1 for table in tables)


@pytest.mark.parametrize("arms", [(), ("plain",)])
def test_a_sweep_that_evaluates_nothing_has_no_report(tmp_path, monkeypatch, capsys, arms):
    """Its trainings are done all the same."""
    for seed in (0, 1):
        run = {"format": "haskd-run", "version": 1, "arms": ["plain"], "experiment": "own"}
        write_json(tmp_path / f"seed_{seed}" / "run.json", run)
        for arm in arms:
            fake.write_evaluation(
                tmp_path / f"seed_{seed}" / arm, confusion(np.random.default_rng(seed))
            )
    monkeypatch.setattr(
        sweep, "run_jobs", lambda jobs, _, on_end, __: [on_end(job, 0) for job in jobs]
    )
    stages = ("student", "report")
    experiment = dataclasses.replace(
        synthrooms.DEBUG, out=tmp_path, seeds=2, arms=("plain",), stages=stages
    )
    assert sweep.run_sweep(experiment) == 0
    said = capsys.readouterr().out
    assert (tmp_path / "report.html").exists() == bool(arms)
    assert ("none of its arms was evaluated" in said) != bool(arms)


def test_training_seconds_of_resumed_runs():
    def lines(*numbers):
        return [{"step": s, "seconds": t, "step_seconds": each} for s, t, each in numbers]

    assert training_seconds([{"step": 4, "compilations": 3}]) is None
    # Evaluation between the lines belongs to the session: 7 s, of which 4 are steps.
    assert training_seconds(lines((10, 5.0, 0.5), (20, 12.0, 0.4))) == 12.0
    # A second session whose clock is behind the first one's, and one whose clock is ahead of it.
    assert training_seconds(lines((10, 5.0, 0.5), (20, 2.0, 0.2), (30, 4.0, 0.2))) == 9.0
    assert training_seconds(lines((10, 5.0, 0.5), (20, 25.0, 2.5), (30, 29.0, 0.4))) == 34.0


def test_setting_in_words(tmp_path):
    def words(**changes):
        return setting_in_words(dataclasses.replace(synthrooms.DEBUG, **changes))

    assert words() == "MinkUNet, 4 steps with AdamW, 60 % of the scenes labelled"
    listed = ScenesConfig(labelled_list=tmp_path / "scenes_20.txt", labelled_points=20)
    assert words(scenes=listed, model=synthrooms.SMALL.model) == (
        "SPVCNN, 4 steps with AdamW, scenes of scenes_20.txt labelled, 20 points a scene labelled"
    )
    taught = synthrooms.DEBUG.ihd, synthrooms.DEBUG.asd
    ihd, asd = (dataclasses.replace(one, voxels="unlabelled") for one in taught)
    assert words(ihd=ihd) == f"{words()}, IHD on voxels without labels"
    assert words(asd=asd) == f"{words()}, ASD on voxels without labels"
    encoder = "image encoder trained before on 17,280 labelled frames"
    assert words(scenes=ScenesConfig(), encoder=synthrooms.ENCODER) == (
        f"MinkUNet, 4 steps with AdamW, all labels, {encoder}"
    )
    # The optimizers are those that a training may have.
    for name in get_args(get_type_hints(OptimizerConfig)["name"]):
        optimizer = dataclasses.replace(synthrooms.DEBUG.train.optimizer, name=name)
        train = dataclasses.replace(synthrooms.DEBUG.train, optimizer=optimizer)
        assert f" steps with {name}," in words(train=train).lower()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seeds", "0"], "seeds: 0, expected 1 or more"),
        (["--seeds", "2", "--processes", "0"], "processes: 0, expected 1 or more"),
        (["--processes", "2"], "give seeds too"),
        (["--seeds", "2", "--cluster.enabled"], "runs on one machine"),
    ],
)
def test_contradictions(options, said, capsys):
    with pytest.raises(SystemExit) as exit:
        synthrooms.main(["debug", *options])
    assert exit.value.code == 2
    assert said in " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().err).split())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be assigned here")
def test_children_have_their_cores_from_the_start():
    own = sorted(os.sched_getaffinity(0))
    code = "import os; print(sorted(os.sched_getaffinity(0)))"
    with sweep._on_cores(own[-1:]):
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert json.loads(said.stdout) == own[-1:]
    assert sorted(os.sched_getaffinity(0)) == own


def test_one_method_for_all_seeds():
    """IOF's and uniform frames are selected once; random ones are each seed's own."""
    arms = ("teacher", "teacher_random", "ihd_uniform", "plain")
    experiment = synthrooms.SynthRoomsExperiment(arms=arms, seeds=3, seed=7)
    (select,), seeds = sweep._jobs(experiment)
    assert select.experiment.arms == ("teacher", "teacher_uniform")
    assert select.experiment.stages == ("select",)
    assert [job.experiment.seed for job in seeds] == [7, 8, 9]
    assert {job.experiment.prepared for job in seeds} == {experiment.out / "prepared"}
    assert seeds[0].experiment.rooms == experiment.rooms


# Two levels of eight channels compile in seconds.
TINY = ["debug", "--arms", "plain", "--model.channels", "8", "8", "--model.blocks", "1", "1",
        "--train.steps", "40", "--train.save-every", "10", "--seeds", "2"]  # fmt: skip


def scores(out):
    return {int(row["seed"]): float(row["miou"]) for row in rows(out / "results.csv")}


@pytest.mark.slow
def test_killed_and_resumed_and_a_seed_that_fails(tmp_path, root, monkeypatch, capsys):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(root / ".cache" / "jax"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    monkeypatch.setenv("PYTHONPATH", str(root))
    out = tmp_path / "sweep"
    command = [*TINY, "--processes", "2", "--out", str(out)]
    module = [sys.executable, "-m", "haskd_jax.experiments.synthrooms"]

    # The log of one run is a pipe, so that the signal comes in the middle of its training.
    (out / "seed_0").mkdir(parents=True)
    os.mkfifo(out / "seed_0" / "log.txt")
    with subprocess.Popen([*module, *command], stdout=subprocess.PIPE, text=True) as parent:
        with (out / "seed_0" / "log.txt").open() as log:
            seen = []
            for text in log:
                if text.startswith("plain: ") and not seen:
                    parent.send_signal(signal.SIGTERM)
                seen.append(text)
        said = parent.stdout.read()
    assert parent.returncode == 143
    assert "stopped: the same command goes on" in said
    assert any("stopped by SIGTERM and saved after step" in text for text in seen)
    # The other seed may have had a faster core, and be done.
    assert not (out / "results.csv").exists() or set(scores(out)) == {1}
    (out / "seed_0" / "log.txt").unlink()

    # Another configuration in a seed's folder ends that seed, and no other.
    shutil.rmtree(out / "seed_1")
    write_json(out / "seed_1" / "plain" / "config.json", {"arm": "plain", "seed": 99})
    assert synthrooms.main(command) == 1
    captured = capsys.readouterr()
    assert re.search(r"seed 1: failed after .* exit code 2", captured.out)
    assert "holds a training with another" in captured.out
    assert "synthrooms: failed: seed 1; their log.txt says why" in captured.err
    first = scores(out)
    assert set(first) == {0}
    assert "stopped" not in (out / "seed_0" / "log.txt").read_text()
    log = (out / "seed_0" / "plain" / "metrics.jsonl").read_text(encoding="utf-8")
    assert json.loads(log.splitlines()[-1])["step"] == 40

    # Mended, it goes on; what was done is left as it is.
    weights = out / "seed_0" / "plain" / "weights"
    before = weights.stat().st_mtime_ns
    shutil.rmtree(out / "seed_1")
    assert synthrooms.main(command) == 0
    assert weights.stat().st_mtime_ns == before
    found = scores(out)
    assert set(found) == {0, 1} and found[0] == first[0]
    assert rows(out / "summary.csv")[0]["seeds"] == "2"
    assert "Over seeds" in (out / "report.html").read_text(encoding="utf-8")
    record = json.loads((out / "seed_1" / "run.json").read_text())
    assert record["config"]["seed"] == 1 and record["config"]["rooms"]["train"] == 5


def test_the_page_runs_as_it_stands(root, written, tmp_path, monkeypatch, capsys):
    page = (root / "docs" / "sweeps.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shutil.copytree(written[0], tmp_path / "runs" / "sweep")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "sweeps.md", "exec"), {})
    said = capsys.readouterr().out
    assert said.startswith("cyclic - plain: ") and "not told apart" in said


_IN_CHILD = """
import ctypes, sys, threading
from haskd_jax.experiments import sweep

def run(experiment):
    for _ in range(8):
        thread = threading.Thread(target=lambda: bytearray(100_000))
        thread.start()
        thread.join()
    ctypes.CDLL(None).malloc_stats()
    return 0

sweep.run = run
sys.exit(sweep._child())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's memory is kept")
def test_all_threads_of_a_seed_keep_freed_memory():
    """One that began before would have an arena of its own, which later ones share and empty."""
    given = {
        "experiment": msgspec.to_builtins(synthrooms.DEBUG, enc_hook=str),
        "module": "haskd_jax.experiments.synthrooms",
        "class": "SynthRoomsExperiment",
        "argv": ["seed"],
    }
    with subprocess.Popen(
        [sys.executable, "-c", _IN_CHILD], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        child.stdin.write(json.dumps(given) + "\n")
        child.stdin.flush()  # it stays open: its end would end the child
        said = child.stderr.read()
    assert child.returncode == 0, said
    assert re.findall("^Arena [0-9]+", said, re.MULTILINE) == ["Arena 0"], said
