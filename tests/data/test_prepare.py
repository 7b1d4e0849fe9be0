"""Preparation as a whole: failures stay local, killed runs resume, the exit code tells."""

import errno
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from haskd_jax.data import DataError, list_scenes, load_scene
from haskd_jax.data.prepare import prepare
from haskd_jax.data.prepare_cli import main
from haskd_jax.data.prepared import verify_scene
from haskd_jax.data.scannet import ScanNet
from haskd_jax.data.scene import Cloud, Frame
from haskd_jax.data.workers import locked
from haskd_jax.files import PARTIAL
from tests.data import raw

NAMES = tuple(f"room_{i}" for i in range(8))


def write_root(root, names=NAMES, **options):
    """A root in ScanNet's layout with lists of its own."""
    for name in names:
        raw.write_scan(root, name, **options)
    raw.write_split(root, "train", names)
    return ScanNet(root, frame_stride=1, frame_size=(32, 24))


@pytest.mark.parametrize("workers", [1, 2])
def test_one_bad_scene_fails_alone(tmp_path, workers):
    source = write_root(tmp_path / "raw", NAMES[:4], count=300)
    sens = tmp_path / "raw" / "room_1" / "room_1.sens"
    sens.write_bytes(sens.read_bytes()[:-2000])
    seen = []
    summary = prepare(
        source, tmp_path / "out", workers=workers, on_result=lambda r, n: seen.append((r.scene, n))
    )
    assert sorted(seen) == [(name, 4) for name in NAMES[:4]]
    (failed,) = summary.failed
    assert failed.scene == "room_1"
    assert "room_1: " in failed.reason and "room_1.sens: ends inside frame" in failed.reason
    assert list_scenes(tmp_path / "out") == ("room_0", "room_2", "room_3")
    raw.write_sens(sens, raw.walk(6))
    again = prepare(source, tmp_path / "out", workers=workers)
    assert {r.scene: r.status for r in again.results} == {
        "room_0": "kept", "room_1": "done", "room_2": "kept", "room_3": "kept",
    }  # fmt: skip


def test_workers_change_no_byte(tmp_path):
    source = write_root(tmp_path / "raw", NAMES[:3], count=300)
    prepare(source, tmp_path / "a", workers=1)
    prepare(source, tmp_path / "b", workers=3)
    assert raw.tree(tmp_path / "a") == raw.tree(tmp_path / "b")


def test_other_options_are_redone_and_the_same_are_not(tmp_path):
    source = write_root(tmp_path / "raw", NAMES[:2], count=300)
    prepare(source, tmp_path / "out")
    assert {r.status for r in prepare(source, tmp_path / "out").results} == {"kept"}
    other = replace(source, frame_stride=2)
    assert {r.status for r in prepare(other, tmp_path / "out").results} == {"done"}
    assert len(load_scene(tmp_path / "out" / "room_0").frames) == 3
    (tmp_path / "out" / "room_0" / "points.npy").write_bytes(b"")
    assert [r.status for r in prepare(other, tmp_path / "out").results] == ["done", "kept"]


def test_another_dataset_in_the_same_folder_is_refused(tmp_path):
    prepare(write_root(tmp_path / "raw", NAMES[:1], count=300), tmp_path / "out")
    with pytest.raises(DataError, match=r"dataset\.json: holds scannet, not test: choose"):
        prepare(raw.Reader(("a",)), tmp_path / "out")


def test_labels_that_no_class_names_are_refused(tmp_path):
    """They would train to the end, and be refused when the student is evaluated."""
    (result,) = prepare(OneScan(label=(0, 1, 8)), tmp_path / "out").results
    assert "unknown label id 8: there are 2 classes" in result.reason
    (result,) = prepare(OneScan(frame_label=2), tmp_path / "out").results
    assert "unknown label id 2: there are 2 classes" in result.reason
    (result,) = prepare(OneScan(label=(0, 1, -1), frame_label=1), tmp_path / "out").results
    assert result.status == "done"


