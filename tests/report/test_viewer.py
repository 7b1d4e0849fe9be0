import socket
import sys
import urllib.request

import numpy as np
import plyfile
import pytest

from haskd_jax.data import DataError
from haskd_jax.report.pictures import WRONG
from haskd_jax.report.view_source import open_source
from haskd_jax.report.viewer import HOST, Viewer, shown_frames


def free_port():
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return listener.getsockname()[1]


def answers(host, port):
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def test_serves_on_loopback_alone(finished):
    port = free_port()
    with Viewer(finished, port=port) as viewer:
        assert viewer.url == f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(viewer.url, timeout=20) as page:
            assert page.status == 200 and b"<html" in page.read()
        if sys.platform == "linux":
            # All of 127/8 is this machine: a server on every address would answer here too.
            assert not answers("127.0.0.2", port)
        if socket.has_ipv6:
            assert not answers("::1", port)
    assert not answers(HOST, port)


def test_shares_nothing(finished):
    with Viewer(finished, port=free_port()) as viewer:
        assert viewer._server.request_share_url() is None


def test_everything_can_be_switched(finished):
    with Viewer(finished, port=free_port()) as viewer:
        first = viewer._scene
        viewer._layer.value = "Error: Plain student"
        np.testing.assert_array_equal(
            viewer._cloud.colors, first.layers["Error: Plain student"][viewer._shown]
        )
        viewer._ceiling.value = False
        assert viewer._shown.all()
        viewer._cameras.value = "All"
        assert len(shown_frames(first, "All")) == 6
        # The second scene has no predictions: the viewer falls back to what it has.
        viewer._name.value = "scene9000_01"
        assert viewer._layer.value in viewer._scene.layers
        assert len(viewer._cloud.points) == len(viewer._scene.points)


def test_a_run_shows_truth_predictions_and_errors(finished):
    source = open_source(finished)
    assert source.names == ("scene9000_00", "scene9000_01")
    scene = source.load("scene9000_00")
    arms = ("Plain student", "Teacher", "HAS-KD student")
    expected = {f"{kind}: {arm}" for kind in ("Prediction", "Error") for arm in arms}
    assert set(scene.layers) == {"Colours", "Truth"} | expected
    assert set(source.load("scene9000_01").layers) == {"Colours", "Truth"}
    assert len(scene.chosen) == 3 and len(scene.frames) == 6
    assert shown_frames(scene, "Chosen") == scene.chosen
    assert shown_frames(scene, "None") == ()
    truth, answer = scene.layers["Truth"], scene.layers["Prediction: Teacher"]
    wrong = (scene.layers["Error: Teacher"] == WRONG).all(axis=1)
    assert (truth[wrong] != answer[wrong]).any(axis=1).all()


def test_a_prepared_root(finished):
    source = open_source(finished.parent / "prepared")
    assert len(source.names) == 2 and source.classes[0] == "wall"
    assert set(source.load(source.names[0]).layers) == {"Colours", "Truth"}


def test_a_prediction(tmp_path):
    vertex = np.zeros(
        3,
        [(n, "<f4") for n in ("x", "y", "z", "confidence")]
        + [(n, "u1") for n in ("red", "green", "blue")]
        + [("label", "<i2")],
    )
    vertex["label"] = [0, 1, -1]
    vertex["confidence"] = [1.0, 0.5, 0.0]
    comments = ["class 0 wall", "class 1 shower curtain"]
    element = plyfile.PlyElement.describe(vertex, "vertex")
    plyfile.PlyData([element], comments=comments).write(str(tmp_path / "out.ply"))
    source = open_source(tmp_path / "out.ply")
    assert source.classes == ("wall", "shower curtain")
    layers = source.load("out").layers
    assert set(layers) == {"Prediction", "Confidence"}
    assert layers["Prediction"][0].tolist() == [174, 199, 232]
    assert layers["Confidence"].tolist() == [[33, 102, 172], [247, 247, 247], [217, 95, 14]]


def test_what_is_none_of_these(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.ply").write_text("nonsense", encoding="utf-8")
    for path, said in [
        (tmp_path / "gone", "missing"),
        (tmp_path / "empty", "neither a run folder"),
        (tmp_path / "no.ply", "not a whole PLY file"),
    ]:
        with pytest.raises(DataError, match=said) as caught:
            open_source(path)
        assert caught.value.file == str(path)
