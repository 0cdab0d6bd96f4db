"""The works to cite for a preset, as BibTeX: this software, the model, and the papers of the techniques that are on."""

from __future__ import annotations

import re

from fastsam3d.basics.config_files import config_directory, preset_names
from fastsam3d.basics.suggestions import suggestion
from fastsam3d.errors import UserError

FILE = "references.bib"
SOFTWARE = "fastsam3d"
MODELS = {"diffusion": ("sam3d",), "mllm": ()}
"""Works on the model that a family's presets are for."""
FOLDERS = {"diffusion": "acceleration", "mllm": "mllm"}
WORKS = {
    "step_caching": "fast_sam3d",
    "adaptive_caching": "fast_sam3d",
    "latent_step_caching": "fast_sam3d",
    "token_carving": "fast_sam3d",
    "token_aggregation": "fast_sam3d",
    "released_step_caching": "fast_sam3d",
    "released_latent_caching": "fast_sam3d",
    "released_aggregation": "fast_sam3d",
    "random_drop": "fast_sam3d",
    "uniform_merge": "fast_sam3d",
    "multistep": "unipc",
    "latent_multistep": "unipc",
    "taylorseer": "taylorseer",
    "easycache": "easycache",
    "hicache": "hicache",
    "magcache": "magcache",
    "fast3dcache": "fast3dcache",
    "guidance_reuse": "adaptive_guidance",
    "dmd": "dynamic_mode_decomposition",
    "gap": "fast3d",
    "released": "fast3d",
    "fastv": "fastv",
    "pyramid": "pyramiddrop",
    "dart": "dart",
    "divprune": "divprune",
    "raters": "sparsevlm",
}
"""Key of the work that a technique is from. `random_drop` and `uniform_merge` are baselines of that paper; `multistep`
takes the corrector of that paper. Techniques that are not here are our own, or were published as code only."""


def entries() -> dict[str, str]:
    """BibTeX entries by key."""
    text = (config_directory() / FILE).read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=@)", text)
    return {match[1]: block.strip() for block in blocks if (match := re.match(r"@\w+\{(\w+),", block))}


def keys_of(preset: str) -> list[str]:
    """Keys of the works to cite for a preset, of any family that has one of this name.

    Raises:
        UserError: there is no such preset.
    """
    from fastsam3d.acceleration.presets import load_preset

    families = [family for family, folder in FOLDERS.items() if preset in preset_names(folder)]
    if not families:
        known = [name for folder in FOLDERS.values() for name in preset_names(folder)]
        raise UserError(f"unknown preset {preset!r}. {suggestion(preset, dict.fromkeys(known))}")
    keys = [SOFTWARE]
    for family in families:
        techniques = load_preset(preset, family=family).enabled
        keys += [*MODELS[family], *(WORKS[name] for name in techniques if name in WORKS)]
    return list(dict.fromkeys(keys))


def bibtex(preset: str) -> str:
    """BibTeX of the works to cite for a preset.

    Raises:
        UserError: there is no such preset.
    """
    known = entries()
    return "\n\n".join(known[key] for key in keys_of(preset)) + "\n"
