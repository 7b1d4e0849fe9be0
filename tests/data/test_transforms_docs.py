"""The code in docs/augmentation.md runs as it stands there, and names what exists."""

import re
from pathlib import Path

from haskd_jax.data import few_labels, transforms
from haskd_jax.files import write_json
from tests.data.rooms import write_scene

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "augmentation.md").read_text("utf-8")


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    description = {"format": "haskd-dataset", "version": 1, "dataset": "own", "classes": ["a"] * 6}
    (tmp_path / "prepared").mkdir()
    write_json(tmp_path / "prepared" / "dataset.json", description)
    for i in range(3):
        write_scene(tmp_path / "prepared", f"room{i}", i, 300, frames=0)
    monkeypatch.chdir(tmp_path)
    exec(code, {"__name__": "example"})
    assert capsys.readouterr().out == "6 True 0\n"


def test_the_tables_name_what_exists():
    names = re.findall(r"^\| `(\w+)` \|", PAGE, re.M)
    assert len(names) == 13 and all(callable(getattr(transforms, name)) for name in names)
    options = set(re.findall(r"(\w+)\(", " ".join(re.findall(r"^\|.*FewLabels.*$", PAGE, re.M))))
    assert len(options) == 4 and all(hasattr(few_labels, name) for name in options)
