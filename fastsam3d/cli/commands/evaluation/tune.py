"""`tune`: the cheapest setting of a pipeline within a quality budget, as a preset file."""

from __future__ import annotations

import sys

from fastsam3d.basics.options import describe_options, parse_options, prepare_directory
from fastsam3d.basics.paths import user_path
from fastsam3d.cli.flags import asks_for_help
from fastsam3d.errors import UserError
from fastsam3d.evaluation.tuning.options import TuneOptions

COMMAND = "python -m fastsam3d tune"
INTERRUPTED = 130


def main(words: list[str]) -> int:
    """Searches, writes the preset, prints what was found; returns the exit code.

    Raises:
        UserError: options that cannot be used, records of another search, or nothing within the budget.
    """
    if asks_for_help(words):
        print(describe_options(TuneOptions, COMMAND))
        return 0
    options = parse_options(TuneOptions, words, "tune")
    path = user_path(options.output)
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"tune: output={path} is no preset file: give a name that ends in .yaml")
    prepare_directory(path.parent, "tune")
    from fastsam3d.basics.files import write_atomically
    from fastsam3d.basics.optional import optional_module
    from fastsam3d.basics.record_log import RecordLog
    from fastsam3d.evaluation.tuning.preset_file import preset_text
    from fastsam3d.evaluation.tuning.tune import identity_of, tune
    from fastsam3d.sam3d.checkpoints.loading import load_pipeline

    optional_module("scipy.spatial", "measuring", "bench")
    pipeline = load_pipeline(options.model, device=options.device, checkpoint_dir=options.checkpoint_dir)
    log = RecordLog(path.with_suffix(".jsonl"), identity_of(pipeline, options), resume=options.resume)
    try:
        settings, score = tune(pipeline, options, log, tell=lambda text: print(text, file=sys.stderr, flush=True))
    except KeyboardInterrupt:
        print(f"interrupted; what is measured is kept in {log.path}, and the same command goes on", file=sys.stderr)
        return INTERRUPTED
    text = preset_text(path.stem, settings, score, options, " ".join([COMMAND, *words]), log.identity)
    write_atomically(path, text.encode())
    print(text, end="")
    return 0
