"""Turns flags and `key=value` words into one checked configuration, by Hydra, of which no trace is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastsam3d.acceleration.presets import AccelerationConfig, load_preset
from fastsam3d.basics.config_files import config_directory, model_names, preset_names
from fastsam3d.basics.suggestions import suggestion
from fastsam3d.cli.flags import MODULES, Arguments
from fastsam3d.diffusion.registry import REGISTRY
from fastsam3d.errors import UserError
from fastsam3d.jobs.request import SAMPLERS

VERBATIM = (
    "image_path",
    "image_dir",
    "mask_path",
    "masks",
    "box",
    "point",
    "sam_checkpoint",
    "pointmap",
    "depth_model",
    "output_dir",
    "name",
    "checkpoint_dir",
    "device",
)
"""Keys whose value is text as it stands: paths may hold signs that mean something in Hydra's grammar."""
NULL = ("null", "none", "None", "~")


def compose(arguments: Arguments) -> tuple[dict[str, Any], AccelerationConfig]:
    """The configuration of a command line.

    Preset < module flags < parameter flags < `key=value` words.

    Returns:
        (all settings as nested plain values, the acceleration).

    Raises:
        UserError: an unknown preset, model or key, or a value that cannot be used.
    """
    selected, plain, verbatim = _sort(arguments.overrides)
    preset = _preset(arguments, selected.get("acceleration"))
    preset_file = Path(preset) if preset.endswith((".yaml", ".yml")) else None
    group = "off" if preset_file else preset
    composed = _hydra([f"model={_model(selected.get('model', 'mini'))}", f"acceleration={group}", *plain])
    if preset_file:
        changes = composed["acceleration"]
        composed["acceleration"] = load_preset(preset_file).to_dict()
        for key in (word.partition("=")[0].lstrip("+") for word in plain):
            if key.startswith("acceleration."):
                _set(composed, key, _get(changes, key.split(".")[1:]))
    overridden = {word.partition("=")[0].lstrip("+") for word in plain}
    for key, value in {**_modules(arguments, composed["acceleration"]), **arguments.values}.items():
        if key not in overridden and key not in verbatim:
            _set(composed, key, value)
    composed.update(verbatim)
    try:
        acceleration = load_preset(composed["acceleration"])
    except UserError as error:
        raise UserError(_with_flag(str(error), arguments)) from None
    composed["acceleration"] = acceleration.to_dict()
    return composed, acceleration


def ineffective(arguments: Arguments, acceleration: AccelerationConfig) -> list[str]:
    """Warnings about settings that were given for techniques that are off."""
    given: dict[str, list[str]] = {}
    for key, flag in arguments.origins.items():
        given.setdefault(flag, []).append(key)
    for word in arguments.overrides:
        given[word] = [word.partition("=")[0].lstrip("+")]
    warnings = []
    for words, keys in given.items():
        groups = [key.split(".")[1] for key in keys if key.startswith("acceleration.") and key.count(".") == 2]
        settings = [acceleration.settings[group] for group in groups if group in acceleration.settings]
        # "enabled=false" is the reason and not the victim.
        if settings and not any(getattr(s, "enabled", True) for s in settings) and not keys[0].endswith(".enabled"):
            flag = next(
                (f"--{name}" for name, parts in MODULES.items() if groups[0] in parts),
                "--enable_acceleration",
            )
            warnings.append(
                f"{words} changes nothing, because {' and '.join(groups)} {'are' if len(groups) > 1 else 'is'} off "
                f"(acceleration={acceleration.name}). Add {flag}, or {groups[0]}.enabled=true under acceleration."
            )
    return warnings


def changes(arguments: Arguments) -> list[str]:
    """Lists the changed settings of preset and model in short, for the report's head."""
    shown = {
        key.removeprefix("acceleration."): value
        for key, value in arguments.values.items()
        if key.startswith("acceleration.")
    }
    for word in arguments.overrides:
        key, _, value = word.partition("=")
        if key.lstrip("+").startswith(("acceleration.", "model.")):
            shown[key.lstrip("+").removeprefix("acceleration.")] = value
    return [f"{key}={value}" for key, value in shown.items()]


