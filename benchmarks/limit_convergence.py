"""Is the limit of `bench limit=true` converged? Halves its steps and prints how far its results move.

python benchmarks/limit_convergence.py objects=3 guidance=2,7
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np


def main(words: list[str]) -> None:
    """Prints a line for every object and strength of guidance, and the means."""
    from fastsam3d.evaluation.measuring.limit import converged
    from fastsam3d.evaluation.measuring.methods import guided
    from fastsam3d.evaluation.measuring.seeds import object_seeds
    from fastsam3d.evaluation.metrics.outcome import against_limit, outcome_of
    from fastsam3d.procedural import samples
    from fastsam3d.sam3d.checkpoints.loading import load_pipeline

    given = {"objects": "3", "guidance": "2,7", "seed": "7"} | dict(word.split("=", 1) for word in words)
    pipeline = load_pipeline("mini")
    seeds, _ = object_seeds(int(given["seed"]), int(given["objects"]))
    moved: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        view = samples.make_view(seed)

        def run(finer: int, view: Any = view, seed: int = seed) -> Any:
            with converged(pipeline, finer):
                result = pipeline.run(view.image, view.mask, seed=seed, pointmap=view.pointmap)
            return outcome_of(result, seed, 1000)

        for strength in given["guidance"].split(","):
            with guided(pipeline, float(strength)):
                found = against_limit(run(1), run(2))
            moved.setdefault(strength, []).append(found)
            print(f"{seed}  guidance {strength}  " + text(found), flush=True)
    for strength, all_found in moved.items():
        means = {name: float(np.mean([found[name] for found in all_found])) for name in all_found[0]}
        print(f"mean of {len(all_found)}  guidance {strength}  " + text(means))


def text(found: dict[str, float]) -> str:
    """Distances as words."""
    return "  ".join(f"{name} {value:.5f}" for name, value in found.items())


if __name__ == "__main__":
    main(sys.argv[1:])
