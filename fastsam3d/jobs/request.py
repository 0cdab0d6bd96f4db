"""Requests of jobs: the checked settings of one object or of one scene."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

from fastsam3d.acceleration.presets import AccelerationConfig, load_preset
from fastsam3d.basics.config_files import config_directory, model_names
from fastsam3d.basics.pixels import SEEDS
from fastsam3d.basics.suggestions import suggestion
from fastsam3d.errors import UserError
from fastsam3d.jobs.reading.markers import MarkerChoice, marker_of
from fastsam3d.jobs.reading.marks import Marks, marks_of
from fastsam3d.sam3d.pipeline.formats import FORMATS

if TYPE_CHECKING:
    from fastsam3d.sam3d.pipeline.pipeline import Pipeline

PRECISIONS = ("float32", "bfloat16", "float16")
MEMORY = ("none", "8gb", "12gb", "24gb")
"""As in `fastsam3d.sam3d.memory.budget.BUDGETS`; importing that module would load the networks."""
DEPTHS = ("none", "moge")
SAMPLERS = ("ss_sampler", "slat_sampler")
"""Parts of a model's configuration that can be changed: all others are the sizes of its weights."""


@dataclass(frozen=True)
class Request:
    """Settings of a job; the keys of `configs/config.yaml`. See `request_with` and `request_from`.

    Attributes:
        marks: values of the keys box, point and all.
        marker: values of the keys marker, sam_checkpoint and sam_model.
        samplers: values of `model.ss_sampler` and `model.slat_sampler`.
        acceleration: the preset with its changes.
        given: keys that the user gave, such as `model.ss_sampler.strength`; others have their defaults.
        changed: changed values of preset and model, as `key=value`.
        warnings: advice about the settings.
    """

    image_path: str | None
    image_dir: str | None
    mask_index: int
    mask_path: str | None
    masks: str | None
    marks: Marks
    marker: MarkerChoice
    pointmap: str
    depth: str
    depth_model: str | None
    output_dir: str
    name: str | None
    seed: int
    device: str
    threads: int | None
    precision: str
    memory: str
    formats: tuple[str, ...]
    layout: bool
    preview: bool
    preview_splats: bool
    export: tuple[str, ...]
    faces: int | None
    texture: int | None
    watertight: bool
    finish: bool
    turntable: bool
    batch: int | None
    resume: bool
    checkpoint_dir: str | None
    random_weights: bool
    model: str
    samplers: dict[str, dict[str, Any]]
    acceleration: AccelerationConfig
    given: frozenset[str]
    changed: tuple[str, ...]
    warnings: tuple[str, ...]

    def device_name(self) -> str:
        """Returns the device to run on; chooses one for `auto`."""
        import torch

        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def load(self) -> Pipeline:
        """Builds the pipeline. Sampler settings that the user did not give come from the checkpoint folder.

        Raises:
            UserError: the device does not exist, or weights are missing or do not fit.
        """
        from fastsam3d.sam3d.checkpoints.loading import load_pipeline

        pipeline = load_pipeline(
            self.model,
            device=self.device_name(),
            checkpoint_dir=self.checkpoint_dir,
            random_weights=self.random_weights,
            formats=self.formats,
            precision=self.precision,
            memory=self.memory,
        )
        for part, values in self.samplers.items():
            generator = pipeline.models[part.replace("_sampler", "_generator")]
            own = (("inference_steps", generator), ("rescale_t", generator))
            for key, owner in (*own, ("strength", generator.reverse_fn), ("interval", generator.reverse_fn)):
                if f"model.{part}.{key}" in self.given:
                    setattr(owner, key, tuple(values[key]) if key == "interval" else values[key])
                # The report shows the settings that are used.
                value = getattr(owner, key)
                values[key] = list(value) if key == "interval" else value
        return pipeline


