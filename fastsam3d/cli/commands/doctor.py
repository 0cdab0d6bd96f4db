"""`doctor`: tells what is installed, what each missing piece costs, and whether a checkpoint folder is whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastsam3d.basics.options import describe_options, option, optional_text, parse_options
from fastsam3d.cli import doctor_checks
from fastsam3d.cli.console import say
from fastsam3d.cli.flags import asks_for_help, wrapped
from fastsam3d.jobs.output_folder import json_text

COMMAND = "python -m fastsam3d doctor"
NOT_WHOLE = 1
"""Exit code where the checkpoint folder that was named cannot be loaded."""
WIDTH = 100


@dataclass(frozen=True)
class Options:
    """Settings of the command."""

    checkpoint_dir: str | None = option(None, optional_text, "folder of official weights to be checked; null: none")
    model: str = option("sam3d", str, "the model that the folder is for, and whose memory is counted")


def main(words: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
        UserError: an unknown key, model or folder.
    """
    if asks_for_help(words):
        say(
            f"{describe_options(Options, COMMAND)}\n  --json{'':34}print it as JSON\n\n"
            "Looks at what is installed without importing it, and at checkpoint files without loading them.\n"
            "Exit codes: 0 nothing to complain of, 1 the checkpoint folder cannot be loaded, 2 unusable settings.\n"
        )
        return 0
    as_json = "--json" in words
    options = parse_options(Options, [word for word in words if word != "--json"], COMMAND)
    report = examine(options)
    say(json_text(report) if as_json else render(report) + "\n")
    found = report["checkpoint"]
    return NOT_WHOLE if found is not None and not found["whole"] else 0


def examine(options: Options) -> dict[str, Any]:
    """The whole report as plain values.

    Raises:
        UserError: an unknown model or folder.
    """
    from fastsam3d.sam3d.checkpoints.loading import model_config

    config = model_config(options.model)
    networks = doctor_checks.networks_on_meta(config)
    directory = options.checkpoint_dir
    return {
        "environment": doctor_checks.environment(),
        "packages": doctor_checks.packages(),
        "upstream_differences": doctor_checks.upstream_differences(),
        "model": options.model,
        "parameters": doctor_checks.weights(networks),
        "memory": doctor_checks.memory(config),
        "checkpoint": None if directory is None else doctor_checks.checkpoint(directory, config, networks),
    }


