"""A run folder as an experiment leaves it, without training: truth with errors made on purpose."""

import json
from pathlib import Path

import numpy as np

from haskd_jax.data import list_scenes, load_scene
from haskd_jax.data.scannet_labels import CLASSES, class_table
from haskd_jax.data.scene import Cloud, Frame
from haskd_jax.data.synthrooms import Options, generate_scene
from haskd_jax.data.writer import SceneWriter
from haskd_jax.files import write_json

C = len(CLASSES)
# Which class is taken for which, where an answer goes wrong.
TAKEN_FOR = {"wall": "door", "door": "wall", "window": "wall", "picture": "wall", "desk": "table"}
TAKEN_FOR |= {"table": "desk", "curtain": "window", "cabinet": "bookshelf", "chair": "sofa"}


def write_prepared(root, seeds=(900_000, 900_001), frames=6):
    """A prepared root with one small scan a seed."""
    root.mkdir(parents=True)
    description = {"format": "haskd-dataset", "version": 1, "dataset": "scannet"}
    write_json(root / "dataset.json", description | {"classes": list(CLASSES)})
    classes = class_table()
    for seed in seeds:
        options = Options(frames=frames, width=64, height=48, voxel_size=0.06)
        scan = generate_scene(seed, options=options)
        label = classes[scan.label].astype(np.int32)
        with SceneWriter(root, f"scene{seed // 100:04d}_{seed % 100:02d}") as writer:
            for i, pose in enumerate(scan.camera_to_world):
                colour, depth = scan.frame_colour[i], scan.frame_depth[i]
                writer.add_frame(Frame(f"{i:06d}", colour, depth, scan.intrinsics, pose))
            writer.add_cloud(Cloud(scan.points, colour=scan.colour, label=label))
            writer.commit(dataset="scannet", split="test", options={})
    return root


def guess(rng, scene, wrong):
    """Answers that are wrong in a share `wrong` of half-metre blocks, and there mostly alike."""
    blocks = np.floor(scene.points / 0.5).astype(np.int64)
    key = np.concatenate([blocks, scene.label[:, None]], axis=1)
    _, group = np.unique(key, axis=0, return_inverse=True)
    group = group.reshape(-1)
    other = rng.integers(0, C, group.max() + 1)[group]
    likely = np.arange(C + 1)
    for name, instead in TAKEN_FOR.items():
        likely[CLASSES.index(name)] = CLASSES.index(instead)
    truth = np.where(scene.label < 0, 0, scene.label)
    instead = np.where(rng.random(group.max() + 1)[group] < 0.8, likely[truth], other)
    rare = np.isin(truth, [0, 1], invert=True)
    chance = rng.random(group.max() + 1)[group] / np.where(rare, 1.0, 0.35)
    return np.where(chance < wrong, instead, truth).astype(np.int16)


def scores(confusion):
    """IoU, mIoU, accuracy and mean accuracy, by their definitions."""
    hit, truth = np.diag(confusion), confusion.sum(axis=1)
    union = truth + confusion.sum(axis=0) - hit
    iou = [float(h / u) if t else None for h, u, t in zip(hit, union, truth, strict=True)]
    recall = hit[truth > 0] / truth[truth > 0]
    return {
        "iou": iou,
        "miou": float(np.mean([v for v in iou if v is not None])),
        "accuracy": float(hit.sum() / truth.sum()),
        "mean_accuracy": float(recall.mean()),
    }


def write_evaluation(
    folder, confusion, *, views=0, ensemble=1, parameters=612_404, seconds=0.21, **changes
):
    """`evaluation.json` of a confusion matrix."""
    folder.mkdir(parents=True, exist_ok=True)
    protocol = {"dataset": "SynthRooms", "split": "test", "scenes": 40, "labels": "all"}
    protocol |= {"unit": "points", "voxel_size": 0.05, "tta": 1, "views": views}
    protocol["ensemble"] = ensemble
    protocol |= {"checkpoint": "last", "step": 600, "commit": "2516810", "package": "0.1.0"}
    value = {"format": "haskd-evaluation", "version": 1, "protocol": protocol}
    value |= {"classes": list(CLASSES), "confusion": np.asarray(confusion).tolist()}
    value |= scores(np.asarray(confusion))
    value |= {"parameters": parameters, "seconds_per_scene": seconds, "scenes": []} | changes
    write_json(folder / "evaluation.json", value)
    return value


