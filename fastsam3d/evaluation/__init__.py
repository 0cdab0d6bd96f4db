"""Metrics, benchmark, tables and plots: what an acceleration saves and what it costs.

- metrics, pose_metrics, voxelize, visual, signed_distance, reference, outcome: one result against the truth, and
  against another
- methods, experiments, seeds: what is compared, on which objects; runs, scene_runs, counting: how it is run, timed and
  counted
- records, provenance, benchmark_options, benchmark: measurements that survive an interruption, and the command `bench`
- statistics, tables, benchmark_result, benchmark_tables, plots, plot_style, benchmark_report: from records to JSON,
  Markdown and pictures
- search, tuning_space, tuning_options, calibration, preset_file, tune: the command `tune`
- quality, quality_tables, gallery: how good the pipeline itself is; scene_quality: whether scenes stay where they are
- flops, flops_plan, flops_options, flops_command: operations of other sizes than were run, and the command `flops`;
  flops_counting: counts of the networks themselves, which the formulas are tested against
- loss_curves: the losses of a training run

Submodules are imported on demand; nothing here is needed for reconstruction.
"""
