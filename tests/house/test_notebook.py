"""The notebook runs as it is, and is committed as it ran."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NAME = "experiments/notebooks/losses_and_views.ipynb"


def kinds(notebook) -> list[set[str]]:
    """Of each code cell, what it shows: "stdout", "image/png" and so on."""
    return [
        {name for output in cell.outputs for name in (output.get("name"), *output.get("data", ()))}
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.slow
def test_notebook_runs_and_shows_what_is_committed(root: Path, monkeypatch):
    # The kernel is a process of its own: it finds the package, and what was compiled before.
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(root / ".cache" / "jax"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    committed = nbformat.read(root / NAME, as_version=4)
    assert [cell.execution_count for cell in committed.cells if cell.cell_type == "code"] == list(
        range(1, len(kinds(committed)) + 1)
    )
    assert sum("image/png" in shown for shown in kinds(committed)) == 4
    assert not any("stderr" in shown for shown in kinds(committed))
    assert (root / NAME).stat().st_size < 1 << 20

    notebook = nbformat.read(root / NAME, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300).execute()
    assert kinds(notebook) == kinds(committed)
