"""`mllm train`: the small language model, attention predictors, and the folder that a model is loaded from.

python -m fastsam3d mllm train model --output runs/model --steps 4000
python -m fastsam3d mllm train predictor --model runs/model --output runs/predictor --steps 2500
python -m fastsam3d mllm train export --model runs/model --predictor runs/predictor --output my_model
python -m fastsam3d mllm train predictor-of-maps --maps maps.safetensors --output runs/gap --steps 10000 ...
"""

from __future__ import annotations

from fastsam3d.basics.suggestions import suggestion
from fastsam3d.cli.commands.train import Program, told
from fastsam3d.cli.console import say
from fastsam3d.cli.flags import asks_for_help
from fastsam3d.errors import UserError
from fastsam3d.training.language_model import options as settings
from fastsam3d.training.predictor.chat_scene.options import MapsPredictorOptions

COMMAND = "python -m fastsam3d mllm train"
PROGRAMS = {
    "model": Program(
        "Trains the small 3D language model on procedural rooms.",
        settings.LanguageModelOptions,
        "language_model.training:train",
    ),
    "predictor": Program(
        "Trains the attention predictor of a trained model.",
        settings.SmallPredictorOptions,
        "language_model.small_predictor:train_small_predictor",
    ),
    "predictor-of-maps": Program(
        "Trains the attention predictor of Chat-Scene on stored maps.",
        MapsPredictorOptions,
        "predictor.chat_scene.training:train_on_maps",
    ),
    "export": Program(
        "Writes the model and its predictor into one folder, for model=FOLDER.",
        settings.SmallModelExportOptions,
        "language_model.small_predictor:export",
    ),
}
ABOUT = "\n".join(
    [
        f"usage: {COMMAND} PROGRAM [flags]",
        "",
        "Trains the small 3D language model from scratch, on rooms that are made during the training. Also trains",
        "predictors of attention: for the small model, and for Chat-Scene on maps that `mllm extract` made.",
        "To resume an interrupted run, repeat the command.",
        "",
        *(f"  {name:<18} {program.text}" for name, program in PROGRAMS.items()),
        "",
        f"{COMMAND} PROGRAM --help lists its flags.",
        "",
    ]
)


def main(words: list[str]) -> int:
    """Runs a program; returns the exit code.

    Raises:
        UserError: no program of that name, or what it builds on is missing.
    """
    if not words or (words[0] not in PROGRAMS and asks_for_help(words)):
        say(ABOUT)
        return 0
    if words[0] not in PROGRAMS:
        raise UserError(f"mllm train: unknown program {words[0]!r}. {suggestion(words[0], PROGRAMS)}")
    with told():
        PROGRAMS[words[0]].run(words[0], words[1:], COMMAND)
    return 0
