"""`mllm predict`: attention maps that a predictor gives for the questions of Chat-Scene, in one file."""

from __future__ import annotations

from fastsam3d.basics.options import describe_options, parse_options
from fastsam3d.cli.console import Console, say
from fastsam3d.cli.flags import asks_for_help
from fastsam3d.training.predictor.chat_scene.options import PredictionOptions

COMMAND = "python -m fastsam3d mllm predict"
ABOUT = """\
  {command} FILES predictor=runs/gap/predictor.safetensors output=predicted.safetensors

FILES stands for vicuna=DIR checkpoint=FILE annotations=DIR. Interrupt and repeat the command to resume."""


def main(words: list[str]) -> int:
    """Makes the maps and writes them; returns the exit code.

    Raises:
        UserError: an unknown key, a file is missing or cannot be read, or the output holds other maps.
    """
    if asks_for_help(words):
        say(f"{describe_options(PredictionOptions, COMMAND)}\n\n{ABOUT.format(command=COMMAND)}\n")
        return 0
    options = parse_options(PredictionOptions, words, "mllm predict")
    from fastsam3d.training.predictor.chat_scene.prediction import predict

    console = Console()
    with console.progress():
        maps = predict(options, console.step)
    sets = ", ".join(one.name for one in maps.sets)
    say(f"written: {options.output}, {len(maps.maps)} maps ({maps.kind}, rows {maps.rows}) of {sets}\n")
    return 0
