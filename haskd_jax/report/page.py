"""The page around the sections: style, script, and the small parts that all of them use."""

import re
from collections.abc import Sequence
from html import escape
from importlib import resources

from haskd_jax.report.run_folder import Arm, Run

_KNOWN = {"plain": "var(--plain)", "teacher": "var(--teacher)", "haskd": "var(--student)"}
_SERIES = 6  # colours in page.css, of which the first two are those of student and teacher


def arm_colour(run: Run, arm: Arm) -> str:
    """The CSS colour of an arm, the same all over the report."""
    others = [other.name for other in run.arms if other.name not in _KNOWN]
    if arm.name in _KNOWN:
        return _KNOWN[arm.name]
    return series_colour(2 + others.index(arm.name) % (_SERIES - 2))


def series_colour(number: int) -> str:
    """The CSS colour of a line that stands for no arm of its own."""
    return f"var(--c{number % _SERIES})"


def anchor(title: str) -> str:
    """The address of a section within the page.

    Example:
        >>> anchor("What was run")
        'what-was-run'
    """
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def section(title: str, content: str) -> str:
    """A section; `title` is escaped, `content` is HTML."""
    return f'<section id="{anchor(title)}"><h2>{escape(title)}</h2>{content}</section>'


def absent(sentence: str) -> str:
    """What a section says instead of what is not there."""
    return f'<p class="absent">{escape(sentence)}</p>'


def swatches(entries: Sequence[tuple[str, str]]) -> str:
    """A legend of names and CSS colours."""
    items = "".join(
        f'<li><i style="background:{escape(colour)}"></i>{escape(name)}</li>'
        for name, colour in entries
    )
    return f'<ul class="key">{items}</ul>'


def table(kind: str, head: Sequence[str], rows: str) -> str:
    """A table that scrolls sideways where the page is too narrow.

    Args:
        kind: Its CSS classes.
        head: Names of the columns, as HTML.
        rows: Its rows, as HTML.

    Returns:
        The element.
    """
    cells = "".join(f'<th scope="col">{name}</th>' for name in head)
    top = f"<thead><tr>{cells}</tr></thead>" if head else ""
    return (
        f'<div class="scroll" tabindex="0"><table class="{kind}">{top}<tbody>{rows}</tbody>'
        "</table></div>"
    )


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> duration(4.24), duration(192.0), duration(7500.0)
        ('4.2 s', '3 min 12 s', '2 h 5 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def page(title: str, subtitle: str, verdict: str, sections: Sequence[tuple[str, str]]) -> str:
    """The whole document.

    Args:
        title: Of the page; escaped here, as `subtitle` and `verdict` are.
        subtitle: Beneath it.
        verdict: The sentence to take away.
        sections: Name for the table of contents and HTML of each section.

    Returns:
        HTML that needs no other file.
    """
    folder = resources.files("haskd_jax.report")
    style = (folder / "page.css").read_text(encoding="utf-8")
    script = (folder / "page.js").read_text(encoding="utf-8")
    contents = "".join(
        f'<a href="#{anchor(name)}">{escape(name)}</a>' for name, html in sections if html
    )
    body = "".join(html for _, html in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><header>"
        f'<p class="kicker">{escape(subtitle)}</p><h1>{escape(title)}</h1>'
        f'<p class="verdict">{escape(verdict)}</p><nav>{contents}</nav></header>'
        f"<main>{body}</main><dialog></dialog><script>{script}</script></body></html>\n"
    )
