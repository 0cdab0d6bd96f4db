"""Options of `tune`: the budget of quality, and where it is searched."""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.basics.options import boolean, number_from, one_of, option, optional_text, strengths, whole

JUDGES = ("off", "limit", "both")
"""What `target_fidelity` compares with."""


@dataclass(frozen=True)
class TuneOptions:
    """Options of the search."""

    target_f1_drop: float = option(0.5, number_from(0.0), "F1@0.05 (percent) that may be lost against the truth")
    target_fidelity: float = option(0.95, number_from(0.0, 1.0), "least mean vIoU with what judge names, same noise")
    judge: str = option(
        "off",
        one_of(*JUDGES),
        "off: fidelity to the plain result; limit: to the converged one; both: the lesser counts",
    )
    target_iou_drop: float = option(0.01, number_from(0.0), "3D-IoU of the layout that may be lost")
    objects: int = option(8, whole(1), "number of calibration objects")
    seed: int = option(0, whole(0), "chooses the calibration objects; never those of a benchmark")
    guidance: tuple[float | None, ...] = option((None,), strengths, "guidance strength, or a list; all must hold")
    trials: int = option(80, whole(1), "candidates that are run at most")
    output: str = option("preset.yaml", str, "preset file to write; a log goes beside it")
    description: str | None = option(None, optional_text, "of the preset; null: the budget")
    device: str = option("cpu", str, "cpu or cuda")
    model: str = option("mini", str, "model to load")
    checkpoint_dir: str | None = option(None, optional_text, "folder with weights; null: those of the package")
    resume: bool = option(True, boolean, "go on from the log beside the output; false begins again")
