"""Sweeps over seeds: one process a seed, side by side, and tables over them. See docs/sweeps.md.

<out>/prepared        the scenes, prepared once
<out>/selection       the frames that all seeds share, chosen once
<out>/seed_<n>        an ordinary run of the experiment, and log.txt with all that it said
<out>/results.csv     every arm of every seed; summary.csv and differences.csv follow from it
<out>/report.html     the report of the first seed, with the sweep's tables
"""

import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from rich.console import Console

from haskd_jax.experiments.arms import ARMS
from haskd_jax.experiments.config import Experiment
from haskd_jax.experiments.run import run
from haskd_jax.experiments.stages import run_prepare
from haskd_jax.experiments.sweep_tables import (
    SeedResults,
    read_seed,
    setting_in_words,
    write_tables,
)
from haskd_jax.files import write_whole
from haskd_jax.report import write_report
from haskd_jax.report.page import duration

LOG = "log.txt"
# Nothing is imported before the path is the parent's.
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.readline()); "
    "from haskd_jax.experiments.sweep import _child; sys.exit(_child())"
)


class _Terminated(BaseException):
    """SIGTERM came."""


@dataclass(frozen=True)
class Job:
    """An ordinary run, to be done by a process of its own.

    Attributes:
        title: For people.
        experiment: With one seed and one process.
    """

    title: str
    experiment: Experiment

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.experiment.out / LOG


def run_sweep(experiment: Experiment) -> int:
    """Runs an experiment with several seeds; the same call goes on where one was ended.

    Args:
        experiment: With `seeds` above 1.

    Returns:
        The exit code: 0; 1 if a seed failed, which ends no other; 143 after SIGTERM and 130 after
        Ctrl-C, which end the runs by SIGTERM, so that they save first.

    Raises:
        ValueError: Scenes cannot be prepared, or a result is damaged.

    Example:
        >>> from haskd_jax.experiments.synthrooms import DEBUG
        >>> sweep = replace(DEBUG, seeds=8, processes=2, prepared=Path("no/such/root"))
        >>> run_sweep(sweep)
        Traceback (most recent call last):
        ...
        haskd_jax.data.errors.DataError: no/such/root/dataset.json: missing
    """
    console = Console(soft_wrap=True)
    if "prepare" in experiment.stages:
        run_prepare(experiment, console)
    stages = tuple(stage for stage in experiment.stages if stage != "prepare")
    if not stages:
        return 0
    selects, seeds = _jobs(replace(experiment, stages=stages))
    try:
        with _sigterm():
            failed = _all_jobs(experiment, selects, seeds, console)
    except (KeyboardInterrupt, _Terminated) as stopped:
        console.print("stopped: the same command goes on")
        return 143 if isinstance(stopped, _Terminated) else 130
    if failed:
        titles = ", ".join(job.title for job in failed)
        print(f"{experiment.name}: failed: {titles}; their {LOG} says why", file=sys.stderr)
    return 1 if failed else 0


def _jobs(experiment: Experiment) -> tuple[list[Job], list[Job]]:
    """The job that selects frames for all seeds, if any are needed, and the seeds'."""
    arms = experiment.all_arms
    one = replace(experiment, seeds=1, processes=1, prepared=experiment.root, arms=arms)

    def job(title: str, folder: str, **changes: Any) -> Job:
        return Job(title, replace(one, out=experiment.out / folder, **changes))

    shared = ("uniform",) if experiment.views.information else ("iof", "uniform")
    sharing = tuple(arm for arm in arms if ARMS[arm].views in shared)
    selects = []
    if sharing and set(experiment.stages) - {"report"}:
        selects.append(job("selection", "selection", arms=sharing, stages=("select",)))
    numbers = range(experiment.seed, experiment.seed + experiment.seeds)
    return selects, [job(f"seed {n}", f"seed_{n}", seed=n) for n in numbers]


def _all_jobs(
    experiment: Experiment, selects: list[Job], seeds: list[Job], console: Console
) -> list[Job]:
    """Runs all of them, and writes the tables; gives those that failed."""
    failed: list[Job] = []

    def on_selected(job: Job, code: int) -> None:
        if code:
            failed.append(job)

    run_jobs(selects, 1, on_selected, console)
    if failed:
        return failed
    for select in selects:
        for seed in seeds:
            _copy_selections(select.experiment.out, seed.experiment.out)
    setting = setting_in_words(experiment)
    done: dict[int, tuple[Job, SeedResults]] = {}

    def on_seed(job: Job, code: int) -> None:
        if code:
            failed.append(job)
            return
        number, out = job.experiment.seed, job.experiment.out
        arms = job.experiment.arms  # others that the folder holds may be of another configuration
        try:
            done[number] = job, read_seed(out, setting=setting, seed=number, arms=arms)
        except ValueError as error:
            console.print(f"{job.title}: {error}", markup=False)
            failed.append(job)
            return
        results = [done[number][1] for number in sorted(done)]
        if any(found.results for found in results):
            write_tables(experiment.out, results)

    run_jobs(seeds, experiment.processes, on_seed, console)
    if done and "report" in experiment.stages:
        if any(found.results for _, found in done.values()):
            console.print(f"report: {write_report(experiment.out)}")
        else:
            console.print("no report of the sweep: none of its arms was evaluated")
    return failed


