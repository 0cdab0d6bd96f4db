"""`scene-quality`: acceleration and the shared work of a scene must not move things."""

from __future__ import annotations

from fastsam3d.basics.options import describe_options, parse_options, prepare_directory
from fastsam3d.cli.flags import asks_for_help
from fastsam3d.evaluation.quality.options import SceneQualityOptions

COMMAND = "python -m fastsam3d scene-quality"


def main(words: list[str]) -> int:
    """Runs, writes scene_quality.json and scene_quality.md, prints the table; returns 1 where layout is unsafe.

    Raises:
        UserError: options that cannot be used, or a folder that cannot be written.
    """
    if asks_for_help(words):
        print(describe_options(SceneQualityOptions, COMMAND))
        return 0
    options = parse_options(SceneQualityOptions, words, "scene_quality")
    folder = prepare_directory(options.output, "scene_quality")
    from fastsam3d.evaluation.quality.scenes import measure, write
    from fastsam3d.sam3d.checkpoints.loading import load_pipeline

    pipeline = load_pipeline(
        options.model,
        device=options.device,
        checkpoint_dir=options.checkpoint_dir,
        random_weights=options.random_weights,
    )
    result = measure(pipeline, options)
    print(write(result, folder), end="")
    return 0 if result["safe"] else 1
