"""Reads acceleration presets, YAML files under `configs`, into checked, frozen settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fastsam3d.acceleration.compatibility import refuse_clashes
from fastsam3d.acceleration.family import DEFAULT_FAMILY, Family, family_named
from fastsam3d.acceleration.settings import TechniqueConfig
from fastsam3d.basics.config_files import config_directory, preset_names
from fastsam3d.basics.paths import require_file, user_path
from fastsam3d.basics.plain_yaml import LARGEST_TEXT, check_size, refuse_resolvers, short, with_own_references
from fastsam3d.basics.suggestions import suggested_ending
from fastsam3d.errors import UserError

NAME = "name"
KIND, DESCRIPTION = "kind", "description"
ABOUT = (NAME, KIND, DESCRIPTION)
"""Keys of a preset that describe it; all others are config groups. Groups that a preset does not name are off."""
KINDS = {
    "preset": "presets",
    "method": "methods by others and parts of our own, for comparison",
    "control": "controls, which every method must beat",
}
"""Kinds of presets with their headings in a listing, in its order."""


@dataclass(frozen=True)
class PresetInfo:
    """Head of a preset: its name, one of `KINDS`, and one line of description."""

    name: str
    kind: str
    description: str


def preset_info(name: str, family: str = DEFAULT_FAMILY) -> PresetInfo:
    """Reads the head of an installed preset.

    Raises:
        UserError: there is no such preset.
    """
    values = _preset_values(name, family_named(family))
    return PresetInfo(name, str(values.get(KIND, "preset")), str(values.get(DESCRIPTION, "")))


@dataclass(frozen=True)
class AccelerationConfig:
    """Settings of every technique.

    Attributes:
        name: name of the preset, before changes.
        settings: settings of each registered technique, by config group.
        family: name of the family of models that the settings are for.
    """

    name: str
    settings: Mapping[str, TechniqueConfig]
    family: str = DEFAULT_FAMILY

    def __getitem__(self, group: str) -> Any:
        return self.settings[group]

    def __post_init__(self) -> None:
        family = family_named(self.family)
        refuse_clashes(family.registry, family.rules, self.settings)

    @property
    def enabled(self) -> tuple[str, ...]:
        """Returns the names of all that is switched on: config groups, and `group.switch` for groups of switches."""
        names = []
        for group, config in self.settings.items():
            if hasattr(config, "enabled"):
                names += [group] if config.enabled else []
            else:
                switches = dataclasses.fields(config)
                names += [f"{group}.{s.name}" for s in switches if getattr(config, s.name) is True]
        return tuple(names)

    def needs(self, stage: str) -> frozenset[str]:
        """Returns the capabilities that the active techniques need of a host in a kind of stage."""
        family = family_named(self.family)
        acting = [family.registry[g] for g, c in self.settings.items() if stage in family.registry[g].acts_on(c)]
        return frozenset(need for technique in acting for need in family.rules.needs_in(technique, stage))

    def warnings(self) -> list[str]:
        """Returns advice about settings that are allowed but known to cost quality."""
        registry = family_named(self.family).registry
        return [text for group, config in self.settings.items() for text in registry[group].advise(config)]

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as nested plain values, as in a preset file."""
        return {NAME: self.name} | {
            group: {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}
            for group, config in self.settings.items()
        }


def load_preset(
    preset: str | Path | Mapping[str, Any] | AccelerationConfig = "balanced",
    overrides: Mapping[str, Any] | None = None,
    family: str = DEFAULT_FAMILY,
) -> AccelerationConfig:
    """Reads the settings of a preset with some values changed.

    Args:
        preset: a preset's name, a YAML file, nested values as in such a file, or settings made before.
        overrides: changed values, nested (`{"step_caching": {"stride": 2}}`), dotted
            (`{"step_caching.stride": 2}`), or a bool for a technique's switch (`{"token_carving": True}`). For a group
            of switches, such as `exact`, True means their defaults and False switches all of them off.
        family: name of the family of models that the preset belongs to.

    Raises:
        UserError: an unknown preset, group or key, a value of the wrong type or out of range, or settings of another
            family.
    """
    found = family_named(family)
    if isinstance(preset, AccelerationConfig) and preset.family != family:
        raise UserError(
            f"the settings {preset.name!r} are for models of the family {preset.family}, and this one is of the "
            f"family {family}: give a preset of its own, one of {', '.join(preset_names(found.presets))}"
        )
    values = _preset_values(preset, found)
    name = str(values.get(NAME, "custom"))
    values = {group: content for group, content in values.items() if group not in ABOUT}
    _refuse_unknown([str(group) for group in values], found)
    _refuse_unknown([str(key).partition(".")[0] for key in overrides or {}], found)
    groups = {str(group): dict(_mapping(str(group), content, found)) for group, content in values.items()}
    for key, value in (overrides or {}).items():
        for group, content in _override(str(key), value, found).items():
            groups.setdefault(group, {}).update(content)
    settings = {group: _settings(group, groups.get(group, {}), found) for group in found.registry}
    return AccelerationConfig(name, settings, family)