def _copy_selections(source: Path, target: Path) -> None:
    """For seeds that have none: what a seed has it may need, where this command is refused."""
    for path in sorted(source.glob("selection*.json")):
        if not (target / path.name).exists():
            write_whole(target / path.name, partial(shutil.copyfile, path))


@dataclass
class _Running:
    """A job and its process."""

    job: Job
    process: "subprocess.Popen[str]"
    begun: float

    def close(self) -> None:
        """Waits for its end."""
        self.process.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended before it read its job
            self.process.stdin.close()


def run_jobs(
    jobs: Sequence[Job],
    processes: int,
    on_end: Callable[[Job, int], object],
    console: Console,
) -> None:
    """Runs jobs side by side, each on its share of this process's cores.

    Args:
        jobs: Begun in this order.
        processes: How many at once.
        on_end: Told of each job and its exit code, negative for a signal.
        console: Gets a line when a job begins and when it ends.
    """
    waiting, running = deque(jobs), dict[int, _Running]()
    shares = core_shares(_cores(), min(processes, len(jobs) or 1))
    longest = 0.0
    try:
        while waiting or running:
            for slot, share in enumerate(shares):
                if waiting and slot not in running:
                    job = waiting.popleft()
                    running[slot] = _start(job, share)
                    console.print(f"{job.title}: begun, see {job.log}", markup=False)
            ended = {
                slot: code
                for slot, one in running.items()
                if (code := one.process.poll()) is not None
            }
            for slot, code in ended.items():
                one = running.pop(slot)
                one.close()
                now = time.monotonic()
                longest = max(longest, now - one.begun)
                took = duration(now - one.begun)
                text = f"done in {took}" if not code else f"failed after {took}, {_reason(code)}"
                left = len(waiting) + len(running)
                if left:
                    spent = sum(now - other.begun for other in running.values())
                    rest = max(longest * left - spent, 0) / min(left, len(shares))
                    text += f"; {left} to go, about {duration(rest)}"
                if code:
                    text += f": {_last_line(one.job.log)}"
                console.print(f"{one.job.title}: {text}", markup=False)
                on_end(one.job, code)
            if not ended:
                time.sleep(0.1)
    finally:
        for one in running.values():
            one.process.terminate()
        for one in running.values():
            one.close()


def _reason(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _start(job: Job, cores: Sequence[int]) -> _Running:
    job.experiment.out.mkdir(parents=True, exist_ok=True)
    given = {
        "experiment": msgspec.to_builtins(job.experiment, enc_hook=str),
        "module": _module(type(job.experiment)),
        "class": type(job.experiment).__qualname__,
        "argv": sys.argv,
    }
    with job.log.open("ab") as log, _on_cores(cores):
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,  # Ctrl-C is for this process, which ends its children by SIGTERM
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it ended: its exit code tells
        process.stdin.write(f"{json.dumps(sys.path)}\n{json.dumps(given)}\n")
        process.stdin.flush()
    return _Running(job, process, time.monotonic())


def _child() -> int:
    """Does the job that standard input holds, in a process of its own."""
    from haskd_jax.sparse import keep_freed_memory

    keep_freed_memory()  # before there is a second thread: it would have an arena that is not kept
    given = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv = given["argv"]  # the command that the record names
    kind = getattr(importlib.import_module(given["module"]), given["class"])
    experiment = msgspec.convert(
        given["experiment"], kind, dec_hook=lambda kind, value: kind(value)
    )
    return run(experiment)


def _module(kind: type) -> str:
    """By what name another process can import a class, of `python -m` too."""
    spec = sys.modules["__main__"].__spec__
    return spec.name if kind.__module__ == "__main__" and spec is not None else kind.__module__


def _end_with_parent() -> None:
    """The pipe from the parent ends when the parent does, however it was ended."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


def core_shares(cores: Sequence[int], processes: int) -> list[list[int]]:
    """Divides cores among processes.

    Args:
        cores: Their numbers; none where they cannot be assigned.
        processes: How many share them.

    Returns:
        The cores of each process; where there are fewer cores than processes, some have the same.

    Example:
        >>> core_shares([0, 1, 2, 3, 4], 2)
        [[0, 1], [2, 3, 4]]
        >>> core_shares([0, 1], 3)
        [[0], [1], [0]]
        >>> core_shares([], 2)
        [[], []]
    """
    count = len(cores)
    if count < processes:
        return [[cores[i % count]] if count else [] for i in range(processes)]
    return [
        list(cores[i * count // processes : (i + 1) * count // processes]) for i in range(processes)
    ]


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextlib.contextmanager
def _on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Processes that begin within inherit these cores, so XLA's thread pools are of their size."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _sigterm() -> Iterator[None]:
    """SIGTERM raises, as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
