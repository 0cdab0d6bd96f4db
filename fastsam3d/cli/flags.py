"""Command-line flags: those of Fast-SAM3D, kept, and the few of our own."""

from __future__ import annotations

import argparse
import math
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from fastsam3d.basics.paths import shortened, user_path
from fastsam3d.basics.suggestions import suggestion
from fastsam3d.errors import UserError

MODULES: Mapping[str, tuple[str, ...]] = {
    "enable_ss_cache": ("step_caching",),
    "enable_slat_carving": ("adaptive_caching", "token_carving"),
    "enable_mesh_aggregation": ("token_aggregation",),
}
"""Techniques that a module flag of Fast-SAM3D switches on."""

PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "ss_cache_stride": ("acceleration.step_caching.stride",),
    "ss_warmup": ("acceleration.step_caching.warmup",),
    "ss_order": ("acceleration.step_caching.order",),
    "ss_momentum_beta": ("acceleration.step_caching.momentum_beta",),
    "slat_thresh": ("acceleration.adaptive_caching.threshold",),
    "slat_warmup": ("acceleration.adaptive_caching.warmup", "acceleration.token_carving.warmup"),
    "slat_carving_ratio": ("acceleration.token_carving.carved_fraction",),
    "mesh_spectral_threshold_low": ("acceleration.token_aggregation.threshold_low",),
    "mesh_spectral_threshold_high": ("acceleration.token_aggregation.threshold_high",),
}
"""Configuration keys that a parameter flag of Fast-SAM3D sets."""

INPUTS = (
    *("image_path", "image_dir", "mask_index", "mask_path", "masks", "box", "point", "all", "marker"),
    *("pointmap", "output_dir", "seed"),
)
OUTPUTS = ("export", "faces", "texture", "watertight", "finish", "turntable", "batch", "resume")
"""Flags that are configuration keys of the same name, for what is read and for what is written."""

EPILOG = """\
After the flags, any setting as key=value; python -m fastsam3d presets --keys lists those of acceleration:
  acceleration=NAME        preset: off, exact, paper, accurate, balanced, fast; or a YAML file
  acceleration.step_caching.stride=2
  model=NAME               mini (default, weights included) or sam3d (needs checkpoint_dir=DIR)
  model.ss_sampler.inference_steps=12
  device=cuda              cpu, cuda, cuda:1; default: cuda where there is one
  threads=2                of the CPU; default auto: PyTorch's number, fewer while other programs keep cores busy
  precision=bfloat16       mixed precision; default float32
  memory=8gb               fit on such a card (12gb, 24gb): weights wait on the host for their stage
  formats=[mesh]           also gaussian, where the model has its decoder
  depth=moge               estimate the point map where no file gives one (depth_model=FILE: MoGe's weights)

Exit codes: 0 done, 2 unusable input or settings (nothing is written){more}.
"""


