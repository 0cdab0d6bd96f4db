"""`quality`: quality of the untouched pipeline on objects it was never trained on, with controls."""

from __future__ import annotations

from fastsam3d.basics.options import describe_options, parse_options, prepare_directory
from fastsam3d.cli.flags import asks_for_help
from fastsam3d.evaluation.quality.options import QualityOptions

COMMAND = "python -m fastsam3d quality"


def main(words: list[str]) -> int:
    """Measures, writes quality.json, quality.md and gallery.png, prints the Markdown; returns the exit code.

    Raises:
        UserError: options that cannot be used, or a folder that cannot be written.
    """
    if asks_for_help(words):
        print(describe_options(QualityOptions, COMMAND))
        return 0
    options = parse_options(QualityOptions, words, "quality")
    folder = prepare_directory(options.output, "quality")
    from fastsam3d.basics.files import write_json, write_text
    from fastsam3d.basics.optional import optional_module

    for module in ("scipy.spatial", "matplotlib.figure"):
        optional_module(module, "measuring", "bench")  # now, and not after an hour of measuring
    from fastsam3d.evaluation.quality.objects import draw_gallery, evaluate_quality
    from fastsam3d.evaluation.quality.tables import report
    from fastsam3d.sam3d.checkpoints.loading import load_pipeline

    pipeline = load_pipeline(
        options.model,
        device=options.device,
        checkpoint_dir=options.checkpoint_dir,
        random_weights=options.random_weights,
    )
    result = evaluate_quality(pipeline, options=options, directory=folder)
    write_json(folder / "quality.json", result)
    text = report(result)
    write_text(folder / "quality.md", text)
    if options.gallery:
        draw_gallery(pipeline, result, options, folder / "gallery.png")
    print(text, end="")
    return 0
