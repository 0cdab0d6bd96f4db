"""Questions of several benchmarks, and the scenes that they are about, from the files of Chat-Scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from fastsam3d.basics.paths import user_path
from fastsam3d.errors import UserError
from fastsam3d.mllm.benchmarks.annotations import Annotation, check_benchmark, read_annotations
from fastsam3d.mllm.benchmarks.references import SEGMENTED_FILE
from fastsam3d.mllm.benchmarks.scene_objects import read_attributes
from fastsam3d.mllm.benchmarks.scoring import BENCHMARKS
from fastsam3d.mllm.chat_scene.features import FeatureFiles, Scene, read_features
from fastsam3d.mllm.chat_scene.questions import Objects, places_with_scenes, scene_of
from fastsam3d.mllm.predictor.question_sets import QuestionSet, question_set

ALL = "all"
FEATURES_3D, FEATURES_2D = "scannet_mask3d_uni3d_feats.pt", "scannet_mask3d_videofeats.pt"
"""Names of the published feature files, which lie beside the annotations."""


@dataclass(frozen=True)
class Question:
    """One question, with its number.

    Attributes:
        number: its place among the questions of all benchmarks, as in stored maps.
        benchmark: name of its benchmark.
        annotation: the question.
    """

    number: int
    benchmark: str
    annotation: Annotation


@dataclass(frozen=True)
class QuestionData:
    """Questions of one split, with the features and objects of their scenes.

    Attributes:
        split: `train` or `val`.
        annotations: questions by benchmark.
        features: features of the objects.
        objects: segmented objects by scene.
    """

    split: str
    annotations: Mapping[str, Sequence[Annotation]]
    features: FeatureFiles
    objects: Objects

    @cached_property
    def sets(self) -> dict[str, QuestionSet]:
        """By benchmark, the question set that stored maps name."""
        return {
            name: question_set(f"{name}_{self.split}", ((asked.scene, asked.prompt) for asked in of_one))
            for name, of_one in self.annotations.items()
        }

    def places(self, benchmark: str, skip_missing_scenes: bool = False) -> list[int]:
        """Places, in the list of a benchmark, of the questions about scenes with features and objects.

        Raises:
            UserError: a scene has no features or objects, and `skip_missing_scenes` is False.
        """
        return places_with_scenes(self.annotations[benchmark], self.features, self.objects, skip_missing_scenes)

    def questions(self, skip_missing_scenes: bool = False, most: int | None = None) -> list[Question]:
        """The questions of all benchmarks about scenes with features and objects.

        Args:
            skip_missing_scenes: leave out other questions, with a warning; False: they are an error.
            most: largest number of questions of each benchmark; None: all.

        Raises:
            UserError: as for `places`.
        """
        found, first = [], 0
        for name, of_one in self.annotations.items():
            found += [Question(first + n, name, of_one[n]) for n in self.places(name, skip_missing_scenes)[:most]]
            first += len(of_one)
        return found

    def scene(self, name: str) -> Scene:
        """Features of one scene."""
        return scene_of(self.features, name, self.objects)

    def boxes(self, name: str, count: int) -> Tensor:
        """Boxes of the first `count` objects of a scene, (count, 6) float32: centre and full extents in metres."""
        return self.objects[name].padded_boxes(count)


def read_question_data(
    folder: str | Path,
    benchmarks: Sequence[str] = (ALL,),
    split: str = "val",
    features: FeatureFiles | Sequence[str | Path] = (),
    attributes: str | Path | None = None,
) -> QuestionData:
    """Reads questions and scenes.

    Args:
        folder: of annotations, in the layout of Chat-Scene.
        benchmarks: names, or `ALL`.
        split: `train` or `val`.
        features: result of `read_features`; or two files, 3D first; or empty: the files with the published names in the
            folder.
        attributes: file of segmented objects; None: the file with the published name in the folder.

    Raises:
        UserError: an unknown benchmark, or a file is missing or cannot be read.
    """
    place = user_path(folder)
    if not place.is_dir():
        raise UserError(f"the annotation folder {place} does not exist. Check the path.")
    names = list(BENCHMARKS) if ALL in benchmarks else list(dict.fromkeys(benchmarks))
    for name in names:
        check_benchmark(name)
    if not names:
        raise UserError(f"no benchmark is named: give {ALL}, or some of {', '.join(BENCHMARKS)}.")
    files = {name: place / BENCHMARKS[name].file.format(split=split) for name in names}
    missing = [path.name for path in files.values() if not path.exists()]
    if missing:
        raise UserError(f"{place} has no {missing[0]}: put it there, or choose only benchmarks whose files it has.")
    objects = read_attributes(attributes or place / SEGMENTED_FILE.format(split=split))
    annotations = {name: read_annotations(path, name) for name, path in files.items()}
    if not isinstance(features, FeatureFiles):
        if len(features) not in (0, 2):
            raise UserError(f"features has {len(features)} files: give two, 3D first, as features=FILE,FILE.")
        features = read_features(*(features or (place / FEATURES_3D, place / FEATURES_2D)))
    return QuestionData(split, annotations, features, objects)
