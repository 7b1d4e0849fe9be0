"""Sections one looks at: the frames that were chosen, and rooms with what the arms made of them."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from haskd_jax.data.palettes import palette
from haskd_jax.data.prepared import load_scene
from haskd_jax.data.scene import Scene
from haskd_jax.report.charts import strip
from haskd_jax.report.clouds import View, from_above, from_corner
from haskd_jax.report.page import absent, section, swatches
from haskd_jax.report.pictures import (
    RIGHT,
    UNLABELLED,
    WRONG,
    class_colours,
    error_colours,
    picture,
)
from haskd_jax.report.run_folder import Run

_MOST_SCENES = 4  # of those that were not asked for by the run: more make the page heavy
_MOST_SELECTIONS = 3
_METHODS = {"iof": "IOF", "uniform": "Uniform sampling", "random": "Random sampling"}
_CHOSEN, _UNIFORM = "var(--student)", "var(--plain)"


def frames_section(run: Run) -> str:
    """The frames the teacher is shown, beside those that uniform sampling takes."""
    title = "The frames the teacher sees"
    selection = run.selection
    if not selection or not selection["scenes"]:
        return section(title, absent("No frames were selected in this run."))
    method = _METHODS.get(str(selection.get("method")), str(selection.get("method")))
    scenes: Mapping[str, Any] = selection["scenes"]
    if selection.get("method") == "uniform":  # there is nothing beside it
        scenes = {name: {**entry, "uniform": None} for name, entry in scenes.items()}
    shown = [name for name in run.pictured_scenes() if name in scenes]
    shown = (shown + [name for name in sorted(scenes) if name not in shown])[:_MOST_SELECTIONS]
    blocks = [_selection(run, name, scenes[name], method) for name in shown]
    return section(title, _coverage_sentence(scenes, method) + "".join(blocks))


def _coverage_sentence(scenes: Mapping[str, Any], method: str) -> str:
    pairs = [
        (s["coverage"], s["uniform"]["coverage"])
        for s in scenes.values()
        if _number(s.get("coverage")) and _number((s.get("uniform") or {}).get("coverage"))
    ]
    if not pairs:
        return ""
    own, uniform = np.mean(pairs, axis=0)
    return (
        f"<p>{escape(method)} shows the teacher {100 * own:.0f} % of a room&rsquo;s voxels, "
        f"uniform sampling of as many frames {100 * uniform:.0f} % "
        f"(mean over {len(pairs)} scenes).</p>"
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _selection(run: Run, name: str, chosen: Mapping[str, Any], method: str) -> str:
    scene = _scene(run, name)
    quality = [float(q) if _number(q) else math.nan for q in chosen.get("quality") or ()]
    rows = [_frames(scene, method, chosen, chosen.get("gains") or (), quality)]
    uniform = chosen.get("uniform")
    if uniform:
        rows.append(_frames(scene, "Uniform sampling", uniform, (), quality))
    bars = ""
    if quality:
        marks = {int(i): _UNIFORM for i in (uniform or {}).get("indices", ())}
        marks |= {int(i): _CHOSEN for i in chosen["indices"]}
        key = [(f"chosen by {method}", _CHOSEN)]
        key += [("taken by uniform sampling alone", _UNIFORM)] if uniform else []
        bars = (
            f'<figure class="quality">{strip(quality, marks)}<figcaption>Quality of all '
            f"{chosen['frames']} frames, in the order they were taken{swatches(key)}</figcaption>"
            "</figure>"
        )
    return f"<h3>{escape(name)}</h3>{''.join(rows)}{bars}"


def _frames(
    scene: Scene | None,
    title: str,
    chosen: Mapping[str, Any],
    gains: Sequence[Any],
    quality: Sequence[float],
) -> str:
    coverage = chosen.get("coverage")
    seen = ""
    if coverage is not None and _number(coverage):
        seen = f" &middot; sees {100 * coverage:.0f} % of the voxels"
    figures = []
    for place, index in enumerate(chosen["indices"]):
        notes = [f"frame {index}"]
        if place < len(gains) and _number(gains[place]):
            notes.append(f"gain {gains[place]:.3g}")
        if 0 <= index < len(quality) and math.isfinite(quality[index]):
            notes.append(f"quality {quality[index]:.2f}")
        image = '<div class="noframe">not on this disk</div>'
        if scene and index < len(scene.frames):
            image = picture(
                np.asarray(scene.frames.colour[index]), f"frame {index} of {scene.name}"
            )
        caption = "<br>".join(map(escape, notes))
        figures.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    return f'<h4>{escape(title)}{seen}</h4><div class="frames">{"".join(figures)}</div>'


def scenes_section(run: Run) -> str:
    """Rooms from a corner and from above: scan, truth, answers, errors."""
    title = "Rooms the arms had not seen"
    names = run.pictured_scenes()
    if not names:
        return section(title, absent("No arm of this run stored predictions of a scene."))
    if not run.prepared:
        text = "The prepared scenes of this run are not where it says, so there is nothing to draw."
        return section(title, absent(text))
    most = max(_MOST_SCENES, (run.info.get("config") or {}).get("pictures", 0))
    blocks = [_room(run, name) for name in names[:most]]
    if len(names) > most:
        text = f"{most} of {len(names)} scenes with predictions; haskd view shows all of them."
        blocks.append(absent(text))
    classes = run.classes
    key = [(n, _css(c)) for n, c in zip(classes, palette(classes).tolist(), strict=True)]
    key += [("no label", _css(UNLABELLED)), ("right", _css(RIGHT)), ("wrong", _css(WRONG))]
    return section(title, swatches(key) + "".join(blocks))


def _room(run: Run, name: str) -> str:
    scene = _scene(run, name)
    if scene is None:
        return f"<h3>{escape(name)}</h3>" + absent("This scene is not among the prepared ones.")
    views = {
        "From a corner": from_corner(scene.points, scene.normals),
        "From above": from_above(scene.points, scene.normals),
    }
    return f"<h3>{escape(name)}</h3>" + "".join(
        f'<h4>{title}</h4><div class="room">{"".join(_columns(run, scene, view))}</div>'
        for title, view in views.items()
    )


def _columns(run: Run, scene: Scene, view: View) -> list[str]:
    """Scan over truth, then every arm's answer over its errors."""
    label, classes = scene.label, run.classes
    top = _figure(view, scene.colour, "Scan", f"the scan of {scene.name}")
    truth = ""
    if label is not None:
        truth = _figure(view, class_colours(label, classes), "Truth", f"the labels of {scene.name}")
    columns = [f"<div>{top}{truth}</div>"]
    for arm in run.arms:
        predicted = arm.predictions(scene.name, len(scene.points), len(classes))
        if predicted is None:
            continue
        answer = _figure(
            view, class_colours(predicted, classes), arm.title, f"{arm.title}, classes"
        )
        errors = ""
        if label is not None:
            scored = label >= 0
            right = (
                f"{100 * (label == predicted)[scored].mean():.1f} % right" if scored.any() else ""
            )
            colours = error_colours(label, predicted)
            errors = _figure(view, colours, right, f"{arm.title}, errors: {right}")
        columns.append(f"<div>{answer}{errors}</div>")
    return columns


def _figure(view: View, colours: np.ndarray, caption: str, alternative: str) -> str:
    image = picture(view.draw(np.asarray(colours)), alternative)
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _scene(run: Run, name: str) -> Scene | None:
    if run.prepared is None or not (run.prepared / name / "manifest.json").exists():
        return None
    return load_scene(run.prepared / name)


def _css(colour: Sequence[int]) -> str:
    return "rgb({} {} {})".format(*colour)