def _preset(arguments: Arguments, named: str | None) -> str:
    if named is not None:
        if not named.endswith((".yaml", ".yml")) and named not in preset_names():
            raise UserError(f"unknown preset acceleration={named}. {suggestion(named, preset_names())}")
        return named
    if arguments.modules:
        return "paper"
    return "balanced" if arguments.enable_acceleration else "off"


def _model(name: str) -> str:
    if name not in model_names():
        raise UserError(f"unknown model model={name}. {suggestion(name, model_names())}")
    return name


def _modules(arguments: Arguments, preset: Mapping[str, Any]) -> dict[str, Any]:
    if not arguments.modules:
        return {}
    wanted = {group for flag in arguments.modules for group in MODULES[flag]}
    names = ", ".join(flag.removeprefix("enable_") for flag in arguments.modules)
    result: dict[str, Any] = {"acceleration.name": f"{preset['name']}, only {names}"}
    for group, technique in REGISTRY.items():
        if hasattr(technique.config, "enabled"):
            result[f"acceleration.{group}.enabled"] = group in wanted
    return result


def _sort(words: Sequence[str]) -> tuple[dict[str, str], list[str], dict[str, Any]]:
    """Sorts words into (group selections, words for Hydra, verbatim values); the last value of a key counts."""
    selected: dict[str, str] = {}
    plain: dict[str, str] = {}
    verbatim: dict[str, Any] = {}
    known = _known_keys()
    for word in words:
        key, _, value = word.partition("=")
        key = key.strip().lstrip("+")
        if key in ("model", "acceleration"):
            selected[key] = value.strip()
        elif key in VERBATIM:
            text = value.strip().strip("\"'")
            verbatim[key] = None if text in NULL and key != "pointmap" else text
        elif key.startswith("acceleration."):
            # Presets leave out what they do not change; the settings' own classes know every key.
            plain[key] = f"++{key}={value}"
        elif key in known:
            plain[key] = f"{key}={value}"
        elif key.startswith("model."):
            raise UserError(
                f"{key} cannot be changed: only {' and '.join(f'model.{s}' for s in SAMPLERS)} can, because the rest "
                f"are the sizes of the weights. {suggestion(key, [k for k in known if k.startswith('model.')])}"
            )
        else:
            raise UserError(f"unknown key {key!r} in {word!r}. {suggestion(key, known)}")
    return selected, list(plain.values()), verbatim


def _known_keys() -> list[str]:
    """Every key that a word can set."""
    from omegaconf import OmegaConf

    top = [str(key) for key in OmegaConf.load(config_directory() / "config.yaml") if key != "defaults"]
    acceleration = [
        f"acceleration.{group}.{name}" for group, technique in REGISTRY.items() for name in technique.config.describe()
    ]
    fields = ("inference_steps", "rescale_t", "strength", "interval")
    return [
        *top,
        "model",
        "acceleration",
        *acceleration,
        *(f"model.{s}.{f}" for s in SAMPLERS for f in fields),
    ]


def _hydra(overrides: Sequence[str]) -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    parser = OverridesParser.create()
    for word in overrides:
        try:
            sweep = parser.parse_override(word).is_sweep_override()
        except HydraException:
            raise UserError(
                f"{word.lstrip('+')!r} cannot be read. Put a value with special signs in quotes: "
                f"\"{word.partition('=')[0].lstrip('+')}='...'\"."
            ) from None
        if sweep:
            raise UserError(f"{word.lstrip('+')!r} gives several values; one run takes one. Write a list as [a,b].")
    try:
        # As a context manager it puts Hydra's global state back as it was.
        with initialize_config_dir(str(config_directory().resolve()), version_base=None):
            config = hydra_compose("config", overrides=list(overrides))
        values = OmegaConf.to_container(config, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"the settings cannot be composed: {str(error).splitlines()[0]}") from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[last] = value


def _get(values: Any, path: Sequence[str]) -> Any:
    for part in path:
        values = values[part]
    return values


def _with_flag(message: str, arguments: Arguments) -> str:
    for key, flag in arguments.origins.items():
        if key.startswith("acceleration.") and key.removeprefix("acceleration.") in message:
            return f"{flag}: {message}"
    return message