def request_with(
    model: str = "mini",
    acceleration: Any = "off",
    samplers: Mapping[str, Mapping[str, Any]] | None = None,
    **values: Any,
) -> Request:
    """Makes the request of a Python program: the defaults of `configs/config.yaml`, with the given changes.

    Args:
        model: name of a file of `configs/model`.
        acceleration: as `fastsam3d.accelerate` takes it: a preset's name, a file, a mapping or a configuration.
        samplers: changes by part and key, for instance `{"ss_sampler": {"inference_steps": 12}}`.
        values: attributes of `Request`, checked like those of the command line.

    Raises:
        UserError: an unknown key, model or preset, or a value that cannot be used.
    """
    from omegaconf import OmegaConf

    if model not in model_names():
        raise UserError(f"unknown model model={model}. {suggestion(model, model_names())}")
    folder = config_directory()
    composed: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=True)
    del composed["defaults"]
    composed["model"] = OmegaConf.to_container(OmegaConf.load(folder / "model" / f"{model}.yaml"), resolve=True)
    changes = {(part, key): value for part, own in (samplers or {}).items() for key, value in own.items()}
    known = {part: composed["model"][part] for part in SAMPLERS}
    unknown = [key for key in values if key not in composed]
    unknown += [f"{part}.{key}" for part, key in changes if key not in known.get(part, ())]
    if unknown:
        raise UserError(f"unknown key {unknown[0]!r}. {suggestion(unknown[0], composed)}")
    for (part, key), value in changes.items():
        known[part][key] = value
    given = {*values, *(f"model.{part}.{key}" for part, key in changes)}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    config = load_preset(acceleration)
    return request_from(composed | plain, config, given=given, warnings=config.warnings())


def request_from(
    values: Mapping[str, Any],
    acceleration: AccelerationConfig,
    *,
    given: Iterable[str] = (),
    changed: Iterable[str] = (),
    warnings: Iterable[str] = (),
) -> Request:
    """Checks settings.

    Args:
        values: every key of `configs/config.yaml`, as nested plain values.
        given, changed, warnings: see `Request`.

    Raises:
        UserError: a value of the wrong kind or out of range.
    """
    formats = values["formats"]
    formats = [formats] if isinstance(formats, str) else formats
    if not isinstance(formats, list) or not formats or not set(map(str, formats)) <= set(FORMATS):
        raise UserError(f"formats={values['formats']} is not possible: give [mesh], [gaussian] or [mesh,gaussian].")
    return Request(
        image_path=_text(values, "image_path"),
        image_dir=_text(values, "image_dir"),
        mask_index=_whole(values, "mask_index", 10**9),
        mask_path=_text(values, "mask_path"),
        masks=_text(values, "masks"),
        marks=marks_of(values),
        marker=marker_of(values),
        pointmap=_text(values, "pointmap") or "none",
        depth=_choice(values, "depth", DEPTHS),
        depth_model=_text(values, "depth_model"),
        output_dir=_output_dir(values),
        name=_name(values),
        seed=_whole(values, "seed", SEEDS - 1),
        device=_text(values, "device") or "auto",
        threads=None if values["threads"] == "auto" else _optional_whole(values, "threads", 1, 1024),
        precision=_choice(values, "precision", PRECISIONS),
        memory=_choice(values, "memory", MEMORY),
        formats=tuple(dict.fromkeys(formats)),
        layout=_switch(values, "layout"),
        preview=_switch(values, "preview"),
        preview_splats=_switch(values, "preview_splats"),
        export=_exports(values),
        faces=_optional_whole(values, "faces", 4, 10**8),
        texture=_optional_whole(values, "texture", 16, 8192),
        watertight=_switch(values, "watertight"),
        finish=_switch(values, "finish"),
        turntable=_switch(values, "turntable"),
        batch=_optional_whole(values, "batch", 1, 1024),
        resume=_switch(values, "resume"),
        checkpoint_dir=_text(values, "checkpoint_dir"),
        random_weights=_switch(values, "random_weights"),
        model=values["model"]["name"],
        samplers={part: _sampler(part, values["model"][part]) for part in SAMPLERS},
        acceleration=acceleration,
        given=frozenset(given),
        changed=tuple(changed),
        warnings=tuple(warnings),
    )


