"""Sections on training: its curves, and what the experts are good at."""

from html import escape
from typing import Any

import numpy as np

from haskd_jax.data.errors import DataError
from haskd_jax.report.charts import Line, heat_table, line_chart
from haskd_jax.report.page import absent, arm_colour, section, series_colour
from haskd_jax.report.run_folder import Arm, Run

Array = np.ndarray


def curves_section(run: Run) -> str:
    """Calibration mIoU and loss of the arms together, then the terms of each arm's loss."""
    title = "Training"
    trained = [arm for arm in run.arms if arm.metrics]
    if not trained:
        return section(title, absent("No arm of this run has been trained yet."))
    shared = [
        ("mIoU on calibration scenes", 100.0, lambda m: (m.get("evaluation") or {}).get("miou")),
        ("Loss", 1.0, lambda m: m.get("loss")),
        ("Learning rate", 1.0, lambda m: m.get("learning_rate")),
    ]
    charts = [
        line_chart(
            name,
            [_line(arm.title, arm_colour(run, arm), arm, value) for arm in trained],
            scale=scale,
        )
        for name, scale, value in shared
    ]
    for arm in trained:
        names = dict.fromkeys(key for m in arm.metrics for key in m.get("terms") or ())
        lines = [
            _line(name.replace("_", " "), series_colour(i), arm, _term(name))
            for i, name in enumerate(names)
        ]
        charts.append(line_chart(f"{arm.title}: terms of the loss", lines))
    note = '<p class="small">Over training steps. Legends end with the last value.</p>'
    missing = [arm.title for arm in run.arms if not arm.metrics]
    left_out = absent(f"Not trained yet: {', '.join(missing)}.") if missing else ""
    return section(title, f'{note}<div class="charts">{"".join(charts)}</div>{left_out}')


def _term(name: str) -> Any:
    return lambda m: (m.get("terms") or {}).get(name)


def _line(label: str, colour: str, arm: Arm, value: Any) -> Line:
    pairs = [(m["step"], value(m)) for m in arm.metrics]
    numbers = [(float(step), float(v)) for step, v in pairs if isinstance(v, int | float)]
    return Line(label, colour, [step for step, _ in numbers], [v for _, v in numbers])


def adeptness_section(run: Run) -> str:
    """Classes by experts: how good each snapshot is at what, and how much it is heard there."""
    title = "Which expert is heard on what"
    blocks = [block for arm in run.arms if (block := _experts(run, arm))]
    if not blocks:
        text = "No arm of this run was taught by snapshots, so there are no experts."
        return section(title, absent(text))
    note = (
        '<p class="small">An expert is a snapshot at the end of a training cycle, of the student '
        "itself or of a finished one. "
        "IoU is its own on calibration scenes, adeptness the share it has in what the student is "
        "taught about that class.</p>"
    )
    return section(title, note + "".join(blocks))


def _experts(run: Run, arm: Arm) -> str:
    cycles = [m for m in arm.metrics if m.get("cycle") is not None]
    given = [m for m in arm.metrics if m.get("experts")]  # of another, finished training
    adepts = [m["adeptness"] for m in (*given, *cycles) if m.get("adeptness")]
    if not adepts:
        return ""
    classes = run.classes or tuple(map(str, range(len(adepts[-1][0]))))
    iou = given[-1]["experts"] if given else [m["iou"] for m in cycles if m.get("iou")]
    tables = []
    for name, rows in (("IoU on calibration scenes", iou), ("Adeptness", adepts[-1])):
        if not rows:
            continue
        values = _matrix(arm, name, rows, len(classes))
        columns = [f"expert {i + 1}" for i in range(len(values))]
        table = heat_table(values.T, classes, columns, corner="class")
        tables.append(f"<div><h4>{name}</h4>{table}</div>")
    return f'<h3>{escape(arm.title)}</h3><div class="pair">{"".join(tables)}</div>'


def _matrix(arm: Arm, name: str, rows: Any, classes: int) -> Array:
    """[M, C] float64, NaN for null."""
    path = arm.folder / "metrics.jsonl"
    try:
        values = np.array([[np.nan if v is None else v for v in row] for row in rows], np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(path, f"{name}: {error}: train again") from error
    if values.ndim != 2 or values.shape[1] != classes:
        raise DataError(path, f"{name}: {values.shape} for {classes} classes: train again")
    return values