def render(report: Mapping[str, Any]) -> str:
    """The report as text."""
    sections = [
        _environment(report["environment"]),
        _packages("packages", [p for p in report["packages"] if not p["upstream"]]),
        _packages(
            "for the official pipelines, where they are accelerated in place",
            [p for p in report["packages"] if p["upstream"]],
        ),
        _upstream(report["upstream_differences"]),
        _checkpoint(report["checkpoint"]),
        _memory(report["model"], report["parameters"], report["memory"], report["environment"]["devices"]),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _environment(found: Mapping[str, Any]) -> list[str]:
    cuda = f"built for CUDA {found['cuda_of_torch']}" if found["cuda_of_torch"] else "built without CUDA"
    lines = [
        f"fastsam3d {found['fastsam3d']}, Python {found['python']}, {found['platform']}",
        f"PyTorch {found['torch']}, {cuda}; Hydra {found['hydra']}",
    ]
    if found["hydra_patch"]:
        lines[-1] += f" ({found['hydra_patch']})"
    for device in found["devices"]:
        half = "" if device["bfloat16"] else ", no bfloat16: use precision=float16"
        size = _size(device["memory_bytes"])
        lines.append(f"device: {device['name']}, {size}, capability {device['capability']}{half}")
    if not found["devices"]:
        lines.append("device: cpu. No CUDA device: model=mini runs, an object of model=sam3d takes hours")
    return [*lines, _processor(found["processor"])]


def _processor(found: Mapping[str, Any]) -> str:
    quota = "no quota" if found["quota"] is None else f"quota of {found['quota']:g} cores"
    threads = f"{found['threads']} on an idle machine"
    if found["free_cores"] is not None:
        threads += f", {found['threads_now']} now, with {found['free_cores']:.1f} of {found['cores']} cores free"
    return f"threads: {threads}; {quota}; waiting: {found['waiting']}"


def _packages(title: str, found: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [title]
    width = max(len(package["module"]) for package in found)
    for package in found:
        how = f" (pip install 'fastsam3d[{package['extra']}]')" if package["extra"] else ""
        text = package["version"] or f"missing: {package['without']}{how}"
        lines.append(f"  {package['module']:<{width}}  {text}")
    return lines


def _upstream(differences: Sequence[str] | None) -> list[str]:
    if differences is None:
        return []
    if not differences:
        return ["sam3d_objects has every name that acceleration attaches to"]
    return ["sam3d_objects differs from what acceleration knows:", *(f"  {line}" for line in differences)]


def _checkpoint(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return ["checkpoint: none was named (checkpoint_dir=DIR)"]
    lines = [f"checkpoint {found['folder']}: {'whole' if found['whole'] else 'CANNOT BE LOADED'}"]
    width = max(len(file["network"]) for file in found["files"])
    for file in found["files"]:
        size = "" if file["bytes"] is None else f"{_size(file['bytes']):>9}"
        tensors = "" if file["tensors"] is None else f"{file['tensors']:>6} tensors"
        lines.append(f"  {file['network']:<{width}}  {size}{tensors}".rstrip())
        if file["problem"]:
            lines.append(wrapped(file["problem"], WIDTH, "      "))
    settings = found["settings"]
    if settings["problem"]:
        lines.append(wrapped(settings["problem"], WIDTH, "  "))
    elif not settings["found"]:
        lines.append(f"  no {settings['file']}: the settings of configs/model are used")
    elif settings["differences"]:
        names = ", ".join(settings["differences"])
        lines.append(f"  {settings['file']} sets {names} otherwise than configs/model; its values are used")
    else:
        lines.append(f"  {settings['file']} agrees with configs/model")
    return lines


def _memory(
    model: str,
    parameters: Mapping[str, int],
    entries: Sequence[Mapping[str, Any]],
    devices: Sequence[Mapping[str, Any]],
) -> list[str]:
    from fastsam3d.jobs.report import STAGE_NAMES

    count = sum(parameters.values())
    lines = [
        f"memory on the device for an object of {entries[0]['voxels']:,} voxels, model={model}",
        f"({count / 1e9:.2f} billion parameters: {_size(4 * count)} in float32, {_size(2 * count)} in half precision)",
        f"  {'memory=':<9}{'precision=':<19}{'all formats':>12}{'[gaussian]':>12}   {'weights':<26}largest stage",
    ]
    for entry in entries:
        head = f"  {entry['memory']:<9}{entry['precision'].replace('float16', 'float16, bfloat16'):<19}"
        if entry["refused"]:
            lines.append(f"{head}{'refused: an object does not fit':>32}")
            continue
        gaussian = "-" if entry["gaussian_bytes"] is None else _size(entry["gaussian_bytes"])
        where = "on the device" if entry["weights"] == "device" else "on the host till used"
        stage = STAGE_NAMES.get(entry["largest"], entry["largest"])
        lines.append(f"{head}{_size(max(entry['bytes'].values())):>12}{gaussian:>12}   {where:<26}{stage}")
    lines.append("  Counted, not measured, for the preset that needs most; --json has every preset.")
    for device in devices:
        fitting = [
            f"memory={entry['memory']} precision={entry['precision']}"
            for entry in entries
            if not entry["refused"] and max(entry["bytes"].values()) <= 0.95 * device["memory_bytes"]
        ]
        lines.append(f"  {device['name']}: {fitting[0] if fitting else 'too small for this model'}")
    return lines


def _size(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
