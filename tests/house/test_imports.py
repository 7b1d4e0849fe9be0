"""Which part may import which, and how light the light ones stay."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "haskd_jax"

# part -> the parts it may import besides itself. Modules directly under haskd_jax hold helpers
# that every part may use, and import no part themselves.
MAY_IMPORT = {
    "sparse": set(),
    "losses": set(),
    "views": set(),
    "data": set(),
    "models": {"sparse", "losses", "views"},
    "train": {"sparse", "losses", "views", "models", "data"},
    "report": {"sparse", "losses", "views", "models", "train", "data"},
    "experiments": {"sparse", "losses", "views", "models", "train", "data", "report"},
}
# part -> distributions it may not import at all, not even inside a function.
MAY_NOT_LOAD = {
    "sparse": {"flax", "grain", "optax", "orbax", "torch"},
    "losses": {"flax", "grain", "optax", "orbax", "torch"},
    "views": {"flax", "grain", "optax", "orbax", "torch"},
    "data": {"flax", "jax", "jaxlib", "optax", "orbax", "torch"},
}


def imported_modules(source: str, package: str) -> set[str]:
    """Absolute dotted names of everything `source`, a module inside `package`, imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(parents + ([base] if base else []))
            # `from haskd_jax import sparse` imports haskd_jax.sparse.
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def part_of(module: str) -> str | None:
    """`sparse` for `haskd_jax.sparse.grid`; None for what lies outside every part."""
    parts = module.split(".")
    return (
        parts[1] if parts[0] == "haskd_jax" and len(parts) > 1 and parts[1] in MAY_IMPORT else None
    )


def test_imported_modules_understands_every_form():
    source = (
        "import numpy as np, haskd_jax.data\n"
        "from haskd_jax import sparse\n"
        "from . import grid\n"
        "from ..losses.asd import asd_loss\n"
        "def late():\n    import flax.linen\n"
    )
    assert imported_modules(source, "haskd_jax.models") == {
        "numpy",
        "haskd_jax.data",
        "haskd_jax.sparse",
        "haskd_jax.models.grid",
        "haskd_jax.losses.asd.asd_loss",
        "flax.linen",
    }


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_imports_go_one_way(part):
    wrong = []
    for path in sorted((PACKAGE / part).rglob("*.py")):
        package = ".".join(path.parent.relative_to(PACKAGE.parent).parts)
        for module in sorted(imported_modules(path.read_text(encoding="utf-8"), package)):
            other = part_of(module)
            forbidden_part = other not in MAY_IMPORT[part] | {part, None}
            if forbidden_part or module.split(".")[0] in MAY_NOT_LOAD.get(part, ()):
                wrong.append(f"{path.relative_to(PACKAGE.parent)} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_every_part_has_a_rule():
    parts = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert parts <= set(MAY_IMPORT), f"say in MAY_IMPORT what {parts - set(MAY_IMPORT)} may import"


def test_top_level_modules_import_no_part():
    for path in PACKAGE.glob("*.py"):
        modules = imported_modules(path.read_text(encoding="utf-8"), "haskd_jax")
        assert not {part_of(module) for module in modules} - {None}, path


def loaded_by(statement: str) -> set[str]:
    """Top-level modules present in a fresh interpreter after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_the_package_alone_loads_nothing():
    assert not loaded_by("import haskd_jax") & {"jax", "numpy", "scipy", "flax"}


@pytest.mark.parametrize("part", ["sparse", "losses", "views"])
def test_light_parts_load_nothing_heavy(part):
    if not (PACKAGE / part / "__init__.py").exists():
        pytest.skip(f"haskd_jax.{part} is not written yet")
    heavy = {"flax", "grain", "matplotlib", "optax", "orbax", "pykeops", "tensorstore", "torch"}
    assert not loaded_by(f"import haskd_jax.{part}") & heavy


def test_data_loads_no_jax():
    if not (PACKAGE / "data" / "__init__.py").exists():
        pytest.skip("haskd_jax.data is not written yet")
    assert not loaded_by("import haskd_jax.data") & {"jax", "jaxlib", "flax", "torch"}
