"""Describes a run, as plain values for report.json and as a table for people."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastsam3d.basics.version import __version__
from fastsam3d.diffusion.report import Report, savings_lines
from fastsam3d.jobs.request import Request, as_plain

if TYPE_CHECKING:
    from fastsam3d.basics.threads.adaptation import AdaptedThreads
    from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction

REPORT = "report.json"
STAGE_NAMES = {
    "preprocess": "preprocessing",
    "ss_condition": "image encoder, structure",
    "sparse_structure": "sparse structure",
    "ss_decode": "structure decoder",
    "slat_condition": "image encoder, latents",
    "structured_latent": "structured latents",
    "mesh_decode": "mesh decoder",
    "surface": "surface extraction",
    "gaussian_decode": "Gaussian decoder",
    "picture_colors": "colours of the picture",
}


def versions() -> dict[str, str]:
    """Returns the versions of the software that the result depends on."""
    import numpy
    import torch

    return {
        "fastsam3d": __version__,
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def device_name(device: Any, threads: AdaptedThreads | None = None) -> str:
    """Returns a description of the device for people.

    Args:
        threads: the threads that a job used; None: PyTorch's present number.
    """
    import torch

    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    least, most = (threads.least, threads.most) if threads else (torch.get_num_threads(),) * 2
    number = str(most) if least == most else f"{least} to {most}"
    return f"{device} ({number} thread{'s' if most != 1 else ''})"


def describe(result: Reconstruction) -> dict[str, Any]:
    """Returns the size and the pose of one object."""
    structure = result.structure
    described: dict[str, Any] = {
        "voxels": len(structure.coords),
        "seed": result.seed,
        "pose": result.pose.to_dict() if result.has_layout else None,
        "stage_seconds": dict(result.stage_seconds),
    }
    if result.mesh is not None:
        described |= {"vertices": len(result.mesh.vertices), "faces": len(result.mesh.faces)}
    if result.gaussian is not None:
        described["gaussians"] = len(result.gaussian)
    if result.projection is not None:
        described["outline_iou"] = round(result.projection.agreement, 3)
        described["picture_colors"] = result.projection.fits
    return described


def build_report(
    request: Request,
    device: str,
    inputs: Mapping[str, Any],
    objects: Sequence[Mapping[str, Any]],
    acceleration: Report,
    seconds: Mapping[str, float],
    warnings: Sequence[str],
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """Builds the report of a job.

    Args:
        inputs: files that were read.
        objects: the description of each object, see `describe`, with its name and files.
        seconds: wall-clock seconds of loading, running and writing.
        more: further entries, after the objects.
    """
    return {
        "model": request.model,
        "preset": acceleration.preset,
        "changed": list(request.changed),
        "seed": request.seed,
        "device": device,
        "inputs": dict(inputs),
        "objects": [dict(item) for item in objects],
        **more,
        "acceleration": acceleration.to_dict(),
        "seconds": dict(seconds),
        "peak_memory_bytes": acceleration.peak_memory_bytes,
        "warnings": list(warnings),
        "versions": versions(),
        "settings": as_plain(request),
    }


def render(report: Mapping[str, Any]) -> str:
    """Returns the report as text: a header, the stages, the objects, the device and the versions."""
    acceleration = report["acceleration"]
    changed = f" with {', '.join(report['changed'])}" if report["changed"] else ""
    lines = [
        f"{report['model']} · {report['preset']}{changed} · seed {report['seed']} · {report['device']}",
        "",
        *_stages(acceleration),
        "",
    ]
    facts = [(str(item["name"]), _object(item)) for item in report["objects"]]
    if "scene" in report:
        facts.append(("scene", _scene(report["scene"])))
    if acceleration["voxels_before"] and acceleration["voxels_after"] != acceleration["voxels_before"]:
        before, after = acceleration["voxels_before"], acceleration["voxels_after"]
        facts.append(("voxels", f"{before:,} merged to {after:,} ({after / before:.0%})"))
    facts += savings_lines(acceleration["savings"])
    facts += [("note", text) for text in acceleration["notes"]]
    seconds, found = report["seconds"], report["versions"]
    whole = f"{seconds['run']:.2f} s run, {seconds['load']:.2f} s loading, {seconds['write']:.2f} s writing"
    facts.append(("wall clock", whole))
    if report["peak_memory_bytes"]:
        kind = "of the device" if report["device"].startswith("cuda") else "of the process"
        facts.append(("peak memory", f"{report['peak_memory_bytes'] / 2**20:,.0f} MiB {kind}"))
    facts.append(("versions", f"fastsam3d {found['fastsam3d']}, torch {found['torch']}, Python {found['python']}"))
    width = max(len(label) for label, _ in facts)
    return "\n".join([*lines, *(f"{label:<{width}}   {text}" for label, text in facts)])


def _stages(acceleration: Mapping[str, Any]) -> list[str]:
    total = sum(acceleration["seconds"].values()) or 1.0
    rows = []
    for name, seconds in acceleration["seconds"].items():
        row = [STAGE_NAMES.get(name, name), f"{seconds:.3f}", f"{seconds / total:.0%}", "", "", ""]
        stage = acceleration["stages"].get(name)
        if stage is not None:
            kept = f"{stage['tokens_kept']:.0%}" if stage["tokens_possible"] else "100%"
            row[3:] = [str(stage["evaluations"]), str(stage["forecast"]), kept]
        rows.append(row)
    stages = acceleration["stages"].values()
    computed, forecast = sum(s["evaluations"] for s in stages), sum(s["forecast"] for s in stages)
    rows.append(["total", f"{total:.3f}", "", str(computed), str(forecast), ""])
    head = ["stage", "seconds", "share", "computed", "forecast", "tokens kept"]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "   ".join(cells).rstrip()

    rule = "─" * (sum(widths) + 3 * (len(widths) - 1))
    # A header above the two middle columns says what they count.
    start = sum(widths[:3]) + 9
    width = widths[3] + 3 + widths[4]
    above = " " * start + "network runs".center(width).rstrip()
    return [above, line(head), rule, *map(line, rows[:-1]), rule, line(rows[-1])]


def _scene(scene: Mapping[str, Any]) -> str:
    parts = [f"{scene['objects']} objects"]
    if scene["resumed"]:
        parts.append(f"{len(scene['resumed'])} of them from an interrupted run")
    if scene["seconds_per_object"] is not None:
        parts.append(f"{scene['seconds_per_object']:.2f} s each")
    if scene["batch"] > 1:
        parts.append(f"picture prepared once, first stage for up to {scene['batch']} at a time")
    parts.append(f"camera of {scene['camera']['field_of_view']:.0f} degrees, {scene['camera']['source']}")
    return ", ".join(parts)


def _object(item: Mapping[str, Any]) -> str:
    if "error" in item:
        return f"failed: {item['error']}"
    sizes = [f"{item['voxels']:,} voxels"]
    if "faces" in item:
        sizes = [f"{item['faces']:,} faces", f"{item['vertices']:,} vertices", *sizes]
    if "gaussians" in item:
        sizes.append(f"{item['gaussians']:,} Gaussians")
    sizes.append(f"{sum(item['stage_seconds'].values()):.2f} s")
    if "exported" in item:
        sizes[0] = f"{item['exported']['faces']:,} faces (of {item['faces']:,})"
        sizes[1] = f"{item['exported']['vertices']:,} vertices (of {item['vertices']:,})"
    if "mask_iou" in item:
        sizes.append(f"mask IoU {item['mask_iou']:.2f}")
    if "marked" in item:
        sizes.append(f"{_marked(item['marked'])}, saved as {item['files']['mask']}")
    return ", ".join(sizes)


def _marked(marks: Mapping[str, Any]) -> str:
    """Says in words how the mask was made."""
    if "box" not in marks:
        return "mask proposed (--all)"
    parts = ["a box"] if marks["box"] else []
    if count := len(marks["points"]):
        parts.append(f"{count} point{'s' * (count > 1)}")
    return f"mask made by {' and '.join(parts)}"
