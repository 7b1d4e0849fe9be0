"""Sections on how the arms scored: the table, the classes, the confusions."""

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from haskd_jax.report.charts import Bars, bar_chart, heat_table
from haskd_jax.report.page import absent, arm_colour, duration, section, swatches, table
from haskd_jax.report.run_folder import Arm, Evaluation, Run
from haskd_jax.report.verdict import REFERENCE, STUDENTS, findings, points, signed, student_of

# What must be the same for two scores to be compared: what people are told of, and the rest.
_STATED = ("dataset", "split", "scenes", "labels", "unit", "voxel_size", "tta", "checkpoint")
_COMPARABLE = (*_STATED, "scans", "crop_voxels")


def result_section(run: Run) -> str:
    """The table of the arms, what they were measured by, and what else follows from it."""
    if not run.evaluated:
        return section("Results", absent("No arm of this run has been evaluated yet."))
    plain = _of(run, REFERENCE)
    rows = "".join(_row(run, arm, plain) for arm in run.arms)
    heads = (
        "Arm",
        "mIoU",
        "Accuracy",
        "Mean accuracy",
        "Parameters",
        "Inference a scene",
        "Training",
        "Needs images",
    )
    note = (
        "Small figures are differences to the plain student, in points."
        if plain
        else "The plain student was not evaluated, so there are no differences to it."
    )
    note = f'<p class="small">{note} {_protocol(run)}</p>'
    sentences = "".join(f"<li>{escape(text)}</li>" for text in findings(run))
    return section(
        "Results", f'{table("results", heads, rows)}{note}<ul class="findings">{sentences}</ul>'
    )


def _row(run: Run, arm: Arm, plain: Evaluation | None) -> str:
    name = (
        f'<th scope="row"><i style="background:{arm_colour(run, arm)}"></i>{escape(arm.title)}</th>'
    )
    scored = arm.evaluation
    if not scored:
        none = '<td colspan="5" class="none">not evaluated</td>'
        return f"<tr>{name}{none}{_training(arm)}<td></td></tr>"
    cells = []
    for key in ("miou", "accuracy", "mean_accuracy"):
        value = getattr(scored, key)
        change = "<small></small>" if plain else ""  # keeps the column straight
        if plain and scored is not plain:
            difference = signed(value - getattr(plain, key))
            change = f'<small class="{_trend(difference)}">{difference}</small>'
        cells.append(f"<td><b>{points(value)}</b>{change}</td>")
    parameters = "&ndash;" if scored.parameters is None else f"{scored.parameters:,}"
    inference = "&ndash;"
    if scored.seconds_per_scene is not None:
        inference = f"{scored.seconds_per_scene:.3g} s"
    images = "yes" if scored.needs_images else "no"
    cells.append(f"<td>{parameters}</td><td>{inference}</td>{_training(arm)}<td>{images}</td>")
    return f"<tr>{name}{''.join(cells)}</tr>"


def _training(arm: Arm) -> str:
    seconds = arm.training_seconds
    return f"<td>{'&ndash;' if seconds is None else duration(seconds)}</td>"


def _trend(difference: str) -> str:
    return "flat" if difference == "0.0" else "up" if difference.startswith("+") else "down"


