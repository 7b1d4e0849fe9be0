"""Runs an experiment from its configuration: the main of every experiment."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from haskd_jax import __version__
from haskd_jax.experiments.config import Experiment
from haskd_jax.experiments.trained import check_folder
from haskd_jax.guarded import guarded

# How long a run of a killed sweep may take to end, seconds: it finishes its step and saves.
_PATIENCE = 120.0
_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")


def main_of(presets: Mapping[str, tuple[str, Experiment]], arguments: Sequence[str] | None) -> int:
    """The command line of an experiment.

    Args:
        presets: Name -> what it is for, and the experiment that options are changed of.
        arguments: Preset and options; those of the command line where None.

    Returns:
        The exit code, see `run`.
    """
    import tyro

    name = next(iter(presets.values()))[1].name
    kinds = tyro.extras.subcommand_type_from_defaults(
        {preset: experiment for preset, (_, experiment) in presets.items()},
        {preset: text for preset, (text, _) in presets.items()},
        sort_subcommands=False,
    )

    # An argument rather than the whole: of a bare union tyro's errors name its own wrapper.
    def start(experiment: Annotated[kinds, tyro.conf.arg(name="")]) -> int:  # type: ignore[valid-type]
        return run(experiment)

    prog = f"python -m haskd_jax.experiments.{name}"
    return tyro.cli(start, prog=prog, args=arguments, config=(tyro.conf.AvoidSubcommands,))


def run(experiment: Experiment) -> int:
    """Runs the stages of an experiment, or a sweep of them over its seeds.

    Args:
        experiment: The experiment.

    Returns:
        The exit code: 0; 1 after a training that diverged, or where a seed of a sweep failed; 2 for
        what a user can mend; 143 after SIGTERM; 130 after Ctrl-C in a sweep.
    """
    return guarded(experiment.name, lambda: _run_or_sweep(experiment))


def _run_or_sweep(experiment: Experiment) -> int:
    check_folder(experiment.out)
    if experiment.encoder is not None and {"teacher", "evaluate"} & set(experiment.stages):
        from haskd_jax.train.image_encoders import read_encoder

        read_encoder(experiment.encoder)  # long before the first teacher asks for it
    if experiment.seeds == 1:
        return _run(experiment)
    from haskd_jax.data.workers import locked
    from haskd_jax.experiments.sweep import run_sweep

    experiment.out.mkdir(parents=True, exist_ok=True)
    with locked(experiment.out, patience=_PATIENCE):
        return run_sweep(experiment)


def _run(experiment: Experiment) -> int:
    import jax

    from haskd_jax.data.workers import locked
    from haskd_jax.sparse import keep_freed_memory

    keep_freed_memory()
    _keep_compilations()
    cluster = experiment.cluster
    if cluster.enabled:
        jax.distributed.initialize(cluster.coordinator, cluster.processes, cluster.process)
    first = jax.process_index() == 0
    experiment.out.mkdir(parents=True, exist_ok=True)
    with locked(experiment.out, patience=_PATIENCE) if first else nullcontext():
        return _run_stages(experiment, first)


def _run_stages(experiment: Experiment, first: bool) -> int:
    import jax
    import msgspec
    from rich.console import Console

    from haskd_jax.data.prepared import read_json
    from haskd_jax.experiments.arm_runs import check_arms, others_arms, run_arms
    from haskd_jax.experiments.stages import find_scenes, run_prepare
    from haskd_jax.files import write_json
    from haskd_jax.report import write_report
    from haskd_jax.train.stopping import Stopped

    console = Console(quiet=not first, soft_wrap=True)
    commit = _commit()
    if "prepare" in experiment.stages and first:
        run_prepare(experiment, console)
    if experiment.cluster.enabled:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("prepared")
    if set(experiment.stages) <= {"prepare"}:
        return 0
    scenes = find_scenes(experiment)
    arms = experiment.all_arms
    path = experiment.out / "run.json"
    earlier = read_json(path)["arms"] if path.exists() else []
    if experiment.overwrite:  # what it does not redo is compared with it no more
        others = others_arms(experiment, scenes, set(earlier) - set(arms))
        earlier = [name for name in earlier if name not in others]
    else:  # a command that is refused leaves the run as it was
        check_arms(experiment, scenes, earlier)
    if first:
        record = {
            "format": "haskd-run",
            "version": 1,
            "experiment": experiment.name,
            "arms": list(dict.fromkeys([*earlier, *arms])),
            "test_splits": list(experiment.test_splits),
            "prepared": str(experiment.root.absolute()),
            "commit": commit,
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
            f"{jax.device_count()} {jax.devices()[0].device_kind}",
            "packages": {"haskd_jax": __version__, "python": platform.python_version()}
            | {package: version(package) for package in _PACKAGES},
            "scenes": {
                "labelled": scenes.labelled,
                "unlabelled": scenes.unlabelled,
                "calibration": scenes.calibration,
                "test": scenes.test,
            },
            "config": _plain(msgspec.to_builtins(experiment, enc_hook=str)),
        }
        write_json(path, record)
    try:
        run_arms(experiment, scenes, console, commit)
    except Stopped as stopped:
        console.print(str(stopped))
        return 143
    except FloatingPointError as error:
        print(f"{experiment.name}: {error}", file=sys.stderr)
        return 1
    if "report" in experiment.stages and first:
        console.print(f"report: {write_report(experiment.out)}")
    return 0


def _plain(value: Any) -> Any:
    """JSON has no infinity."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return str(value) if isinstance(value, float) and abs(value) == float("inf") else value


def _keep_compilations() -> None:
    """Compiled programs are kept from run to run, unless the environment says where, or not."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "haskd_jax" / "xla"))


def _commit() -> str | None:
    """Of the checkout that this package is run from, with a plus if it was changed since."""
    here = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=here, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", Path(__file__).name],
            cwd=here, capture_output=True, check=False, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() if tracked.returncode == 0 else None