@dataclass(frozen=True)
class OneScan:
    """A reader of somebody else's."""

    label: tuple[int, ...] = (0, 0, 0)
    frame_label: int = 0
    dataset = "mine"
    classes = ("floor", "chair")

    def scenes(self):
        return {"scan": "train"}

    def recipe(self, name):
        return {}

    def read(self, name, writer):
        grey = np.zeros((2, 2), np.uint8)
        writer.add_frame(
            Frame(
                name="0",
                colour=np.stack([grey] * 3, axis=2),
                depth=grey.astype(np.uint16),
                intrinsics=np.eye(3),
                camera_to_world=np.eye(4),
                label=(grey + self.frame_label).astype(np.int16),
            )
        )
        points = np.eye(3, dtype=np.float32)
        writer.add_cloud(Cloud(points=points, label=np.array(self.label, np.int32)))


def test_a_scan_of_a_list_may_move_to_another_split(tmp_path):
    source = write_root(tmp_path / "raw", NAMES[:2], count=300)
    prepare(source, tmp_path / "out")
    raw.write_split(tmp_path / "raw", "train", NAMES[:1])
    raw.write_split(tmp_path / "raw", "val", NAMES[1:2])
    assert [result.status for result in prepare(source, tmp_path / "out").results] == [
        "kept",
        "done",
    ]
    assert list_scenes(tmp_path / "out", "val") == NAMES[1:2]


def test_own_scans_tell_what_else_there_is(tmp_path, capsys):
    points, _ = raw.room_cloud(300)
    (tmp_path / "raw").mkdir()
    for name in ("a", "b"):
        raw.write_ply(tmp_path / "raw" / f"{name}.ply", raw.vertices(points))
    (tmp_path / "raw" / "notes.txt").write_text("")
    command = ["own", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "passed over, as no scans: notes.txt" in told and "earlier preparation" not in told
    (tmp_path / "raw" / "b.ply").rename(tmp_path / "raw" / "c.ply")
    assert main(command) == 0
    assert "of an earlier preparation" in (told := capsys.readouterr().out)
    assert told.rstrip().endswith("as well: b")


def test_two_preparations_in_one_folder(tmp_path):
    import fcntl

    source = write_root(tmp_path / "raw", NAMES[:1], count=300)
    prepare(source, tmp_path / "out")
    with (tmp_path / "out" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process is at work here"):
            prepare(source, tmp_path / "out")


def test_a_process_that_is_about_to_end_is_waited_for(tmp_path, caplog, monkeypatch):
    import fcntl

    file = (tmp_path / ".lock").open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    # It ends while this one waits.
    monkeypatch.setattr("haskd_jax.data.workers.time.sleep", lambda seconds: file.close())
    with locked(tmp_path, patience=60.0):
        assert file.closed
    assert "waiting for another process" in caplog.text


def test_a_filesystem_without_locks_has_none(tmp_path, monkeypatch):
    def no_locks(file, how):
        raise OSError(errno.ENOSYS, "not there")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with locked(tmp_path), locked(tmp_path):
        pass


@pytest.mark.parametrize("workers", [0, -1])
def test_workers_below_one(tmp_path, workers):
    with pytest.raises(ValueError, match=f"workers: {workers}"):
        prepare(raw.Reader(("a",)), tmp_path / "out", workers=workers)


def test_a_full_disk_too_little_memory_and_the_unforeseen(tmp_path):
    summary = prepare(raw.Reader(("a", "full", "hungry", "odd", "z")), tmp_path / "out")
    assert [r.status for r in summary.results] == ["done", "failed", "failed", "failed", "done"]
    full, hungry, odd = summary.failed
    assert "unexpected IndexError: 7" in odd.reason
    assert full.reason == f"full: {tmp_path}/out/full: No space left on device"
    assert "out of memory" in hungry.reason
    assert not any(path.name.startswith(PARTIAL) for path in (tmp_path / "out").iterdir())


def test_a_killed_worker_costs_its_scene_only(tmp_path):
    names = ("a", "b", "killed", "x", "y", "z")
    summary = prepare(raw.Reader(names), tmp_path / "out", workers=2)
    assert {r.scene for r in summary.results} == set(names)
    assert len(summary.results) == len(names)
    (failed,) = summary.failed
    assert failed.scene == "killed"
    assert "its process was killed" in failed.reason
    assert list_scenes(tmp_path / "out") == ("a", "b", "x", "y", "z")


def start(arguments):
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "haskd_jax.data.prepare_cli", *map(str, arguments)],
        cwd=Path(__file__).resolve().parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def children(pid):
    """The processes that a process started."""
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in tasks.read_text().split()] if tasks.exists() else []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find workers")
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_started_again_gives_the_same_bytes(tmp_path, workers):
    source = write_root(tmp_path / "raw", NAMES[:4], frames=60, count=300, colour_size=(96, 72))
    assert not prepare(source, tmp_path / "whole").failed
    out = tmp_path / "out"
    arguments = ["scannet", "--raw", tmp_path / "raw", "--out", out, "--workers", workers]
    arguments += ["--frame-stride", 1, "--frame-size", 32, 24]
    process = start(arguments)
    killed = False
    workers_of_it = []
    while process.poll() is None:  # kill it in the midst of the second scene or a later one
        if list(out.glob("room_*")) and list(out.glob(f"{PARTIAL}room*/frame_depth.npy")):
            workers_of_it = children(process.pid)
            process.kill()
            killed = True
    process.communicate()
    assert killed
    for pid in workers_of_it:  # a worker ends with its parent
        while Path(f"/proc/{pid}").exists():
            pass
    ready = list_scenes(out)
    assert 0 < len(ready) < 4
    assert any(out.glob(f"{PARTIAL}*"))
    for name in ready:
        verify_scene(out / name)
    again = start(arguments)
    told, _ = again.communicate()
    assert again.returncode == 0, told
    assert raw.tree(out) == raw.tree(tmp_path / "whole")


