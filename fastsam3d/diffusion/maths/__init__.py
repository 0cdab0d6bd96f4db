"""Pure functions that predict a velocity from earlier ones, and that plan at which steps the network runs."""

from __future__ import annotations

from fastsam3d.diffusion.maths.adams import AdamsIntegral, integral_weights, limited
from fastsam3d.diffusion.maths.corrector import Corrector
from fastsam3d.diffusion.maths.differences import BackwardDifferences
from fastsam3d.diffusion.maths.dmd import MINIMUM_SNAPSHOTS, DynamicModes, dmd_forecast
from fastsam3d.diffusion.maths.hermite import hermite_forecast, hermite_terms
from fastsam3d.diffusion.maths.history import History
from fastsam3d.diffusion.maths.magnitude import mean_distance, mean_magnitude, relative_distance, sensitivity
from fastsam3d.diffusion.maths.newton import newton_forecast
from fastsam3d.diffusion.maths.schedule import (
    bent_to_edge,
    chosen_steps,
    full_steps,
    guidance_edges,
    network_evaluations,
    three_phases,
)
from fastsam3d.diffusion.maths.taylor import taylor_forecast

__all__ = [
    "MINIMUM_SNAPSHOTS",
    "AdamsIntegral",
    "BackwardDifferences",
    "Corrector",
    "DynamicModes",
    "History",
    "bent_to_edge",
    "chosen_steps",
    "dmd_forecast",
    "full_steps",
    "guidance_edges",
    "hermite_forecast",
    "hermite_terms",
    "integral_weights",
    "limited",
    "mean_distance",
    "mean_magnitude",
    "network_evaluations",
    "newton_forecast",
    "relative_distance",
    "sensitivity",
    "taylor_forecast",
    "three_phases",
]
