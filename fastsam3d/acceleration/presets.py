"""Acceleration presets: YAML files under `configs/acceleration`, read into checked, frozen settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fastsam3d.acceleration.compatibility import refuse_clashes
from fastsam3d.basics.config_files import config_directory, preset_names
from fastsam3d.basics.suggestions import suggested_ending
from fastsam3d.diffusion.techniques import REGISTRY, TechniqueConfig
from fastsam3d.errors import UserError

NAME = "name"
KIND, DESCRIPTION = "kind", "description"
ABOUT = (NAME, KIND, DESCRIPTION)
"""Keys of a preset that say something about it; all others are config groups. Groups that it leaves out are off."""
KINDS = {
    "preset": "presets",
    "method": "methods by others and parts of our own, for comparison",
    "control": "controls, which every method must beat",
}
"""Kinds of presets, as a listing heads them, in its order."""


@dataclass(frozen=True)
class PresetInfo:
    """What a preset says about itself: its name, one of `KINDS`, and one line."""

    name: str
    kind: str
    description: str


def preset_info(name: str) -> PresetInfo:
    """What an installed preset says about itself.

    Raises:
        UserError: there is no such preset.
    """
    values = _preset_values(name)
    return PresetInfo(name, str(values.get(KIND, "preset")), str(values.get(DESCRIPTION, "")))


@dataclass(frozen=True)
class AccelerationConfig:
    """Settings of every technique.

    Attributes:
        name: of the preset they began as.
        settings: by config group, one for each registered technique.
    """

    name: str
    settings: Mapping[str, TechniqueConfig]

    def __getitem__(self, group: str) -> Any:
        return self.settings[group]

    def __post_init__(self) -> None:
        refuse_clashes(self.settings)

    @property
    def enabled(self) -> tuple[str, ...]:
        """What is switched on: config groups, and for groups of switches `group.switch`."""
        names = []
        for group, config in self.settings.items():
            if hasattr(config, "enabled"):
                names += [group] if config.enabled else []
            else:
                switches = dataclasses.fields(config)
                names += [f"{group}.{s.name}" for s in switches if getattr(config, s.name) is True]
        return tuple(names)

    def needs(self, stage: str) -> frozenset[str]:
        """What the techniques that are on and act on a stage need of a host there, names from `CAPABILITIES`."""
        settings = [(REGISTRY[group], config) for group, config in self.settings.items()]
        return frozenset(need for t, config in settings if stage in t.acts_on(config) for need in t.needs_in(stage))

    def warnings(self) -> list[str]:
        """Advice about settings that are allowed but known to cost quality."""
        return [text for group, config in self.settings.items() for text in REGISTRY[group].advise(config)]

    def to_dict(self) -> dict[str, Any]:
        """The settings as nested plain values, as in a preset file."""
        return {NAME: self.name} | {
            group: {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}
            for group, config in self.settings.items()
        }


def load_preset(
    preset: str | Path | Mapping[str, Any] | AccelerationConfig = "balanced",
    overrides: Mapping[str, Any] | None = None,
) -> AccelerationConfig:
    """Settings of a preset with some values changed.

    Args:
        preset: a preset's name, a YAML file, nested values as in such a file, or settings made before.
        overrides: changed values, nested (`{"step_caching": {"stride": 2}}`), dotted
            (`{"step_caching.stride": 2}`), or a bool for a technique's switch (`{"token_carving": True}`).

    Raises:
        UserError: an unknown preset, group or key, or a value of the wrong type or out of range.
    """
    values = _preset_values(preset)
    name = str(values.get(NAME, "custom"))
    values = {group: content for group, content in values.items() if group not in ABOUT}
    groups = {group: dict(_mapping(group, content)) for group, content in values.items()}
    for key, value in (overrides or {}).items():
        for group, content in _override(key, value).items():
            groups.setdefault(group, {}).update(content)
    unknown = [group for group in groups if group not in REGISTRY]
    if unknown:
        raise UserError(f"unknown technique {unknown[0]!r}{suggested_ending(unknown[0], REGISTRY)}")
    return AccelerationConfig(name, {group: _settings(group, groups.get(group, {})) for group in REGISTRY})


def _preset_values(preset: Any) -> dict[str, Any]:
    if isinstance(preset, AccelerationConfig):
        return preset.to_dict()
    if isinstance(preset, Mapping) or hasattr(preset, "_metadata"):  # the latter: an OmegaConf node
        return {str(key): value for key, value in _plain(preset).items()}
    if isinstance(preset, Path) or str(preset).endswith((".yaml", ".yml")):
        path, name = Path(preset), Path(preset).stem
        if not path.is_file():
            raise UserError(
                f"no preset file {path}: give an existing YAML file, or one of {', '.join(preset_names())}"
            )
    else:
        name = str(preset)
        path = config_directory() / "acceleration" / f"{name}.yaml"
        if name not in preset_names():
            raise UserError(f"unknown preset {name!r}{suggested_ending(name, preset_names())}")
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        values = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"{path} is not a preset: {line}. Mend the file, or use one of {', '.join(preset_names())}"
        ) from error
    return {NAME: name} | dict(_mapping(str(path), values))


def _plain(values: Any) -> Any:
    if hasattr(values, "_metadata"):
        from omegaconf import OmegaConf

        return OmegaConf.to_container(values, resolve=True)
    return values


def _mapping(where: str, values: Any) -> Mapping[str, Any]:
    values = _plain(values)
    if isinstance(values, bool) and where in REGISTRY:
        return {"enabled": values}
    if not isinstance(values, Mapping):
        raise UserError(
            f"{where} is {values!r}: key: value pairs are needed, for instance {where}: {{enabled: true}}"
        )
    return cast(Mapping[str, Any], values)


def _override(key: str, value: Any) -> dict[str, dict[str, Any]]:
    group, _, name = key.partition(".")
    return {group: {name: value}} if name else {group: dict(_mapping(group, value))}


def _settings(group: str, values: Mapping[str, Any]) -> TechniqueConfig:
    kind = REGISTRY[group].config
    fields = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        if key not in fields:
            raise UserError(f"unknown key {group}.{key}{suggested_ending(key, fields, prefix=f'{group}.')}")
    return kind(**values)


