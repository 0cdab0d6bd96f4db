"""The choice between plain and fused operations, and the Triton kernels in Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fastsam3d.modules.elementwise import FUSED, PLAIN, operations_for
from fastsam3d.modules.layers import LayerNorm32, MultiHeadRMSNorm

KERNEL_TESTS = Path(__file__).with_name("test_fused_kernels.py")


def test_kernels_are_launched_on_the_device_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current device, which need not be the one that holds the tensors."""
    current = ["cuda:0"]

    @contextmanager
    def device(wanted: torch.device) -> Iterator[None]:
        before, current[0] = current[0], str(wanted)
        yield
        current[0] = before

    class Kernels(ModuleType):
        def add_normalise(self, h: Any, *_: Any) -> tuple[Any, Any]:
            assert current[0] == str(h.device)
            return h, None

        def normalise_heads(self, qkv: Any, *_: Any) -> tuple[Any, Any]:
            assert current[0] == str(qkv.device)
            return qkv, qkv

    class There(torch.Tensor):
        device = torch.device("cuda", 1)

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setitem(sys.modules, "fastsam3d.modules.fused_kernels", Kernels("fused_kernels"))
    h = torch.zeros(1, 2, 8).as_subclass(There)
    norm, heads = LayerNorm32(8), MultiHeadRMSNorm(4, 2)
    FUSED.add_normalise(h, h, None, norm)
    FUSED.normalise_heads(torch.zeros(1, 2, 3, 2, 4).as_subclass(There), heads, heads)
    assert current == ["cuda:0"]


def test_plain_operations_without_a_gpu() -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert operations_for(torch.zeros(1, 2, 8)) is PLAIN


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="needs Triton, which the extra `kernels` installs on Linux",
)
def test_kernels_agree_with_the_plain_operations_in_the_interpreter() -> None:
    """`test_fused_kernels.py` in a process of its own: Triton reads TRITON_INTERPRET when it is imported."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(KERNEL_TESTS)],
        cwd=KERNEL_TESTS.parents[2],
        env=environment | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert re.search(r"\d+ passed", done.stdout) and "skipped" not in done.stdout, done.stdout
