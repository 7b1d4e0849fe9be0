"""Without the native library: one log line, the portable implementation, the same results."""

import json
import os
import subprocess
import sys

import jax
import pytest

from haskd_jax import sparse

from .test_bits import run

# What haskd_jax logs is collected before anything of it is imported.
SCRIPT = """
import json, logging
lines = []
handler = logging.Handler(logging.INFO)
handler.emit = lambda record: lines.append(record.getMessage())
logging.getLogger("haskd_jax").addHandler(handler)
logging.getLogger("haskd_jax").setLevel(logging.INFO)
from haskd_jax import sparse
from tests.sparse.test_bits import run
digests = [run(None, size=8), run("xla", size=8)]
try:
    run("native", size=8)
except ValueError as refusal:
    print(json.dumps([lines, sparse.native_available(), digests, str(refusal)]))
"""


@pytest.fixture(scope="module")
def portable():
    return run("xla", size=8)


@pytest.mark.parametrize("library", ["0", "missing", "not a library"])
def test_the_portable_implementation_takes_over(library, portable, root, tmp_path):
    path = tmp_path / "libnative.so"
    if library == "not a library":
        path.write_bytes(b"\x7fELF but nothing else")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=root,
        env=os.environ
        | {
            "HASKD_JAX_NATIVE": "0" if library == "0" else str(path),
            "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines, available, digests, refusal = json.loads(done.stdout.splitlines()[-1])
    assert len(lines) == 1, lines
    assert library == "0" or str(path) in lines[0]
    assert available is False
    assert digests == [portable] * 2
    assert "native" in refusal


def test_native_available_is_a_bool():
    assert isinstance(sparse.native_available(), bool)
