"""Reconstructs one object at a time, whenever it is told to: the measured process of `busy_machine.py`.

    python benchmarks/busy_machine_worker.py METHOD MODEL PRESET

It prints `ready`, and then one line of JSON for every line that it reads.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fastsam3d.basics.threads.openmp import POLICY, SPINNING, set_openmp_defaults

PYTORCH, ONE, AUTO = "PyTorch's defaults", "one thread", "threads=auto"
METHODS = (PYTORCH, ONE, AUTO)
"""Methods; beside these, `NAME=VALUE` is PyTorch's number of threads with one variable of OpenMP."""
WARM_UP = 2


def is_method(name: str) -> bool:
    """Tells whether there is such a method."""
    variable, sign, value = name.partition("=")
    return name in METHODS or bool(sign and value and variable in (POLICY, *SPINNING))


def serve(method: str, model: str, preset: str) -> None:
    """Answers until the input ends."""
    if method == AUTO:
        set_openmp_defaults(os.environ)
    elif method not in METHODS:
        variable, _, value = method.partition("=")
        os.environ[variable] = value
    import torch

    from fastsam3d.jobs.objects import run_object
    from fastsam3d.jobs.request import request_with
    from fastsam3d.jobs.running import accelerated

    asked = {ONE: 1, AUTO: None}.get(method, torch.get_num_threads())
    with tempfile.TemporaryDirectory() as folder:
        files = {"output_dir": folder, "formats": ["mesh"], "preview": False, "export": ["ply"]}
        request = request_with(model, preset, device="cpu", threads=asked, **files)
        with accelerated(request) as pipeline:
            for _ in range(WARM_UP):
                run_object(request, pipeline)
            print("ready", flush=True)
            for _ in sys.stdin:
                begin = time.process_time()
                report = run_object(request, pipeline).report
                answer = {
                    "seconds": report["seconds"]["run"],
                    "processor_seconds": time.process_time() - begin,
                    "device": report["device"],
                }
                print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
