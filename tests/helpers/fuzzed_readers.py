"""Readers that take more than a path, with the rest filled in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastsam3d.jobs.pictures import load_numbers
from fastsam3d.mllm.benchmarks import read_annotations
from fastsam3d.mllm.chat_scene.features import read_features


def read_array(path: Path) -> np.ndarray:
    """Reads an array as masks and point maps are read."""
    return load_numbers(path, "the array")


def read_questions(path: Path) -> None:
    """Reads an annotation file of the benchmark that asks for most fields."""
    read_annotations(path, "scan2cap")


def read_vectors(path: Path) -> None:
    """Reads a feature file, and looks at every vector."""
    files = read_features(path, path)
    for name in files.names:
        files.scene(name)
