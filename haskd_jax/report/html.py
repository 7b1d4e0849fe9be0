"""The report: a run folder as one HTML file that needs nothing else."""

from collections.abc import Sequence
from pathlib import Path

from haskd_jax.files import write_text
from haskd_jax.report.page import page
from haskd_jax.report.results import (
    class_section,
    confusion_section,
    result_section,
    setting_section,
)
from haskd_jax.report.run_folder import Run, read_run
from haskd_jax.report.scenes import frames_section, scenes_section
from haskd_jax.report.seeds import seeds_section
from haskd_jax.report.statistics import Result, paired_differences, read_results
from haskd_jax.report.training import adeptness_section, curves_section
from haskd_jax.report.verdict import headline


def write_report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Writes the report of a run, or of a sweep over seeds.

    What the run has not reached yet, or did not do, is said in a sentence where it would stand.

    Args:
        folder: What an experiment wrote: of a run, or of a sweep, whose `results.csv` is what the
            verdict and a section on seeds are about; the rest is about its first seed, even where
            the folder held a single run before.
        out: The file; `report.html` in the folder by default.

    Returns:
        The file that was written.

    Raises:
        DataError: A file of the run is damaged; the message names it and what to do.
        OSError: The report cannot be written there.

    Example:
        >>> write_report("no/such/run")
        Traceback (most recent call last):
        ...
        haskd_jax.data.errors.DataError: no/such/run/run.json: missing: is this a run folder?
    """
    folder = Path(folder)
    table = folder / "results.csv"
    results = read_results(table) if table.exists() else ()
    first = min((row.seed for row in results), default=0)
    seed = folder / f"seed_{first}"
    run = read_run(seed if results and seed.exists() else folder)
    path = Path(out) if out is not None else folder / "report.html"
    write_text(path, render(run, results))
    return path


def render(run: Run, results: Sequence[Result] = ()) -> str:
    """The report as HTML.

    Args:
        run: What `read_run` returned.
        results: Rows of the sweep that the run is part of, if there is one.

    Returns:
        The document.
    """
    differences = paired_differences(results)
    experiment = str(run.info.get("experiment") or run.folder.name)
    sections = [
        ("Results", result_section(run)),
        ("Over seeds", seeds_section(run, results) if results else ""),
        ("Rooms the arms had not seen", scenes_section(run)),
        ("Class by class", class_section(run)),
        ("What is taken for what", confusion_section(run)),
        ("The frames the teacher sees", frames_section(run)),
        ("Which expert is heard on what", adeptness_section(run)),
        ("Training", curves_section(run)),
        ("What was run", setting_section(run)),
    ]
    return page(
        f"HAS-KD on {'own scans' if experiment == 'own' else experiment}",
        "3D semantic segmentation, distilled from images and from snapshots",
        headline(run, differences),
        sections,
    )
