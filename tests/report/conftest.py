"""One run folder for all tests of the report; those that change it copy it."""

import shutil

import pytest

from tests.report import fake


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A complete run."""
    folder = tmp_path_factory.mktemp("report")
    prepared = fake.write_prepared(folder / "prepared")
    return fake.write_run(folder / "run", prepared, pictured=1)


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the run to break, without predictions: pictures take the longest to draw."""
    ignored = shutil.ignore_patterns("predictions")
    return shutil.copytree(finished, tmp_path / "run", ignore=ignored)


@pytest.fixture
def pictured(finished, run):
    """The same with the plain student's predictions."""
    shutil.copytree(finished / "plain" / "predictions", run / "plain" / "predictions")
    return run
