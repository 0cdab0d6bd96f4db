"""`loss-curves`: losses of a training run as curves.

    python -m fastsam3d loss-curves log=runs/ss_flow/losses.jsonl output=losses.png
    python -m fastsam3d loss-curves log=runs/slat_vae/losses.jsonl columns=[sdf,color] smooth=1
"""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.basics.options import describe_options, option, parse_options, whole
from fastsam3d.basics.options import words as listed
from fastsam3d.cli.flags import asks_for_help

COMMAND = "python -m fastsam3d loss-curves"


@dataclass(frozen=True)
class LossCurvesOptions:
    """Options of the command."""

    log: str = option("runs/ss_flow/losses.jsonl", str, "losses.jsonl of a training run")
    output: str = option("losses.png", str, "picture that is written")
    columns: tuple[str, ...] = option((), listed, "what is drawn; empty: every loss of the log")
    smooth: int = option(50, whole(1), "lines of the log whose mean a point is, at most a tenth of all")


def main(words: list[str]) -> int:
    """Draws, and prints where; returns the exit code.

    Raises:
        UserError: a mistyped option, a log that cannot be read or has nothing to draw, a place that cannot be written.
    """
    if asks_for_help(words):
        print(describe_options(LossCurvesOptions, COMMAND))
        return 0
    options = parse_options(LossCurvesOptions, words, "loss_curves")
    from fastsam3d.training.loss_curves import loss_curves

    print(loss_curves(options.log, options.output, columns=options.columns, smooth=options.smooth))
    return 0