def _protocol(run: Run) -> str:
    """What the numbers hold for; a warning where the arms were not measured alike."""
    protocols = [arm.evaluation.protocol for arm in run.evaluated if arm.evaluation]
    common = {key: protocols[0].get(key) for key in _STATED if key in protocols[0]}
    differing = [key for key in _COMPARABLE if len({str(p.get(key)) for p in protocols}) > 1]
    stated = ", ".join(
        f"{key.replace('_', ' ')} {_value(value)}"
        for key, value in common.items()
        if key not in differing
    )
    steps = ", ".join(
        f"{arm.title} {arm.evaluation.protocol.get('step', '?')}"
        for arm in run.evaluated
        if arm.evaluation
    )
    text = escape(f"Protocol: {stated}; steps trained: {steps}.")
    encoders: dict[str, list[str]] = {}
    for arm in run.evaluated:
        if arm.evaluation and arm.evaluation.protocol.get("encoder"):
            encoders.setdefault(arm.evaluation.protocol["encoder"], []).append(arm.title)
    for encoder, titles in encoders.items():
        text += escape(f" With an {encoder}: {', '.join(titles)}.")
    if differing:
        names = escape(", ".join(key.replace("_", " ") for key in differing))
        text += (
            f'</p><p class="warning">The arms were not measured alike ({names} '
            f"{'differs' if len(differing) == 1 else 'differ'}): their scores do not compare."
        )
    return text


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def class_section(run: Run) -> str:
    """IoU of every class, the arms side by side, frequent classes first."""
    title = "Class by class"
    if not run.evaluated:
        return section(title, absent("No arm has been evaluated, so there is no IoU to show."))
    scores = [arm.evaluation for arm in run.evaluated if arm.evaluation]
    name = student_of({arm.name for arm in run.arms})
    plain, student = _of(run, REFERENCE), _of(run, name)
    count = scores[0].confusion.sum(axis=1)
    share = count / max(count.sum(), 1)
    rows = []
    for c in np.argsort(-count, kind="stable"):
        if all(score.iou[c] is None for score in scores):
            continue
        change, rising = "", None
        if plain and student:
            before, after = plain.iou[c], student.iou[c]
            if before is not None and after is not None:
                change = signed(after - before)
                rising = None if change == "0.0" else after > before
        values = [score.iou[c] for score in scores]
        note = f"{100 * share[c]:.1f} %" if share[c] >= 0.001 else "under 0.1 %"
        rows.append(Bars(scores[0].classes[c], note, values, change, rising))
    colours = [arm_colour(run, arm) for arm in run.evaluated]
    legend = swatches([(arm.title, arm_colour(run, arm)) for arm in run.evaluated])
    note = "IoU of every class; beneath its name its share of the points."
    if plain and student:
        note += f" At the end {STUDENTS[name]} minus plain, in points."
    shown = {row.label for row in rows}
    hidden = [name for name in scores[0].classes if name not in shown]
    if hidden:
        note += f" Not in this split: {', '.join(hidden)}."
    head = f'<p class="small">{escape(note)}</p>{legend}'
    return section(title, head + bar_chart(rows, colours))


def confusion_section(run: Run) -> str:
    """Where the points of every class went; the student first, the others behind folds."""
    title = "What is taken for what"
    if not run.evaluated:
        return section(title, absent("No arm has been evaluated, so nothing was confused yet."))
    order = {student_of({arm.name for arm in run.arms}): 0, REFERENCE: 1}
    arms = sorted(run.evaluated, key=lambda arm: order.get(arm.name, 2))
    parts = []
    for number, arm in enumerate(arms):
        assert arm.evaluation
        counts = arm.evaluation.confusion
        rows = counts.sum(axis=1, keepdims=True)
        shares = np.where(rows > 0, counts / np.maximum(rows, 1), np.nan)
        classes = arm.evaluation.classes
        heat = heat_table(shares, classes, classes, corner="truth \N{RIGHTWARDS ARROW} answer")
        if number == 0:
            parts.append(f"<h3>{escape(arm.title)}</h3>{heat}")
        else:
            name = escape(arm.title)
            parts.append(f"<details><summary>{name}</summary>{heat}</details>")
    note = (
        '<p class="small">Each row is a true class; the cells say how many of a hundred of its '
        "points were given which answer. Empty rows do not occur in this split.</p>"
    )
    return section(title, note + "".join(parts))


def _of(run: Run, name: str) -> Evaluation | None:
    return next((arm.evaluation for arm in run.arms if arm.name == name), None)


def setting_section(run: Run) -> str:
    """What was run: machine, commit, command, and the whole configuration behind a fold."""
    info: Mapping[str, Any] = run.info
    facts = [
        ("Experiment", info.get("experiment")),
        ("Command", info.get("command")),
        ("Commit", info.get("commit") or "not recorded"),
        ("Machine", info.get("machine")),
        ("Packages", ", ".join(f"{k} {v}" for k, v in (info.get("packages") or {}).items())),
    ]
    code = {"Command", "Commit"}
    listed = "".join(
        f"<dt>{name}</dt><dd>{f'<code>{escape(str(v))}</code>' if name in code else escape(str(v))}"
        "</dd>"
        for name, v in facts
        if v
    )
    settings = "".join(
        f"<tr><th scope='row'>{escape(key)}</th><td>{escape(value)}</td></tr>"
        for key, value in _flat(info.get("config") or {})
    )
    fold = ""
    if settings:
        inner = table("config", (), settings)
        fold = f"<details><summary>The whole configuration</summary>{inner}</details>"
    return section("What was run", f'<dl class="facts">{listed}</dl>{fold}')


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names."""
    if isinstance(value, dict) and value:
        return [
            row
            for key, inner in value.items()
            for row in _flat(inner, f"{name}.{key}" if name else str(key))
        ]
    if isinstance(value, list):
        return [(name, ", ".join(map(str, value)) or "none")]
    return [(name, str(value))]
