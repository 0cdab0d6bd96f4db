"""Measures what an acceleration saves and what it costs, and how good the pipeline itself is.

- `metrics`: compares one result with the truth, and with another result
- `measuring`: runs, times and counts methods on objects and scenes; makes records
- `reporting`: statistics, tables and the style of plots
- `benchmark`: the command `bench`; `tuning`: `tune`; `quality`: `quality` and `scene-quality`; `operations`: `flops`

Submodules are imported on demand; nothing here is needed for reconstruction.
"""
