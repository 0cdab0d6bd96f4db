"""Runs and changes of one pipeline: in several threads, in nested calls, and in forked processes."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastsam3d.basics import runs as module
from fastsam3d.basics.runs import Runs, runs_of
from fastsam3d.errors import UserError

HELPERS = Path(__file__).resolve().parents[1] / "helpers"


def test_a_change_waits_for_runs_and_later_runs_wait_for_it() -> None:
    runs, order = Runs(), []
    inside, go_on = threading.Event(), threading.Event()

    def run(name: str) -> None:
        with runs:
            inside.set()
            assert go_on.wait(60)
            order.append(name)

    def change() -> None:
        with runs.changing("accelerate"):
            order.append("change")

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(run, "first")]
        assert inside.wait(60)
        futures.append(pool.submit(change))
        while runs._changing is None:
            time.sleep(0.001)
        futures.append(pool.submit(run, "later"))
        time.sleep(0.05)
        assert order == []
        go_on.set()
        for future in futures:
            future.result(60)
    assert order == ["first", "change", "later"]


def test_plain_runs_overlap_and_others_take_turns() -> None:
    for one_at_a_time in (False, True):
        runs, together = Runs(), threading.Barrier(2)
        runs.one_at_a_time = one_at_a_time

        def meet(runs: Runs = runs, together: threading.Barrier = together) -> bool:
            with runs, runs:  # nested, as a stage in a run
                try:
                    together.wait(0.3)
                except threading.BrokenBarrierError:
                    return False
            return True

        with ThreadPoolExecutor(2) as pool:
            assert [f.result() for f in [pool.submit(meet) for _ in range(2)]] == [not one_at_a_time] * 2


def test_a_change_in_a_run_of_the_same_thread_is_refused_and_changes_nest() -> None:
    runs = Runs()
    with runs, pytest.raises(UserError, match="remove is not possible in the middle of a run"), runs.changing("remove"):
        pass
    with runs.changing("accelerate"), runs.changing("remove"), runs:
        pass
    with runs:
        pass


def test_an_exception_leaves_nothing_locked() -> None:
    runs = Runs()
    for place in (runs, runs.changing("accelerate")):
        with pytest.raises(ZeroDivisionError), place:
            raise ZeroDivisionError
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: runs.changing("accelerate").__enter__()).result(60)


def test_copies_have_runs_of_their_own() -> None:
    runs = Runs()
    with runs:
        for twin in (copy.deepcopy(runs), pickle.loads(pickle.dumps(runs))):
            with twin.changing("accelerate"):
                assert twin is not runs  # the original, which is in a run, would refuse it


def test_runs_of_a_model_are_kept_as_long_as_it_lives() -> None:
    class Model: ...

    model, own, without = Model(), Runs(), SimpleNamespace()
    assert runs_of(model) is runs_of(model) is not runs_of(Model())
    assert runs_of(without) is runs_of(without) is not runs_of(SimpleNamespace())  # it has no weak references
    assert runs_of(SimpleNamespace(runs=own)) is own
    key = id(model)
    assert key in module._KNOWN
    del model
    gc.collect()
    assert key not in module._KNOWN


FORKED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import torch
from small_pipeline import picture, small_pipeline
import fastsam3d
torch.set_num_threads(2)
threads, when, preset = int(sys.argv[2]), sys.argv[3], sys.argv[4]
pipeline = small_pipeline() if when != "before" else None
if preset:
    fastsam3d.accelerate(pipeline, preset)
if when == "after a run":
    pipeline.run(*picture())
child = os.fork()
if child == 0:
    signal.alarm(60)  # a child that waits forever ends by this
    try:
        torch.set_num_threads(threads)
        (pipeline or small_pipeline()).run(*picture())
    except fastsam3d.UserError as error:
        os.write(1, str(error).encode())
        os._exit(3)
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(
    ("threads", "when", "preset", "expected"),
    [
        (2, "after a run", "", 3),
        (2, "after a run", "balanced", 3),
        (2, "after building", "", 3),
        (1, "after a run", "", 0),
        (2, "before", "", 0),
    ],
)
def test_a_fork_after_computing_is_told_what_to_do(threads: int, when: str, preset: str, expected: int) -> None:
    command = [sys.executable, "-c", FORKED, str(HELPERS), str(threads), when, preset]
    sleeping = os.environ | {"OMP_WAIT_POLICY": "passive"}  # two spinning threads take minutes on a busy machine
    done = subprocess.run(command, env=sleeping, capture_output=True, text=True, timeout=120)
    assert done.returncode == expected, done.stderr
    assert ('multiprocessing.get_context("spawn")' in done.stdout) is (expected == 3)
