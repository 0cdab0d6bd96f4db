"""The five benchmarks that Chat-Scene and Fast3D report: their files, and their scores.

references = read_references("annotations")
predictions = read_predictions("answers.json", "scanrefer")
scores = score("scanrefer", predictions, references)
"""

from fastsam3d.mllm.benchmarks.annotations import (
    Annotation,
    Prediction,
    read_annotations,
    read_predictions,
    write_predictions,
)
from fastsam3d.mllm.benchmarks.references import References, read_references
from fastsam3d.mllm.benchmarks.scene_objects import SceneObjects, read_attributes
from fastsam3d.mllm.benchmarks.scoring import BENCHMARKS, Benchmark, score

__all__ = [
    "BENCHMARKS",
    "Annotation",
    "Benchmark",
    "Prediction",
    "References",
    "SceneObjects",
    "read_annotations",
    "read_attributes",
    "read_predictions",
    "read_references",
    "score",
    "write_predictions",
]
