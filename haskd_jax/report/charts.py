"""Charts as HTML and SVG that take their colours from the page and so read in the dark too."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import Float

from haskd_jax.report.page import table

Array = np.ndarray

_WIDTH, _HEIGHT = 380, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 10, 28
_MOST_POINTS = 200


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        label: In the legend.
        colour: A CSS colour.
        x: Abscissae, ascending.
        y: Ordinates; None where there is no number.
    """

    label: str
    colour: str
    x: Sequence[float]
    y: Sequence[float | None]


def line_chart(title: str, lines: Sequence[Line], *, scale: float = 1.0) -> str:
    """Lines over training steps.

    Args:
        title: Above the chart.
        lines: What to draw.
        scale: Ordinates are multiplied by this (100 for shares).

    Returns:
        A `<figure>`, or nothing where no line has a number.

    Example:
        >>> line_chart("loss", [Line("plain", "red", [1.0, 2.0], [0.5, 0.25])]).count("<polyline")
        1
        >>> line_chart("loss", [Line("plain", "red", [1.0], [None])])
        ''
    """
    drawn = [(line, _thinned(line, scale)) for line in lines]
    drawn = [(line, points) for line, points in drawn if len(points)]
    if not drawn:
        return ""
    everything = np.concatenate([points for _, points in drawn])
    x_ticks = ticks(min(0.0, everything[:, 0].min()), everything[:, 0].max())
    y_ticks = ticks(min(0.0, everything[:, 1].min()), everything[:, 1].max())
    x0, x1 = x_ticks[0], max(everything[:, 0].max(), x_ticks[0] + 1e-9)
    y0, y1 = y_ticks[0], max(y_ticks[-1], everything[:, 1].max())

    def place(points: Array) -> Array:
        u = _LEFT + (points[:, 0] - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT)
        v = _HEIGHT - _BOTTOM - (points[:, 1] - y0) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM)
        return np.stack([u, v], axis=1)

    parts = []
    for tick in y_ticks:
        v = place(np.array([[x0, tick]]))[0, 1]
        parts.append(f'<path class="grid" d="M{_LEFT} {v:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{v + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        if tick <= x1:
            u = place(np.array([[tick, y0]]))[0, 0]
            text = f'<text x="{u:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{tick:g}</text>'
            parts.append(text)
    for line, points in drawn:
        corners = " ".join(f"{u:.1f},{v:.1f}" for u, v in place(points))
        parts.append(f'<polyline points="{corners}" stroke="{escape(line.colour)}"/>')
        if len(points) <= 12:  # few enough to be told apart
            parts += [
                f'<circle cx="{u:.1f}" cy="{v:.1f}" r="2.6" fill="{escape(line.colour)}"/>'
                for u, v in place(points)
            ]
    legend = "".join(
        f'<li><i style="background:{escape(line.colour)}"></i>{escape(line.label)} '
        f"<b>{points[-1, 1]:.3g}</b></li>"
        for line, points in drawn
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)} over steps">'
        f'{"".join(parts)}</svg><ul class="key">{legend}</ul></figure>'
    )


def _thinned(line: Line, scale: float) -> Array:
    """[P, 2] points with a number, averaged in runs where they are too many to see."""
    pairs = [(x, y * scale) for x, y in zip(line.x, line.y, strict=True) if y is not None]
    points = np.array(pairs, np.float64).reshape(-1, 2)
    if len(points) <= _MOST_POINTS:
        return points
    return np.array([run.mean(axis=0) for run in np.array_split(points, _MOST_POINTS)])


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from below `low` to about `high`, four to seven of them.

    Example:
        >>> ticks(0.0, 47.0)
        [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
        >>> ticks(0.0, 0.0)
        [0.0, 1.0]
    """
    if high <= low:
        return [float(low), float(low) + 1]
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step * 0.999)
    return [float(f"{k * step:.10g}") for k in range(first, last + 1)]


@dataclass(frozen=True)
class Bars:
    """The bars of one class.

    Attributes:
        label: The class.
        note: In small print beside it.
        values: One share from 0 to 1 a bar, None where there is none.
        change: In small print at the end: the difference that matters.
        rising: Whether that is a gain; None where it is neither.
    """

    label: str
    note: str
    values: Sequence[float | None]
    change: str = ""
    rising: bool | None = None


def bar_chart(rows: Sequence[Bars], colours: Sequence[str]) -> str:
    """Groups of horizontal bars, one group a row.

    Args:
        rows: The groups.
        colours: A CSS colour for each bar of a group.

    Returns:
        A block of HTML.
    """
    groups = []
    for row in rows:
        bars = []
        for value, colour in zip(row.values, colours, strict=True):
            width = 0.0 if value is None else 100 * value
            text = "&ndash;" if value is None else f"{width:.1f}"
            bars.append(
                f'<div class="bar"><span><i style="width:{width:.2f}%;background:{escape(colour)}">'
                f"</i></span><b>{text}</b></div>"
            )
        trend = {None: "", True: " up", False: " down"}[row.rising]
        groups.append(
            f'<div class="group"><div class="name">{escape(row.label)} '
            f"<small>{escape(row.note)}</small></div><div>{''.join(bars)}</div>"
            f'<div class="change{trend}">{escape(row.change)}</div></div>'
        )
    return f'<div class="bars">{"".join(groups)}</div>'


def heat_table(
    values: Float[Array, "R C"],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    corner: str,
) -> str:
    """A table whose cells are coloured by their share; NaN cells stay empty.

    Args:
        values: [R, C] shares from 0 to 1, shown as of a hundred where they do not round to 0.
        rows: R names.
        columns: C names.
        corner: What rows and columns are.

    Returns:
        A table in a frame that scrolls sideways.
    """
    body = []
    for name, line in zip(rows, values, strict=True):
        cells = []
        for column, value in zip(columns, line, strict=True):
            if not np.isfinite(value):
                cells.append("<td></td>")
                continue
            depth = min(max(float(value), 0.0), 1.0)
            text = f"{100 * value:.0f}"
            shown = text if float(text) else ""
            strong = ' class="strong"' if depth > 0.55 else ""
            label = escape(f"{name}, {column}: {text} %")
            cells.append(f'<td{strong} style="--v:{depth:.3f}" title="{label}">{shown}</td>')
        body.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    head = [f'<span class="corner">{escape(corner)}</span>']
    head += [f"<span>{escape(name)}</span>" for name in columns]
    return table("heat", head, "".join(body))


def strip(heights: Sequence[float], marks: dict[int, str]) -> str:
    """A row of thin bars, some of them coloured.

    Args:
        heights: One a bar, not negative.
        marks: CSS colour by index.

    Returns:
        An SVG.
    """
    top = max([h for h in heights if math.isfinite(h)], default=0.0) or 1.0
    bars = []
    for i, height in enumerate(heights):
        tall = max(34 * (height if math.isfinite(height) else 0.0) / top, 1.0)
        colour = f' style="fill:{escape(marks[i])}"' if i in marks else ""
        bars.append(
            f'<rect x="{i * 10 + 1}" y="{36 - tall:.1f}" width="8" height="{tall:.1f}"{colour}/>'
        )
    return (
        f'<svg class="strip" viewBox="0 0 {10 * len(heights)} 36" preserveAspectRatio="none" '
        f'role="img" aria-label="quality of every frame">{"".join(bars)}</svg>'
    )
