"""The code in docs/data.md runs as it stands there."""

import re
from pathlib import Path

import numpy as np

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"


def test_the_examples_run(tmp_path, monkeypatch, capsys):
    reading, writing = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    rng = np.random.default_rng(0)
    (tmp_path / "raw").mkdir()
    table = np.column_stack([rng.uniform(0, 3, (50, 3)), rng.integers(0, 2, 50)])
    np.save(tmp_path / "raw" / "room.npy", table.astype(np.float32))
    monkeypatch.chdir(tmp_path)
    exec(writing, {"__name__": "example"})
    exec(reading, {"__name__": "example"})
    assert capsys.readouterr().out == "room (50, 3) 0\n"
    assert '"labelled_points": 50' in (tmp_path / "prepared" / "prepare.json").read_text()


def test_the_pictures_are_there():
    names = re.findall(r"\]\((images/[^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert names
    assert all(0 < (PAGE.parent / name).stat().st_size < 300_000 for name in names)
