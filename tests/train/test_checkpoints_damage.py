"""Checkpoints that were cut short or damaged: never taken for whole ones."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from haskd_jax.train.checkpoints import (
    Checkpoints,
)
from tests.train import small_run
from tests.train.states import (
    assert_same,
    description,
    files,
    flip,
    small,
    truncate,
    weights_file,
)


def test_what_a_killed_process_left_is_deleted(tmp_path):
    (tmp_path / "30.partial" / "arrays").mkdir(parents=True)
    (tmp_path / "30.partial" / "arrays" / "x").write_text("x")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(small(0)) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("which", [weights_file, description])
@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink, lambda p: p.write_bytes(b"")])
def test_a_corrupt_latest_is_named_and_the_one_before_used(tmp_path, which, damage):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, small(1), {"step": 1})
        checkpoints.save(2, small(2), {"step": 2})
    damage(which(tmp_path / "2"))
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.warns(UserWarning) as caught:
            restored = checkpoints.restore(small(0))
        assert len(caught) == 1
        assert str(tmp_path / "2") in str(caught[0].message)
        assert restored.step == 1 and restored.loader_state == {"step": 1}
        assert_same(restored.state, small(1))
        checkpoints.save(2, small(2), {"step": 2})  # trained again
        assert checkpoints.restore(small(0)).step == 2
    assert (tmp_path / "2.corrupt").is_dir()


def test_every_flipped_byte_is_noticed(tmp_path):
    rng = np.random.default_rng(0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, small(1), {"step": 1})
        checkpoints.wait()
        for path in files(tmp_path / "1"):
            whole = path.read_bytes()
            for at in {0, len(whole) - 1, *rng.integers(len(whole), size=3).tolist()}:
                damaged = bytearray(whole)
                damaged[at] ^= 1 << int(rng.integers(8))
                path.write_bytes(damaged)
                with (
                    pytest.warns(UserWarning, match="corrupt"),
                    pytest.raises(ValueError, match="none of the checkpoints"),
                ):
                    checkpoints.restore(small(0))
                (tmp_path / "1.corrupt").rename(tmp_path / "1")
            path.write_bytes(whole)
        assert_same(checkpoints.restore(small(0)).state, small(1))


def test_none_intact_is_an_error(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, small(5), {})
    truncate(description(tmp_path / "5"))
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.warns(UserWarning, match="corrupt"),
        pytest.raises(ValueError, match=r"steps 5 is intact.*delete the folder"),
    ):
        checkpoints.restore(small(0))


def python(script: str, *arguments: object, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=small_run.ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        **options,
    )


def test_a_full_folder(tmp_path):
    """A limit on the sizes of files stands for a full disk."""
    script = """
        import resource, sys
        import numpy as np
        from haskd_jax.train.checkpoints import Checkpoints
        noise = np.random.default_rng(0).normal(size=(300, 300))
        try:
            with Checkpoints(sys.argv[1]) as checkpoints:
                checkpoints.save(1, {"x": np.ones(3)}, {})
                checkpoints.wait()
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
                checkpoints.save(2, {"x": noise}, {})
                checkpoints.wait()
        except OSError as error:
            print(error)
        """
    out, _ = python(script, tmp_path).communicate(timeout=60)
    assert f"{tmp_path}: checkpoints cannot be written here" in out
    assert "Free space" in out
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_orbax_is_quiet(tmp_path):
    script = """
        import logging, sys
        import numpy as np
        logging.basicConfig(level=logging.INFO)
        from haskd_jax.train.checkpoints import Checkpoints
        with Checkpoints(sys.argv[1]) as checkpoints:
            checkpoints.save(1, {"x": np.ones(3)}, {})
            checkpoints.restore({"x": np.ones(3)})
        """
    assert python(script, tmp_path).communicate(timeout=60) == ("", "")


def test_killed_at_any_moment_only_whole_checkpoints_are_seen(tmp_path):
    # The parent imports once, and forks a process to be killed for each line that it is sent.
    script = """
        import os, sys
        import numpy as np
        from haskd_jax.train.checkpoints import Checkpoints

        def small(step):
            noise = np.random.default_rng(step).normal(size=(64, 64)).astype(np.float32)
            return {"w": noise, "b": np.full(9, step, np.int32)}

        for line in sys.stdin:
            if os.fork():
                os.wait()
                print("killed", flush=True)
                continue
            with Checkpoints(sys.argv[1]) as checkpoints:
                restored = checkpoints.restore(small(0))
                step = restored.step if restored else 0
                print(os.getpid(), flush=True)
                while True:
                    step += 1
                    checkpoints.save(step, small(step), {"step": step})
                    print(step, flush=True)
        """
    rng, last = random.Random(0), 0
    with python(script, tmp_path, stdin=subprocess.PIPE) as parent:
        for _ in range(8):
            parent.stdin.write("\n")
            parent.stdin.flush()
            child = int(parent.stdout.readline())
            for _ in range(rng.randint(2, 5)):
                saved = int(parent.stdout.readline())
            with contextlib.suppress(subprocess.TimeoutExpired):
                parent.wait(timeout=rng.random() * 0.2)  # a random moment of the save
            os.kill(child, signal.SIGKILL)
            while (line := parent.stdout.readline()) != "killed\n":
                saved = int(line)
            with Checkpoints(tmp_path) as checkpoints:  # a warning would be an error
                restored = checkpoints.restore(small(0))
            # When `save` returned, all saves before were on disk.
            assert restored.step >= max(last, saved - 1)
            assert_same(restored.state, small(restored.step))
            assert restored.loader_state == {"step": restored.step}
            assert all(path.name.isdigit() for path in tmp_path.iterdir())
            last = restored.step
        parent.stdin.close()