def _refuse_unknown(groups: Iterable[str], family: Family) -> None:
    """Refuses a mistyped technique before its values are read, so that the message is about the name."""
    unknown = [group for group in groups if group not in family.registry]
    if unknown:
        raise UserError(f"unknown technique {unknown[0]!r}{suggested_ending(unknown[0], family.registry)}")


def _preset_values(preset: Any, family: Family) -> dict[str, Any]:
    if isinstance(preset, AccelerationConfig):
        return preset.to_dict()
    if isinstance(preset, Mapping) or hasattr(preset, "_metadata"):  # the latter: an OmegaConf node
        return {str(key): value for key, value in _plain(preset).items()}
    if isinstance(preset, Path) or str(preset).endswith((".yaml", ".yml")):
        path, name = user_path(preset), Path(preset).stem
        if not path.exists():
            raise UserError(
                f"no preset file {path}: give an existing YAML file, or one of "
                f"{', '.join(preset_names(family.presets))}"
            )
    else:
        name = str(preset)
        path = config_directory() / family.presets / f"{name}.yaml"
        if name not in preset_names(family.presets):
            raise UserError(f"unknown preset {name!r}{suggested_ending(name, preset_names(family.presets))}")
    return {NAME: name} | dict(_mapping(str(path), _read_file(path, family), family))


def _read_file(path: Path, family: Family) -> Any:
    """Reads the values of a preset file. Its interpolations can use its own keys only."""
    from omegaconf import OmegaConf

    require_file(path, f"the preset {path}", LARGEST_TEXT)
    try:
        text = path.read_text(encoding="utf-8")
        check_size(text)
        values = OmegaConf.to_container(OmegaConf.create(text) if text.strip() else OmegaConf.create({}), resolve=False)
        if not isinstance(values, Mapping):
            return values
        return with_own_references({str(key): value for key, value in values.items()})
    except Exception as error:  # the readers of YAML raise exceptions of many kinds on a damaged file
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"{path} is not a preset: {line[:200]}. Fix the file, or use one of "
            f"{', '.join(preset_names(family.presets))}"
        ) from None


def _plain(values: Any) -> Any:
    if not hasattr(values, "_metadata"):
        return values
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        # An interpolation in a part can use keys outside of it, so the whole file is resolved.
        refuse_resolvers(OmegaConf.to_container(values._get_root(), resolve=False))
        return OmegaConf.to_container(values, resolve=True)
    except (OmegaConfBaseException, ValueError, RecursionError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"the settings cannot be read: {line[:200]}") from None


def _mapping(where: str, values: Any, family: Family) -> Mapping[str, Any]:
    values = _plain(values)
    if isinstance(values, bool) and where in family.registry:
        return _switched(family.registry[where].config, values)
    if not isinstance(values, Mapping):
        raise UserError(
            f"{where} is {short(values)}: key: value pairs are needed, for instance {where}: {{enabled: true}}"
        )
    return cast(Mapping[str, Any], values)


def _switched(config: type[TechniqueConfig], on: bool) -> dict[str, Any]:
    switches = {field.name: field.default for field in dataclasses.fields(config)}
    if "enabled" in switches:
        return {"enabled": on}
    return {name: default if on else False for name, default in switches.items()}


def _override(key: str, value: Any, family: Family) -> dict[str, dict[str, Any]]:
    group, _, name = key.partition(".")
    return {group: {name: value}} if name else {group: dict(_mapping(group, value, family))}


def _settings(group: str, values: Mapping[str, Any], family: Family) -> TechniqueConfig:
    kind = family.registry[group].config
    fields = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        if key not in fields:
            name = str(key)[:80]
            raise UserError(f"unknown key {group}.{name}{suggested_ending(name, fields, prefix=f'{group}.')}")
    return kind(**values)
