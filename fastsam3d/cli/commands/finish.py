"""`finish`: a clean, small, textured mesh from a file of a mesh, and of Gaussians where there are any."""

from __future__ import annotations

import json
from typing import Any

from fastsam3d.basics.paths import user_path
from fastsam3d.cli.console import Console, ShownWarnings, say
from fastsam3d.cli.flags import Parser, number, whole
from fastsam3d.errors import UserError


def main(words: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
        UserError: a file cannot be read, a value is out of range, a package is missing, or nothing can be written.
    """
    given = _parser().parse_args(words)
    path = user_path(given.file)
    gaussians = user_path(given.gaussians) if given.gaussians else None
    output = user_path(given.output) if given.output else path.with_name(f"{path.stem}_finished.glb")
    for read in (path, gaussians):
        if read is not None and output.exists() and read.exists() and output.samefile(read):
            raise UserError(f"--output {output} would be written over a file that is read: give another name.")
    # Imported once the flags are known to be usable: these import PyTorch, which takes seconds.
    from fastsam3d.meshes.finishing.finishing import finish
    from fastsam3d.meshes.formats import format_to_write
    from fastsam3d.meshes.writing import check_compressed

    format_to_write(output)
    check_compressed(output, given.compress)
    console = Console(given.quiet)
    with ShownWarnings(), console.progress():
        finished = finish(
            path,
            gaussians=gaussians,
            faces=given.faces or None,
            texture=given.texture or None,
            watertight=given.watertight,
            loose=given.loose,
            colors=given.colors,
            normal_map=given.normal_map,
            device=given.device,
            budget=given.budget,
            step=lambda name, done, total: console.step(name, done, total),
        )
        report: dict[str, Any] = {"facts": finished.facts, "seconds": finished.seconds}
        if given.quality:
            from fastsam3d.evaluation.quality.finished import quality_of
            from fastsam3d.meshes.finishing.sources import source_of

            report["quality"] = quality_of(finished.mesh, source_of(path, gaussians))
        written = finished.save(output, given.compress)
    if given.json:
        say(json.dumps({"written": str(written), **report}, indent=1) + "\n")
    else:
        say(_text(report) + f"written: {written}\n")
    return 0


def _text(report: dict[str, Any]) -> str:
    facts, seconds = report["facts"], report["seconds"]
    lines = [
        f"{facts['faces_before']:,} faces -> {facts['faces']:,}; colours from {facts['colors']}, "
        f"{100 * facts['covered']:.1f} % of them its own; {'' if facts['watertight'] else 'not '}watertight",
        ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()),
    ]
    if "quality" in report:
        lines.append(", ".join(f"{name} {value:.4g}" for name, value in report["quality"].items()))
    return "".join(f"{line}\n" for line in lines)


def _parser() -> Parser:
    from fastsam3d.meshes.formats import read_formats, suffix_list, written_formats

    parser = Parser(
        prog="python -m fastsam3d finish",
        description="Makes a clean, small, textured mesh of a file. Colours come from Gaussians, from the full "
        "surface, or from a texture that it has. Nothing is rendered for it.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("file", metavar="FILE", help=f"a mesh: {suffix_list(read_formats())} with faces")
    add("--gaussians", metavar="PLY", help="Gaussians of the same object (a 3DGS PLY file), to take the colours from")
    kinds = suffix_list([each for each in written_formats() if each.encode_mesh is not None])
    add("--output", metavar="FILE", help=f"{kinds} (default: FILE_finished.glb beside FILE)")
    add("--faces", type=whole, default=20_000, metavar="N", help="about so many faces (default 20000); 0 keeps all")
    add(
        "--texture", type=whole, default=1024, metavar="SIZE", help="side of the texture (default 1024); 0: at vertices"
    )
    add("--watertight", action="store_true", help="close all holes and not only small ones")
    add("--loose", type=number, default=0.01, metavar="X", help="drop pieces below this share of the largest's area")
    add(
        "--colors", default="auto", metavar="KIND", help="from gaussians, surface, or auto: the best there is (default)"
    )
    add("--normal-map", action="store_true", help="also bake the normals of the full surface into a picture")
    add("--device", metavar="NAME", help="cpu or cuda (default: cuda where there is one)")
    add("--budget", type=number, metavar="S", help="seconds after which the texels that are left are filled in")
    add("--compress", default="none", metavar="KIND", help="GLB only: quantize, or draco (package: draco)")
    add("--quality", action="store_true", help="compare pictures and surface before and after")
    add("--json", action="store_true", help="print the report as JSON and nothing else on stdout")
    add("--quiet", action="store_true", help="no progress; warnings remain")
    return parser
