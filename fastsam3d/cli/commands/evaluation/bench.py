"""`bench`: acceleration methods on the same objects with the same noise, in one process."""

from __future__ import annotations

import sys
from typing import Any

from fastsam3d.basics.options import describe_options, parse_options, prepare_directory
from fastsam3d.basics.paths import user_path
from fastsam3d.cli.flags import asks_for_help
from fastsam3d.errors import UserError
from fastsam3d.evaluation.benchmark.options import BenchmarkOptions

COMMAND = "python -m fastsam3d bench"
INTERRUPTED = 130


def main(words: list[str]) -> int:
    """Runs, writes records, tables (JSON, CSV, Markdown) and plots, prints the Markdown; returns the exit code.

    Raises:
        UserError: options that do not fit together, or records of another run in the folder.
    """
    if asks_for_help(words):
        print(describe_options(BenchmarkOptions, COMMAND))
        return 0
    options = parse_options(BenchmarkOptions, words, "bench")
    from fastsam3d.basics.optional import optional_module
    from fastsam3d.basics.record_log import EARLIER_CODE, RecordLog
    from fastsam3d.evaluation.benchmark.report import render_again, write_results
    from fastsam3d.evaluation.benchmark.result import RECORDS
    from fastsam3d.evaluation.benchmark.run import chosen_methods, identity_of, run_benchmark
    from fastsam3d.evaluation.benchmark.verdicts import warning_of

    if options.report is not None:
        print(render_again(user_path(options.report), options.document), end="")
        return 0
    if options.document is not None:
        raise UserError("bench: document=FILE belongs to report=DIR: measure first, then write the document")
    methods = chosen_methods(options)
    if (doubt := warning_of(options.objects)) is not None:
        print(f"warning: bench: {doubt}", file=sys.stderr)
    folder = prepare_directory(options.output, "bench")
    for module in ("scipy.spatial", "matplotlib.figure"):
        optional_module(module, "measuring", "bench")  # now, and not after an hour of measuring
    from fastsam3d.evaluation.measuring.counters import STAGES
    from fastsam3d.sam3d.checkpoints.loading import load_pipeline

    pipeline = load_pipeline(
        options.model,
        device=options.device,
        checkpoint_dir=options.checkpoint_dir,
        random_weights=options.random_weights,
    )
    if options.steps is not None:
        for name in STAGES.values():
            sampler: Any = pipeline.models[name]
            sampler.inference_steps = options.steps
    log = RecordLog(folder / RECORDS, identity_of(pipeline, options, methods), resume=options.resume)
    if EARLIER_CODE in log.identity:
        print(f"bench: {log.path} holds records of other code, which stay; resume=false measures anew", file=sys.stderr)
    try:
        result = run_benchmark(pipeline, options, methods=methods, log=log)
    except KeyboardInterrupt:
        print(f"interrupted; what is measured is kept in {log.path}, and the same command goes on", file=sys.stderr)
        return INTERRUPTED
    print(write_results(result, folder), end="")
    return 0
