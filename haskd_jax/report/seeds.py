"""The section on a sweep: every arm over its seeds, and what the paired comparisons say."""

from collections.abc import Sequence
from html import escape

from haskd_jax.report.charts import ticks
from haskd_jax.report.comparisons import (
    RARE,
    Comparison,
    class_names,
    compare,
    rare_classes,
    with_rare_classes,
)
from haskd_jax.report.page import duration, section, table
from haskd_jax.report.run_folder import TITLES, Run
from haskd_jax.report.statistics import (
    PairedDifference,
    Result,
    class_columns,
    paired_differences,
    summaries,
)
from haskd_jax.report.verdict import REFERENCE, STUDENTS, begun, points, signed, student_of

_TREND = {"better": "up", "worse": "down"}
_COLOUR = {"better": "var(--up)", "worse": "var(--down)"}


def seeds_section(run: Run, results: Sequence[Result]) -> str:
    """A sweep: mean and spread of every arm, and paired differences with their intervals.

    Args:
        run: One run of the sweep, whose evaluations say which classes are rare.
        results: Rows of the sweep.

    Returns:
        The section.
    """
    scored = [arm.evaluation for arm in run.evaluated if arm.evaluation]
    rare: tuple[str, ...] = ()
    if scored:
        count = sum(evaluation.confusion.sum(axis=1) for evaluation in scored)
        rare = rare_classes(count, class_names(scored[0].classes))
    rows = with_rare_classes(results, rare)
    blocks = []
    for setting in dict.fromkeys(row.setting for row in rows):
        own = [row for row in rows if row.setting == setting]
        if setting:
            blocks.append(f"<h3>Setting: {escape(setting)}</h3>")
        blocks += [_arms(own), _comparisons(own), _by_class(own, rare)]
    note = (
        "Differences are paired by seed, in mIoU points; the interval is Student&rsquo;s t for "
        "their mean. Read several together: of twenty intervals one misses by chance. Training is "
        "an arm&rsquo;s own, without its teacher&rsquo;s."
    )
    if rare:
        note += f" Rare classes have under 1 % of the points: {escape(', '.join(rare))}."
    return section("Over seeds", f'{"".join(blocks)}<p class="small">{note}</p>')


def _arms(rows: Sequence[Result]) -> str:
    rare = {s.arm: s for s in summaries(rows, RARE)}
    cost = {
        name: {s.arm: s.mean for s in summaries(rows, name)}
        for name in ("parameters", "seconds_per_scene", "training_seconds")
    }
    lines = []
    for s in summaries(rows):
        cells = [
            str(s.seeds),
            _spread(s.mean, s.sd),
            _spread(rare[s.arm].mean, rare[s.arm].sd) if s.arm in rare else "",
            f"{cost['parameters'][s.arm]:,.0f}" if s.arm in cost["parameters"] else "",
            f"{cost['seconds_per_scene'][s.arm]:.3g} s"
            if s.arm in cost["seconds_per_scene"]
            else "",
            duration(cost["training_seconds"][s.arm]) if s.arm in cost["training_seconds"] else "",
        ]
        lines.append(_line(escape(TITLES.get(s.arm, s.arm)), cells))
    heads = ("Arm", "Seeds", "mIoU, mean &pm; sd", "Rare classes", "Parameters",
             "Inference a scene", "Training")  # fmt: skip
    return table("results seeds", heads, "".join(lines))


def _spread(mean: float, sd: float | None) -> str:
    return f"<b>{points(mean)}</b>" + ("" if sd is None else f" &plusmn; {points(sd)}")


def _comparisons(rows: Sequence[Result]) -> str:
    """The table of the comparisons, and a chart of those with an interval."""
    found = list(compare(rows))
    if not found:
        return ""
    rare = {(c.arm, c.reference): d for c, d in compare(rows, RARE)}
    lines = []
    for c, d in found:
        also = rare.get((c.arm, c.reference))
        name = f'{_pair(c)}<br><small style="margin:0">{escape(c.tests)}</small>'
        lines.append(
            _line(name, [str(d.seeds), *_cells(d), *(_cells(also)[:2] if also else ("", ""))], d)
        )
    heads = ("Comparison", "Seeds", "mIoU", "95 % interval", "Verdict", "Rare classes",
             "95 % interval")  # fmt: skip
    return table("results seeds", heads, "".join(lines)) + interval_chart(found)