def test_the_command_tells_what_was_left_out_and_why(tmp_path, capsys):
    write_root(tmp_path / "raw", NAMES[:2], count=300)
    poses = raw.walk(6)
    poses[3] = float("inf")
    raw.write_sens(tmp_path / "raw" / "room_0" / "room_0.sens", poses)
    arguments = ["scannet", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    arguments += ["--workers", "1", "--frame-stride", "1"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "2 scenes ready (0 of them were there already), 0 failed" in told
    assert "1  frame: pose is not finite" in told
    (tmp_path / "raw" / "room_1" / "room_1.sens").unlink()
    (tmp_path / "out" / "room_1" / "manifest.json").unlink()
    assert main(arguments) == 1
    told = capsys.readouterr().out
    assert "1 scenes ready (1 of them were there already), 1 failed" in told
    assert "room_1.sens: no frames" in told
    assert main([*arguments[:2], str(tmp_path / "nowhere"), *arguments[3:]]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_options_out_of_range_are_said_to_users(tmp_path, capsys):
    command = ["synthrooms", "--out", str(tmp_path / "out")]
    assert main([*command, "--train", "-3"]) == 2
    assert capsys.readouterr().err.startswith("haskd prepare: train: -3 scenes, must be 0 to ")
    with pytest.raises(SystemExit) as end:
        main([*command, "--frames", "1"])
    assert end.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "source.options: frames: 1, must be 4 or more" in told and "tyro" not in told


@pytest.mark.parametrize(
    ("command", "first"),
    [("scannet", "--raw"), ("s3dis", "--raw"), ("own", "--raw"), ("synthrooms", "--train")],
)
def test_help_names_every_option(command, first, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    assert all(word in told for word in (first, "--out", "--workers"))