def write_metrics(rng, folder, final, *, steps=600, cycles=0):
    """`metrics.jsonl` of a training that ended at the mIoU `final`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for step in range(10, steps + 1, 10):
        rest = np.exp(-step / (steps / 5))
        terms = {
            "cross_entropy": 0.45 + 2.3 * rest + 0.06 * rng.normal(),
            "lovasz": 0.38 + 0.5 * rest + 0.03 * rng.normal(),
        }
        if cycles:
            terms |= {"ihd/logits": 0.2 + 0.8 * rest + 0.02 * rng.normal()}
            terms |= {"asd/logits": 0.12 + 0.03 * rng.normal() if step > steps / cycles else 0.0}
        line = {"step": step, "loss": sum(terms.values()), "terms": terms}
        rate = 0.5 * 0.004 * (1 + np.cos(np.pi * step / steps))
        lines.append(line | {"learning_rate": rate, "seconds": step * 0.31, "step_seconds": 0.31})
        if step % 100 == 0:
            miou = float(final * (1 - np.exp(-step / (steps / 4))) + 0.008 * rng.normal())
            evaluation = {"split": "val", "miou": miou, "accuracy": 0.8, "iou": [miou] * C}
            lines.append({"step": step, "evaluation": evaluation})
    experts = []
    for cycle in range(cycles):
        experts.append(rng.uniform(0.2, 0.6 + 0.1 * cycle, C))
        weight = np.exp(4 * np.array(experts))
        iou = [None if c == 17 else float(v) for c, v in enumerate(experts[-1])]
        adeptness = (weight / weight.sum(axis=0)).tolist()
        lines.append({"step": steps, "cycle": cycle, "iou": iou, "adeptness": adeptness})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")


def write_selection(rng, folder, prepared, views=3):
    """`selection.json` of all scenes."""
    scenes = {}
    for name in list_scenes(prepared):
        count = len(load_scene(prepared / name).frames)
        quality = rng.beta(3, 2, count)
        own = sorted(np.argsort(-quality)[:views].tolist())
        uniform = np.linspace(0, count - 1, views).round().astype(int).tolist()
        scenes[name] = {
            "frames": count,
            "indices": own,
            "gains": sorted(rng.uniform(0.5, 3.0, views).tolist(), reverse=True),
            "coverage": float(rng.uniform(0.6, 0.75)),
            "uniform": {"indices": uniform, "coverage": float(rng.uniform(0.4, 0.55))},
            "quality": quality.tolist(),
        }
    value = {"format": "haskd-selection", "version": 1, "method": "iof", "num_views": views}
    write_json(folder / "selection.json", value | {"options": {}, "scenes": scenes})


def write_run(folder: Path, prepared: Path, *, wrong=None, views=3, pictured=2, steps=600) -> Path:
    """A complete run; `wrong` is the share of wrong blocks of every arm."""
    rng = np.random.default_rng(0)
    wrong = wrong or {"plain": 0.45, "teacher": 0.25, "haskd": 0.38}
    folder.mkdir(parents=True)
    config = {"preset": "small", "model": {"family": "minkunet", "voxel_size": 0.05}}
    config |= {"optimizer": {"name": "adamw", "peak": 0.004}, "steps": steps, "seed": 0}
    run = {"format": "haskd-run", "version": 1, "experiment": "synthrooms", "config": config}
    run |= {"commit": "2516810", "command": "python -m haskd_jax.experiments.synthrooms small"}
    run |= {"machine": "AMD EPYC, 2 cores, Linux", "packages": {"jax": "0.10.2", "flax": "0.12"}}
    write_json(folder / "run.json", run | {"arms": list(wrong), "prepared": str(prepared)})
    names = list_scenes(prepared)
    for arm, share in wrong.items():
        confusion = np.zeros((C, C), np.int64)
        for number, name in enumerate(names):
            scene = load_scene(prepared / name)
            predicted = guess(rng, scene, share)
            known = scene.label >= 0
            np.add.at(confusion, (scene.label[known], predicted[known]), 1)
            if number < pictured:
                (folder / arm / "predictions").mkdir(parents=True, exist_ok=True)
                np.save(folder / arm / "predictions" / f"{name}.npy", predicted)
        teacher = arm == "teacher"
        cost = {"views": 3, "parameters": 1_204_118, "seconds": 0.48} if teacher else {}
        value = write_evaluation(folder / arm, confusion, scenes=list(names), **cost)
        write_metrics(rng, folder / arm, value["miou"], cycles=4 if arm == "haskd" else 0)
    write_selection(rng, folder, prepared, views)
    return folder


def write_results(folder, arms, seeds=8):
    """`results.csv` of a sweep: `arms` gives each arm's mean mIoU."""
    rng = np.random.default_rng(1)
    lines = ["setting,arm,seed,miou,accuracy," + ",".join(CLASSES)]
    for setting in ("full labels", "20 % of the rooms"):
        level = rng.normal(size=seeds) * 0.015  # what a seed does to all arms alike
        for arm, mean in arms.items():
            for seed in range(seeds):
                miou = mean + level[seed] + rng.normal() * 0.006
                row = [setting, arm, seed, miou, miou + 0.3, *(miou + rng.normal(size=C) * 0.02)]
                lines.append(",".join(map(str, row)))
    (folder / "results.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