def _pair(comparison: Comparison) -> str:
    arm, reference = (TITLES.get(n, n) for n in (comparison.arm, comparison.reference))
    return escape(f"{arm} \N{MINUS SIGN} {reference}")


def _cells(d: PairedDifference) -> tuple[str, str, str]:
    interval = ""
    if d.low is not None and d.high is not None:
        interval = f"{signed(d.low)} to {signed(d.high)}"
    return signed(d.mean), interval, d.verdict


def _line(name: str, cells: Sequence[str], d: PairedDifference | None = None) -> str:
    """A row; the cell that holds the verdict of `d` takes its colour."""
    marked = "".join(
        f'<td class="{_TREND.get(d.verdict, "flat")}">{cell}</td>'
        if d is not None and cell == d.verdict
        else f"<td>{cell}</td>"
        for cell in cells
    )
    return f'<tr><th scope="row">{name}</th>{marked}</tr>'


def _by_class(rows: Sequence[Result], rare: Sequence[str]) -> str:
    """The student that the report is about minus plain, class by class, behind a fold."""
    student = student_of({row.arm for row in rows})
    pair = [row for row in rows if row.arm in (REFERENCE, student)]
    lines = []
    for name in class_columns(rows):
        for d in paired_differences(pair, reference=REFERENCE, metric=name):
            note = " <small>rare</small>" if name in rare else ""
            if name != RARE:
                lines.append(_line(escape(name) + note, [str(d.seeds), *_cells(d)], d))
    if not lines:
        return ""
    heads = ("Class", "Seeds", "IoU", "95 % interval", "Verdict")
    inner = table("results seeds", heads, "".join(lines))
    summary = begun(f"{STUDENTS[student]} minus plain, class by class")
    return f"<details><summary>{summary}</summary>{inner}</details>"


_WIDTH, _NAMES, _MARGIN, _ROW = 760, 260, 16, 24


def interval_chart(found: Sequence[tuple[Comparison, PairedDifference]]) -> str:
    """Differences as dots on their intervals, over a line at zero.

    Args:
        found: Comparisons of one setting; those of one pair alone are left out.

    Returns:
        A `<figure>`, or nothing where none has an interval.

    Example:
        >>> one = (Comparison("haskd", "plain", "all"),
        ...        PairedDifference("full", "haskd", 8, 0.02, 0.01, 0.012, 0.028))
        >>> interval_chart([one]).count("<circle")
        1
        >>> interval_chart([])
        ''
    """
    drawn = [(c, d, d.low, d.high) for c, d in found if d.low is not None and d.high is not None]
    if not drawn:
        return ""
    low = min(0.0, *(100 * low for _, _, low, _ in drawn))
    high = max(0.0, *(100 * high for _, _, _, high in drawn))
    marks = ticks(low, high)
    first, last = marks[0], max(marks[-1], high)

    def place(value: float) -> float:
        return _NAMES + (value - first) / (last - first) * (_WIDTH - _NAMES - _MARGIN)

    bottom = _ROW * len(drawn) + 6
    parts = []
    for mark in marks:
        x, strong = place(mark), ' style="stroke:var(--soft)"' if mark == 0 else ""
        parts.append(f'<path class="grid" d="M{x:.1f} 2V{bottom}"{strong}/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{mark:g}</text>')
    for row, (c, d, start, end) in enumerate(drawn):
        y = _ROW * row + 16
        colour = _COLOUR.get(d.verdict, "var(--soft)")
        span = f"M{place(100 * start):.1f} {y}H{place(100 * end):.1f}"
        parts.append(
            f'<text x="{_NAMES - 14}" y="{y + 4}" text-anchor="end">{_pair(c)}</text>'
            f'<path d="{span}" stroke="{colour}" stroke-width="2"/>'
            f'<circle cx="{place(100 * d.mean):.1f}" cy="{y}" r="4" fill="{colour}"/>'
        )
    label = "Differences in mIoU points with 95 % intervals"
    return (
        f'<figure class="chart"><figcaption>{label}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {bottom + 22}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg></figure>"
    )
