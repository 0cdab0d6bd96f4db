"""Metrics, benchmark, tables and plots: what an acceleration saves and what it costs.

Submodules are imported on demand; nothing here is needed for reconstruction.
"""
