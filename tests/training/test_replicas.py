"""Gradients averaged over processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from torch.distributed import TCPStore

from fastsam3d.training.replicas import Replicas

PROGRAM = """
import json, sys, torch
from fastsam3d.training.replicas import Replicas
replicas = Replicas()
weight, unused = torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(3))
if replicas.first:
    unused.grad = torch.full((3,), 8.0)
weight.grad = torch.full((2, 2), 1.0 + 2 * replicas.number)
replicas.average_gradients([weight, unused])
result = [weight.grad.tolist(), unused.grad.tolist(), replicas.agreed(0.25 + replicas.number)]
open(sys.argv[1] + str(replicas.number), "w").write(json.dumps(result))
replicas.close()
"""


def test_one_process_is_left_alone() -> None:
    replicas = Replicas()
    weight = torch.nn.Parameter(torch.zeros(2))
    replicas.average_gradients([weight])
    assert weight.grad is None
    assert replicas.first
    assert replicas.agreed(0.5) == 0.5


def test_two_processes_hold_the_mean(tmp_path: Path) -> None:
    # The store listens before anybody is told its port, as that of torchrun does: no other program can take the port.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "OMP_NUM_THREADS": "1",
        "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0",
    }  # fmt: skip
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "out")], env={**os.environ, **common, "RANK": str(rank)}
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=600) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    for rank in range(2):
        # Means of 1 and 3, and of 8 and nothing; the first process's number.
        assert json.loads((tmp_path / f"out{rank}").read_text()) == [[[2.0, 2.0], [2.0, 2.0]], [4.0, 4.0, 4.0], 0.25]
