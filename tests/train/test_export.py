"""The exported student: run by a process that cannot import this package."""

import json
import subprocess
import sys

import numpy as np
import pytest

from haskd_jax.data import Scene
from haskd_jax.experiments import export_cli
from haskd_jax.train.export import export_student
from haskd_jax.train.prediction import predict_scene
from tests.train.trained import (
    CLASSES,
    VOXEL_SIZE,
    cloud,
    make_student,
    make_teacher,
    weights,
    write_training,
)

POINTS, COUNT = 700, 600

_ALONE = """
import sys
sys.modules["haskd_jax"] = None  # importing it fails
import numpy as np
from jax import export
folder = sys.argv[1]
given = np.load(folder + "/scan.npz")
with open(folder + "/student.jaxexport", "rb") as file:
    student = export.deserialize(bytearray(file.read()))
padding = ((0, int(sys.argv[2]) - len(given["points"])), (0, 0))
arrays = [np.pad(given[name], padding, constant_values=7) for name in ("points", "colour", "normals")]
label, confidence, overflow = student.call(*arrays, np.int32(len(given["points"])))
assert not any(name.startswith("haskd_jax.") for name in sys.modules)
np.savez(folder + "/found.npz", label=label, confidence=confidence, overflow=overflow)
"""  # noqa: E501


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with the training, the exported file, and what a lonely process made of a scan."""
    folder = tmp_path_factory.mktemp("export")
    write_training(folder / "arm", make_student(), seed=3)
    out = str(folder / "student.jaxexport")
    given = [str(folder / "arm"), "-o", out, "--platforms", "cpu", "cuda", "tpu"]
    assert export_cli.main([*given, "--points", str(POINTS)]) == 0
    scan = cloud(8, count=COUNT)
    np.savez(folder / "scan.npz", points=scan.points, colour=scan.colour, normals=scan.normals)
    command = [sys.executable, "-c", _ALONE, str(folder), str(POINTS)]
    subprocess.run(command, check=True, cwd=folder)
    return folder


def test_it_says_what_predict_says(exported):
    scan = cloud(8, count=COUNT)
    network = make_student()
    scene = Scene("scan", scan.points, scan.colour, scan.normals)
    expected = predict_scene(network, *weights(network, seed=3), scene)
    found = np.load(exported / "found.npz", allow_pickle=False)
    assert found["overflow"] == 0
    np.testing.assert_allclose(found["confidence"][:COUNT], expected.max(axis=1), atol=1e-4)
    # Where two classes are as likely as can be, rounding decides.
    ranked = np.sort(expected, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > 1e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found["label"][:COUNT][clear], expected.argmax(axis=1)[clear])
    assert len(set(found["label"][:COUNT])) > 1
    assert (found["label"][COUNT:] == -1).all() and (found["confidence"][COUNT:] == 0).all()


def test_beside_it_lies_what_it_takes(exported):
    about = json.loads((exported / "student.jaxexport.json").read_text())
    assert about["classes"] == list(CLASSES)
    assert about["voxel_size"] == VOXEL_SIZE
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    assert about["inputs"]["points"] == {"shape": [POINTS, 3], "dtype": "float32"}
    assert about["capacity"][0] >= POINTS
    assert about["outputs"] == ["label", "confidence", "overflow"]


def test_teachers_are_refused():
    network = make_teacher()
    with pytest.raises(ValueError, match="a teacher needs images"):
        export_student(network, *weights(network), points=10, platforms=("cpu",))


def test_what_cannot_be_exported_leaves_nothing(tmp_path, capfd):
    out = tmp_path / "student.jaxexport"
    assert export_cli.main([str(tmp_path / "nothing"), "-o", str(out)]) == 2
    assert "card.json: missing" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
