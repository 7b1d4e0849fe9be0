"""The examples in the documents run as they stand, and their links lead somewhere."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from haskd_jax.data.scannet_labels import CLASSES
from haskd_jax.experiments import export_cli
from tests.report import fake
from tests.train.trained import cloud, make_student, write_scene, write_training

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
WITH_EXAMPLES = [path for path in DOCUMENTS if BLOCK.search((ROOT / path).read_text("utf-8"))]


def run_examples(document):
    """Runs a document's blocks one after another; gives what they defined."""
    names = {}
    for block in BLOCK.findall((ROOT / document).read_text(encoding="utf-8")):
        exec(compile(block, document, "exec"), names)
    return names


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the documents speak of: scans, prepared rooms, trainings, a sweep, an export."""
    folder = tmp_path_factory.mktemp("documents")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_examples("docs/synthrooms.md")  # prepares
    trained = write_training(folder / "runs" / "rooms" / "haskd", make_student(CLASSES))
    fake.write_run(folder / "runs" / "synthrooms", folder / "prepared", pictured=1)
    (folder / "runs" / "sweep").mkdir()
    fake.write_results(folder / "runs" / "sweep", {"plain": 0.5, "haskd": 0.55}, seeds=3)
    out = str(folder / "student.jaxexport")
    assert export_cli.main([str(trained), "-o", out, "--points", "700"]) == 0
    write_scene(folder / "mine", "scan", cloud(8, count=600))
    (folder / "raw").mkdir()
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.uniform(0, 3, (50, 3)), rng.integers(0, 2, 50)])
    np.save(folder / "raw" / "a.npy", table.astype(np.float32))
    return folder


@pytest.mark.parametrize("document", WITH_EXAMPLES)
def test_examples_run(document, folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert run_examples(document)


def test_a_scan_that_does_not_fit_an_export_is_refused(folder, tmp_path, monkeypatch):
    for name in ("student.jaxexport", "student.jaxexport.json"):
        shutil.copy(folder / name, tmp_path / name)
    write_scene(tmp_path / "mine", "scan", cloud(8, count=701))
    monkeypatch.chdir(tmp_path)
    example = BLOCK.findall((ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8"))[-1]
    with pytest.raises(ValueError, match="701 points, but 700 fit: export with --points 701"):
        exec(compile(example, "docs/evaluation.md", "exec"), {})


@pytest.mark.parametrize("document", [*DOCUMENTS, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(document):
    path = ROOT / document
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (path.parent / target).exists()]
    assert not missing


def test_pictures_are_light():
    pictures = [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".png", ".jpg")]
    assert pictures
    assert all(0 < path.stat().st_size < 300_000 for path in pictures)