def as_plain(request: Request) -> dict[str, Any]:
    """Returns the settings as nested plain values, for the report."""
    plain = {
        field.name: getattr(request, field.name)
        for field in dataclasses.fields(request)
        if field.name not in ("acceleration", "marks", "marker", "warnings", "changed", "given")
    }
    plain |= {"formats": list(request.formats), "export": list(request.export)}
    plain |= request.marks.settings() | request.marker.settings()
    return plain | {"acceleration": request.acceleration.to_dict()}


def _text(values: Mapping[str, Any], key: str) -> str | None:
    value = values[key]
    # For instance from a shell variable that is not set. Without it another picture or mask would be used.
    if value is not None and not str(value).strip():
        raise UserError(f"{key} is empty. Give a value, or leave it out.")
    return None if value is None else str(value)


def _output_dir(values: Mapping[str, Any]) -> str:
    if not str(values["output_dir"] or "").strip():
        raise UserError("--output_dir is empty. Give a folder; . is the present one.")
    return str(values["output_dir"])


def _name(values: Mapping[str, Any]) -> str | None:
    name = _text(values, "name")
    if name is not None and (name in (".", "..") or any(sign in name for sign in "/\\\0")):
        raise UserError(f"name={name} is no file name; give the folder as output_dir.")
    return name


def _whole(values: Mapping[str, Any], key: str, high: int, low: int = 0) -> int:
    value = values[key]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value <= high:
        raise UserError(f"{key} is {value}: a whole number from {low} to {high} is needed.")
    return int(value)


def _optional_whole(values: Mapping[str, Any], key: str, low: int, high: int) -> int | None:
    return None if values[key] is None else _whole(values, key, high, low)


def _exports(values: Mapping[str, Any]) -> tuple[str, ...]:
    from fastsam3d.meshes.formats import written_formats

    known = [each.name for each in written_formats()]
    given = values["export"]
    names = [given] if isinstance(given, str) else given
    names = [str(name).lower() for name in names] if isinstance(names, list) else names
    if not isinstance(names, list) or not names or not set(map(str, names)) <= set(known):
        shown = ",".join(map(str, names)) if isinstance(names, list) else names
        raise UserError(f"export {shown or 'of nothing'} is not possible: give some of {', '.join(known)}.")
    return tuple(dict.fromkeys(names))


def _switch(values: Mapping[str, Any], key: str) -> bool:
    if not isinstance(values[key], bool):
        raise UserError(f"{key}={values[key]} is not possible: give true or false.")
    return values[key]


def _choice(values: Mapping[str, Any], key: str, choices: Sequence[str]) -> str:
    if values[key] not in choices:
        raise UserError(f"{key}={values[key]} is not possible. {suggestion(str(values[key]), choices)}")
    return values[key]


def _sampler(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    steps, interval = values["inference_steps"], values["interval"]
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= 1000:
        raise UserError(f"model.{part}.inference_steps is {steps}: a whole number from 1 to 1000 is needed.")
    for key, low, high in (("rescale_t", 0.05, 100.0), ("strength", 0.0, 100.0)):
        if not _is_number(values[key]) or not low <= values[key] <= high:
            raise UserError(f"model.{part}.{key} is {values[key]}: a number from {low} to {high} is needed.")
    numbers = interval if isinstance(interval, list) and all(_is_number(v) for v in interval) else []
    if len(numbers) != 2 or not 0 <= numbers[0] <= numbers[1] <= 1000:
        raise UserError(
            f"model.{part}.interval is {interval}: two numbers from 0 to 1000 are needed, the smaller first: [0,500]."
        )
    return dict(values)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
