"""Turns training runs into the weights and constants of the mini model.

    python -m fastsam3d train export --ss-vae RUN --ss-flow RUN --slat-vae RUN --slat-flow RUN \\
        --gaussians RUN --marker RUN

Weights are stored in six (generators) and eight bits (decoders) a value under the official names; the constants
that undo the standardisation of the latents go into `configs/model/mini.yaml`, whose other lines stay as they are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from fastsam3d.basics.config_files import config_directory
from fastsam3d.basics.reading.packed_weights import pack
from fastsam3d.errors import UserError
from fastsam3d.marking.network import folded
from fastsam3d.training.optimization import require_checkpoint
from fastsam3d.training.options import ExportOptions
from fastsam3d.training.sparse_structure.flow import POSE_CONSTANTS

GENERATOR_PREFIX = "_base_models.generator.reverse_fn.backbone."
EMBEDDER_PREFIX = "_base_models.condition_embedder."
GENERATOR_BITS, DECODER_BITS = 6, 8
RUNS = ("ss_vae", "ss_flow", "slat_vae", "slat_flow", "gaussians", "marker")
"""Stages whose runs hold weights."""


def part(state: Mapping[str, Tensor], prefix: str, renamed: str = "") -> dict[str, Tensor]:
    """Entries under `prefix`, with that prefix replaced."""
    return {renamed + k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def write(state: Mapping[str, Tensor], path: Path, bits: int, **packing: int | None) -> None:
    """Writes a state dict as a packed safetensors file, under a temporary name first; `packing` as for `pack`."""
    tensors, metadata = pack(state, bits, **packing)  # type: ignore[arg-type]
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata)
    os.replace(temporary, path)


def generator_state(averaged: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A generator's file: network and condition embedder under the official prefixes."""
    return {
        **part(averaged, "generator.", GENERATOR_PREFIX),
        **part(averaged, "condition_embedder.", EMBEDDER_PREFIX),
    }


def scaled_decoder(state: Mapping[str, Tensor], shape_scale: Tensor) -> dict[str, Tensor]:
    """The sparse-structure decoder for latents of unit size: the scale goes into its first convolution."""
    decoder = part(state, "decoder.")
    decoder["input_layer.weight"] = decoder["input_layer.weight"] * shape_scale.view(1, -1, 1, 1, 1)
    return decoder


def replace_line(text: str, key: str, value: Any) -> str:
    """Replaces the value of the one line `key: ...` of a YAML text, keeping indentation and comment.

    Raises:
        ValueError: there is not exactly one such line.
    """
    pattern = re.compile(rf"^(\s*){re.escape(key)}:[^#\n]*?(\s*#.*)?$", re.MULTILINE)
    rendered = f"[{', '.join(f'{v:.6g}' for v in value)}]" if isinstance(value, list) else f"{value:.6g}"
    text, count = pattern.subn(lambda m: f"{m[1]}{key}: {rendered}{m[2] or ''}", text)
    if count != 1:
        raise ValueError(f"expected one line {key!r}, found {count}")
    return text


def pose_constants(constants: Mapping[str, Any]) -> dict[str, Any]:
    """Lines of the model's `pose` section from the standardisation of a training run."""
    lines: dict[str, Any] = {}
    for latent, line in POSE_CONSTANTS.items():
        for kind in ("mean", "std"):
            values = constants[f"pose_{kind}"][latent].tolist()
            single = line in ("scale", "translation_scale")
            lines[f"{line}_{kind}"] = sum(values) / len(values) if single else values
    return lines


def export(options: ExportOptions) -> None:
    """Writes whatever the named runs hold.

    Raises:
        UserError: a run has no checkpoint, or the first stage's generator lacks its decoder; nothing is written.
    """
    if options.ss_flow and not options.ss_vae:
        raise UserError("The scale of --ss-flow's latents goes into the decoder: name the run of --ss-vae too.")
    named = {name: run for name, run in vars(options).items() if name in RUNS and run}
    states = {
        name: require_checkpoint(Path(run) / "checkpoint.pt", "name the folder of a finished run")
        for name, run in named.items()
    }
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    path = config_directory() / "model" / "mini.yaml"
    text = path.read_text(encoding="utf-8")
    if "ss_flow" in states:
        flow = states["ss_flow"]
        write(generator_state(flow["average"]), output / "ss_generator.safetensors", GENERATOR_BITS)
        for key, value in pose_constants(flow["constants"]).items():
            text = replace_line(text, key, value)
        decoder = scaled_decoder(states["ss_vae"]["model"], flow["constants"]["shape_scale"])
        write(decoder, output / "ss_decoder.safetensors", DECODER_BITS)
    if "slat_vae" in states:
        decoder = part(states["slat_vae"]["model"], "decoder.")
        write(decoder, output / "slat_decoder_mesh.safetensors", DECODER_BITS)
    if "gaussians" in states:
        write(states["gaussians"]["average"], output / "slat_decoder_gs.safetensors", DECODER_BITS)
    if "marker" in states:
        # Its layers are narrow: as for the others, half of the file would be fp16 and padding.
        marker = folded(states["marker"]["average"])
        write(marker, output / "marker.safetensors", DECODER_BITS, small=1024, group=None)
    if "slat_flow" in states:
        flow = states["slat_flow"]
        write(generator_state(flow["average"]), output / "slat_generator.safetensors", GENERATOR_BITS)
        text = replace_line(text, "slat_mean", flow["constants"]["latent_mean"].tolist())
        text = replace_line(text, "slat_std", flow["constants"]["latent_std"].tolist())
    path.write_text(text, encoding="utf-8")
    total = sum(file.stat().st_size for file in output.glob("*.safetensors"))
    print(f"{output}: {total / 2**20:.1f} MiB of weights")
