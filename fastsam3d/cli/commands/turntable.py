"""`turntable`: views of a file from all sides, without a display."""

from __future__ import annotations

import sys

from fastsam3d.basics.paths import user_path
from fastsam3d.cli.console import ShownWarnings
from fastsam3d.cli.flags import Parser, whole
from fastsam3d.errors import UserError


def main(words: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
        UserError: the file cannot be read, has no faces, or the pictures cannot be written.
    """
    from fastsam3d.meshes.formats import read_formats, suffix_list

    parser = Parser(
        prog="python -m fastsam3d turntable",
        description="Draws an object or a scene from all sides: a strip of eight views (PNG) and an animation (GIF). "
        "Needs neither a display nor a graphics card.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "file", metavar="FILE", help=f"object or scene: {suffix_list(read_formats())} with faces, or Gaussians (PLY)"
    )
    parser.add_argument("--gaussians", metavar="PLY", help="draw the object's Gaussians above it, too")
    parser.add_argument("--output_dir", metavar="DIR", help="where the pictures go (default: beside the file)")
    parser.add_argument("--frames", type=whole, default=36, metavar="N", help="views of the animation (default 36)")
    parser.add_argument("--size", type=whole, default=256, metavar="N", help="side of a view in pixels (default 256)")
    given = parser.parse_args(words)
    for key, low, high in (("frames", 1, 360), ("size", 16, 2048)):
        if not low <= getattr(given, key) <= high:
            raise UserError(f"--{key} {getattr(given, key)} is not possible: give {low} to {high}.")
    from fastsam3d.meshes.reading import read_model, read_up
    from fastsam3d.meshes.splats.reading import holds_splats, read_splats
    from fastsam3d.meshes.turntable import levelled, write_turntable

    path = user_path(given.file)
    with ShownWarnings():
        meshes = [mesh for _, mesh in read_model(path) if not mesh.is_empty]
    splats = read_splats(given.gaussians) if given.gaussians else None
    if not meshes and splats is None and path.suffix.lower() == ".ply" and holds_splats(path):
        splats = read_splats(path)
    if not meshes and splats is None:
        raise UserError(f"{path} holds points only, which have no sides: look at it with python -m fastsam3d view.")
    meshes = levelled(meshes, read_up(path))  # a scene's file is in the frame of its photo's camera
    folder = user_path(given.output_dir) if given.output_dir else path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror or error}): choose another --output_dir.") from None
    for written in write_turntable(meshes, folder, path.stem, given.frames, given.size, splats):
        sys.stdout.write(f"written: {written}\n")
    return 0
