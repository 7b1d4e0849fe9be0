import importlib.util

import pytest


@pytest.fixture
def script(root):
    """Loads a script of experiments/synthrooms, which is no package."""

    def load(name):
        path = root / "experiments" / "synthrooms" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
