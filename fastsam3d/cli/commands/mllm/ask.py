"""`mllm ask`: one question about a room, answered without pruning and with it, and a picture of what was pruned."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastsam3d.basics.options import describe_options, option, optional, optional_text, parse_options, whole
from fastsam3d.basics.paths import user_path
from fastsam3d.cli.console import Console, say
from fastsam3d.cli.flags import asks_for_help
from fastsam3d.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from fastsam3d.mllm.scenes.rooms import Room

COMMAND = "python -m fastsam3d mllm ask"
OBJECTS = 60
"""Objects of a room that is made from a seed, where no number is given."""
ABOUT = """\
Asks the small 3D language model about a room. Without scene, seed and objects, this is the bundled room.

  {command} "the lamp left of the television"
  {command} "how many green plants are there" preset=fastv_90
  {command} "how many blue boxes are there" seed=7 objects=100
  {command} "describe <OBJ012>" scene=my_room.json

The numbers in the picture are the numbers of the objects: 12 is <OBJ012>. You can write a room file by hand: copy
examples/room.json. The model knows few words. A question with another word is an error that names similar words, or
the words that the model knows."""


@dataclass(frozen=True)
class AskOptions:
    """Options of the command."""

    scene: str | None = option(None, optional_text, "room file (JSON)")
    seed: int | None = option(None, optional(whole(0)), "makes a new room, instead of reading a room file")
    objects: int | None = option(None, optional(whole(1)), f"objects of the new room, 1 to 128; null: {OBJECTS}")
    preset: str = option("balanced", str, "preset of the pruning: its name or a YAML file")
    output: str = option("ask.png", str, "file of the picture (PNG)")
    model: str | None = option(None, optional_text, "folder of a small model that you trained; null: the shipped one")


def main(words: list[str]) -> int:
    """Asks, prints both answers and writes the picture; returns the exit code.

    Raises:
        UserError: an unknown option, word, preset or room; transformers is missing; the picture cannot be written.
    """
    if asks_for_help(words):
        say(f"{describe_options(AskOptions, f'{COMMAND} QUESTION')}\n\n{ABOUT.format(command=COMMAND)}\n")
        return 0
    question = " ".join(word for word in words if "=" not in word and not word.startswith("-"))
    options = parse_options(AskOptions, [word for word in words if "=" in word or word.startswith("-")], "mllm ask")
    path = user_path(options.output)
    if path.suffix.lower() != ".png":
        raise UserError(f"mllm ask: output={path} is not a PNG file: give a name that ends in .png")
    from fastsam3d.mllm.mini.asking import ask, check_question, pruning_preset

    # Everything that can be wrong is said before the model is loaded.
    question, preset, (room, place) = check_question(question), pruning_preset(options.preset), room_of(options)
    console = Console()
    with console.progress():
        console.step("loading the model")
        from fastsam3d.mllm.mini.loading import PREDICTOR, load_small_model

        folder = None if options.model is None else user_path(options.model)
        # A folder of one's own needs a predictor only for presets that use one, and these say so.
        model = load_small_model(folder, predictor=folder is None or (folder / PREDICTOR).is_file())
        console.step("asking")
        asked = ask(model, room, question, preset)
        write_picture(asked.picture(), path)
    rows = [("room", f"{place}, {len(room)} objects"), ("question", question), *asked.lines(), ("written", str(path))]
    width = max(len(name) for name, _ in rows)
    say("".join(f"{name:<{width}}  {text}\n" for name, text in rows))
    return 0


def room_of(options: AskOptions) -> tuple[Room, str]:
    """Reads or makes the room that is asked about, and says in words where it comes from.

    Raises:
        UserError: it cannot be read or made, or both a file and a seed are given.
    """
    from fastsam3d.mllm.scenes.files import bundled_room, read_room
    from fastsam3d.mllm.scenes.rooms import make_room

    made = options.seed is not None or options.objects is not None
    if options.scene is not None and made:
        raise UserError("mllm ask: scene and seed are two rooms: give a room file, or seed and objects")
    if made:
        seed, objects = options.seed or 0, options.objects or OBJECTS
        return make_room(seed, objects), f"seed {seed}"
    path = bundled_room() if options.scene is None else user_path(options.scene)
    return read_room(path), "the bundled room" if options.scene is None else str(path)


def write_picture(picture: Image, path: Path) -> None:
    """Writes a picture as PNG.

    Raises:
        UserError: it cannot be written.
    """
    from fastsam3d.basics.files import write_atomically

    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    write_atomically(path, data.getvalue())
