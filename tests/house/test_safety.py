"""Nothing that runs code hidden in data: no pickles, no unsafe YAML."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = re.compile(
    r"\b(?:import|from)\s+(?:pickle|cloudpickle|dill|joblib|shelve|marshal)\b"
    r"|\ballow_pickle\s*=\s*True"
    r"|\byaml\s*\.\s*(?:unsafe_load|full_load|load)\b"
    r"|\bweights_only\s*=\s*False"
)


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import load",
        "np.load(path, allow_pickle = True)",
        "yaml.load(text)",
        "torch.load(p, weights_only=False)",
    ],
)
def test_the_pattern_finds(line):
    assert FORBIDDEN.search(line)


@pytest.mark.parametrize(
    "line", ["yaml.safe_load(text)", "np.load(path, allow_pickle=False)", "# no pickles here"]
)
def test_the_pattern_spares(line):
    assert not FORBIDDEN.search(line)


def test_no_source_runs_code_from_data():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for folder in ("haskd_jax", "kernels", "experiments")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert not found, "\n".join(found)