@dataclass(frozen=True)
class Arguments:
    """A parsed command line.

    Attributes:
        values: configuration keys to values, from flags.
        origins: configuration key to the flag that set it, for messages.
        modules: module flags that were given.
        enable_acceleration: that flag.
        overrides: the `key=value` words, in order.
        as_json: print the report as JSON, and nothing else, on stdout.
        quiet: no table, no notes, no progress.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    enable_acceleration: bool = False
    overrides: tuple[str, ...] = ()
    as_json: bool = False
    quiet: bool = False


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """One line a flag on a wide terminal; the long flags of Fast-SAM3D set the column."""

    def __init__(self, prog: str) -> None:
        width = min(max(shutil.get_terminal_size().columns - 2, 70), 116)
        super().__init__(prog, max_help_position=36, width=width)


class Parser(argparse.ArgumentParser):
    """Reports mistakes as `UserError` instead of printing its usage and leaving."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. See --help.")


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def words(text: str) -> list[str]:
    """Words separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def number(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def build_parser(program: str, scene: bool) -> Parser:
    """Parser of `infer`, or of `scene`."""
    what = "every masked object of a picture, and the scene they form" if scene else "one masked object of a picture"
    more = ", 1 some objects of the scene failed" if scene else ""
    parser = Parser(
        prog=program,
        description=f"Reconstructs {what}, with SAM 3D Objects. Without arguments: the bundled example.",
        epilog=EPILOG.format(more=more),
        formatter_class=_HelpFormatter,
        usage=f"{program} [flags] [key=value ...]",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    _add_inputs(parser.add_argument_group("input and output"), scene)
    _add_outputs(parser.add_argument_group("what is written"), scene)
    _add_acceleration(parser)
    output = parser.add_argument_group("what is printed")
    output.add_argument("--json", action="store_true", help="print the report as JSON and nothing else on stdout")
    output.add_argument("--quiet", action="store_true", help="print no table and no progress; warnings remain")
    return parser


def _add_inputs(group: argparse._ArgumentGroup, scene: bool) -> None:
    if scene:
        group.add_argument(
            "--image_dir",
            metavar="DIR",
            help="folder with image.png and its masks 0.png, 1.png, ... or one label image labels.png",
        )
        group.add_argument("--image_path", metavar="FILE", help="the picture, where it is called otherwise")
        group.add_argument("--masks", metavar="PATH", help="masks elsewhere: a folder, a label image, or .npy")
    else:
        group.add_argument("--image_path", metavar="FILE", help="picture, with its masks 0.png, 1.png, ... beside it")
        group.add_argument("--mask_index", type=whole, metavar="N", help="which mask: N.png (default 0)")
        group.add_argument("--mask_path", metavar="FILE", help="a mask elsewhere: RGBA (alpha), greyscale, or .npy")
    _add_marks(group, scene)
    group.add_argument(
        "--pointmap",
        metavar="FILE",
        help=".npy of camera-space points [H, W, 3] (x left, y up, z forward); none: without; "
        "default auto: pointmap.npy beside the picture",
    )
    group.add_argument("--output_dir", metavar="DIR", help="folder for the results (default out)")
    group.add_argument("--seed", type=whole, metavar="N", help="of the noise (default 0)")


def _add_marks(group: argparse._ArgumentGroup, scene: bool) -> None:
    whose = "an object; repeat it for others" if scene else "the object, instead of a mask"
    add = group.add_argument
    add("--box", action="append", metavar="X0,Y0,X1,Y1", help=f"a box in pixels around {whose}")
    add("--point", action="append", metavar="X,Y", help="a point on the object; -X,Y: on the background; repeatable")
    add("--all", action="store_true", help=f"find the objects on a plain backdrop; {'all' if scene else 'the largest'}")
    add("--marker", metavar="NAME", help="makes masks of boxes and points: learned, or sam with sam_checkpoint=FILE")


def _add_outputs(group: argparse._ArgumentGroup, scene: bool) -> None:
    from fastsam3d.meshes.formats import written_formats

    add = group.add_argument
    known = ",".join(each.name for each in written_formats())
    add("--export", type=words, metavar="LIST", help=f"of {known} (default glb,ply)")
    add("--faces", type=whole, metavar="N", help="reduce meshes to about N faces; colours are kept")
    add("--texture", type=whole, metavar="SIZE", help="colours in a texture of SIZE x SIZE; quicker with --faces")
    add("--watertight", action="store_true", help="close holes, so that programs for printing take the mesh")
    add("--finish", action="store_true", help="clean, small, textured meshes: 20000 faces, a texture of 1024")
    add("--turntable", action="store_true", help="also write views from all sides, as a strip (PNG) and a GIF")
    if scene:
        add("--batch", type=whole, metavar="N", help="objects whose first stage runs at once (default: by memory)")
        add("--resume", action="store_true", help="go on with an interrupted scene in the same output folder")


def _add_acceleration(parser: argparse.ArgumentParser) -> None:
    switches = parser.add_argument_group(
        "acceleration",
        "Without any of these and without acceleration=NAME nothing is skipped. The last three choose modules:\n"
        "then only those are on, with the values of the preset paper, or of the one that acceleration= names.",
    )
    add = switches.add_argument
    add("--enable_acceleration", action="store_true", help="preset balanced, or the one that acceleration= names")
    add("--enable_ss_cache", action="store_true", help="module 1: step caching of the sparse structure")
    add("--enable_slat_carving", action="store_true", help="module 2: adaptive caching and carving of the latents")
    add("--enable_mesh_aggregation", action="store_true", help="module 3: token aggregation before the latents")
    parameters = parser.add_argument_group("acceleration settings, for the modules that are on")
    add = parameters.add_argument
    add("--ss_cache_stride", type=whole, metavar="N", help="steps between computed steps; from 4 on the layout breaks")
    add("--ss_warmup", type=whole, metavar="N", help="computed steps at the start")
    add("--ss_order", type=whole, metavar="N", help="forecast of the shape: 0 hold, 1 linear, 2 quadratic")
    add("--ss_momentum_beta", type=number, metavar="X", help="share of the forecast in the layout, 0 to 1")
    add("--slat_thresh", type=number, metavar="X", help="estimated error at which the latent network runs again")
    add("--slat_warmup", type=whole, metavar="N", help="computed steps at the start of the latent stage")
    add(
        "--slat_carving_ratio",
        type=number,
        metavar="X",
        help="share of the latent tokens that is carved (skipped, not kept): 0.1 skips a tenth",
    )
    add("--mesh_spectral_threshold_low", type=number, metavar="X", help="detail up to which voxels are merged most")
    add("--mesh_spectral_threshold_high", type=number, metavar="X", help="detail from which they are merged least")


def parse(argv: Sequence[str], program: str | None = None, scene: bool = False) -> Arguments:
    """Parses the command line of `infer` or `scene`.

    Args:
        program: as it is called in the help; None: as it was called.

    Raises:
        UserError: an unknown flag, a missing or unusable value, or a word that is no key=value.
        SystemExit: after --help.
    """
    if program is None:
        script, verb = ("infer_scene.py", "scene") if scene else ("infer.py", "infer")
        program = sys.argv[0] if Path(sys.argv[0]).name == script else f"python -m fastsam3d {verb}"
    parser = build_parser(program, scene)
    given, rest = parser.parse_known_args(_joined(argv))
    overrides = []
    for word in rest:
        if word.startswith("-"):
            flag, flags = word.partition("=")[0], _flags_of(parser)
            if flag in _flags_of(build_parser(program, not scene)):
                raise UserError(f"{flag} is a flag of {'infer' if scene else 'infer_scene'} only. See --help.")
            raise UserError(f"unknown flag {flag}. {suggestion(flag, flags, 6)}")
        if "=" not in word:
            way_out = f"Did you mean --image_path {word}?" if _is_there(word) else "See --help."
            raise UserError(f"{shortened(word)!r} is neither a flag nor key=value. {way_out}")
        key, _, value = word.partition("=")
        overrides.append(f"{key.strip()}={value.strip()}")  # "seed = 3" is the key "seed"
    values, origins = {}, {}
    for flag, value in vars(given).items():
        for key in PARAMETERS.get(flag, (flag,) if flag in (*INPUTS, *OUTPUTS) else ()):
            values[key], origins[key] = value, f"--{flag}"
    return Arguments(
        values=values,
        origins=origins,
        modules=tuple(flag for flag in MODULES if getattr(given, flag, False)),
        enable_acceleration=getattr(given, "enable_acceleration", False),
        overrides=tuple(overrides),
        as_json=getattr(given, "json", False),
        quiet=getattr(given, "quiet", False),
    )


def _joined(argv: Sequence[str]) -> list[str]:
    """The words with `--point -x,y` as one word: argparse would take the second for a flag."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] in ("--point", "--box") and re.match(r"-[\d.]", word):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _is_there(word: str) -> bool:
    try:
        return user_path(word).exists()
    except UserError:  # it cannot be a path
        return False


def _flags_of(parser: argparse.ArgumentParser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings if len(option) > 2]


def asks_for_help(words: Iterable[str]) -> bool:
    """Tells whether the words of a verb ask for its help."""
    return any(word in ("-h", "--help", "help") for word in words)


def wrapped(text: str, width: int = 100, indent: str = "") -> str:
    """Text filled to lines."""
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)
