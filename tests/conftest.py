"""Every test begins with the same global state, whatever ran before it, and must leave it as it was."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch


def global_settings() -> dict[str, Any]:
    """What a test could change for those after it."""
    return {
        "working directory": os.getcwd(),
        "PyTorch's threads": torch.get_num_threads(),
        "PyTorch's default type": torch.get_default_dtype(),
        "PyTorch's default device": torch.get_default_device(),
        "whether PyTorch records gradients": torch.is_grad_enabled(),
        "whether PyTorch is in inference mode": torch.is_inference_mode_enabled(),
        "whether PyTorch is deterministic": torch.are_deterministic_algorithms_enabled(),
        "whether oneDNN is used": torch.backends.mkldnn.enabled,
        "precision of matrix products": torch.get_float32_matmul_precision(),
    }


@pytest.fixture(autouse=True)
def same_global_state() -> Iterator[None]:
    """Seeds the global random generators before a test, and fails where it left a global setting changed."""
    before = global_settings()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    changed = {name: (before[name], value) for name, value in global_settings().items() if value != before[name]}
    assert not changed, f"the test left global settings changed (name: before, after): {changed}"
