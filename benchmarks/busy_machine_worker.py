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
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fastsam3d.basics.threads.openmp import set_openmp_defaults

PYTORCH, ONE, SPIN, AUTO = "PyTorch's defaults", "one thread", "short spinning alone", "threads=auto"
METHODS: Mapping[str, tuple[bool, str]] = {
    PYTORCH: (False, "all"),
    ONE: (False, "1"),
    SPIN: (True, "all"),
    AUTO: (True, "auto"),
}
"""Methods: whether our variables of OpenMP are set, and the threads that are asked for."""
WARM_UP = 2


def serve(method: str, model: str, preset: str) -> None:
    """Answers until the input ends."""
    ours, threads = METHODS[method]
    if ours:
        set_openmp_defaults(os.environ)
    import torch

    from fastsam3d.jobs.objects import run_object
    from fastsam3d.jobs.request import request_with
    from fastsam3d.jobs.running import accelerated

    asked = {"all": torch.get_num_threads(), "1": 1, "auto": None}[threads]
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
