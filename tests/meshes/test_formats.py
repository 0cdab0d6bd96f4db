"""The registry of file formats: what it knows, what it refuses, and a format that a module outside the package adds."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from known_shapes import cube

import fastsam3d
from fastsam3d.errors import UserError
from fastsam3d.meshes.formats import (
    FACES,
    GAUSSIANS,
    OBJECT_UNITS,
    POINTS,
    Y_UP,
    Z_UP,
    MeshFormat,
    format_to_read,
    format_to_write,
    mesh_formats,
    read_formats,
    register_format,
    registry,
    suffix_list,
    written_formats,
)
from fastsam3d.meshes.reading import read_model, read_up
from fastsam3d.meshes.writing import export_gaussians, export_mesh

OFF = Path(__file__).resolve().parents[1] / "helpers" / "off_format.py"


@pytest.fixture
def own_registry(monkeypatch):
    """Formats that a test registers are gone after it."""
    mesh_formats()
    monkeypatch.setattr(registry, "_FORMATS", dict(registry._FORMATS))
    monkeypatch.setattr(registry, "_REPLACED", set(registry._REPLACED))


def encode_nothing(mesh, name) -> bytes:
    return b"nothing"


def test_the_formats_of_the_package():
    assert [each.suffix for each in mesh_formats()] == [".glb", ".obj", ".stl", ".ply", ".splat", ".splats"]
    assert written_formats() == mesh_formats() and read_formats() == mesh_formats()[:-2]
    assert [each.axes["up"] for each in mesh_formats()] == ["+y", "+y", "+z", "+z", "+z", "+y"]
    assert suffix_list(read_formats()) == ".glb, .obj, .stl or .ply"
    assert [each.ending for each in mesh_formats()][-3:] == [".ply", ".splat", "_splats.glb"]
    assert suffix_list(mesh_formats()[:1]) == ".glb"
    assert format_to_write("A/B.GLB") is format_to_read("b.glb") is mesh_formats()[0]


@pytest.mark.parametrize(
    ("name", "mesh_alone", "gaussians_alone", "both"),
    [("glb", FACES, None, FACES), ("stl", FACES, None, FACES), ("ply", POINTS, GAUSSIANS, GAUSSIANS)],
)
def test_what_a_file_holds_of_a_result(name, mesh_alone, gaussians_alone, both):
    known = format_to_write(f"x.{name}")
    assert known.content(True, False) == mesh_alone
    assert known.content(False, True) == gaussians_alone
    assert known.content(True, True) == both
    assert known.content(False, False) is None


def test_looking_formats_up_imports_neither_pytorch_nor_trimesh():
    code = (
        "import sys\n"
        "import fastsam3d.meshes.formats as formats\n"
        "assert 'numpy' not in sys.modules and not [m for m in sys.modules if m.endswith('formats.glb')]\n"
        "assert len(formats.mesh_formats()) == 6\n"
        "assert not {'torch', 'trimesh', 'PIL', 'scipy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=OFF.parents[2], check=True, timeout=60)


def test_a_module_outside_the_package_adds_a_format(own_registry, tmp_path):
    with pytest.raises(UserError, match="no known suffix"):
        export_mesh(cube(), tmp_path / "thing.off")
    runpy.run_path(str(OFF))
    assert suffix_list(read_formats()) == ".glb, .obj, .off, .stl or .ply"
    mesh = cube()
    result = SimpleNamespace(mesh=mesh, gaussian=None)
    path = fastsam3d.export(result, tmp_path / "thing.off")
    assert np.allclose(trimesh.load(path, process=False).vertices, mesh.vertices, atol=1e-6)
    ((name, read),) = read_model(path)
    assert name == "thing" and np.array_equal(read.faces, mesh.faces)
    assert np.allclose(read.vertices, mesh.vertices, atol=1e-6)
    assert read_up(path) is None
    path.write_text("PNG")
    with pytest.raises(UserError, match=r"thing\.off cannot be read: it does not start with OFF"):
        read_model(path)


def test_files_beside_a_mesh_are_written_with_it(own_registry, tmp_path):
    register_format(
        MeshFormat(
            ".two",
            Y_UP,
            "none",
            encode_mesh=lambda mesh, name: f"{name}: {len(mesh.faces)}".encode(),
            encode_companions=lambda mesh, name: {".side": name.encode()},
            units="millimetres",
        )
    )
    assert export_mesh(cube(), tmp_path / "a.two").read_bytes() == f"a: {len(cube().faces)}".encode()
    assert (tmp_path / "a.side").read_bytes() == b"a"
    assert format_to_write("a.two").described() == {**Y_UP, "colours": "none", "units": "millimetres"}
    assert "units" not in format_to_write("a.glb").described()
    assert "layout.json" in OBJECT_UNITS
    with pytest.raises(UserError, match="cannot be shown"):
        read_model(tmp_path / "a.two")


def test_a_format_for_gaussians_alone(own_registry, tmp_path):
    register_format(MeshFormat(".blobs", Z_UP, "sRGB", encode_gaussians=lambda gaussian: b"splats"))
    both = SimpleNamespace(mesh=cube(), gaussian=object())
    assert fastsam3d.export(both, tmp_path / "a.blobs").read_bytes() == b"splats"
    with pytest.raises(UserError, match=r"a\.blobs needs Gaussians.*gaussian"):
        fastsam3d.export(SimpleNamespace(mesh=cube(), gaussian=None), tmp_path / "a.blobs")
    with pytest.raises(UserError, match=r"a\.glb needs a mesh.*mesh"):
        fastsam3d.export(SimpleNamespace(mesh=None, gaussian=object()), tmp_path / "a.glb")
    with pytest.raises(UserError, match="cannot hold a mesh"):
        export_mesh(cube(), tmp_path / "a.blobs")
    with pytest.raises(UserError, match="cannot hold Gaussians"):
        export_gaussians(object(), tmp_path / "a.glb")


def test_unusable_registrations_are_refused(own_registry):
    with pytest.raises(ValueError, match=r"'\.GLB' must be a dot with lower-case"):
        register_format(MeshFormat(".GLB", Y_UP, "none", encode_mesh=encode_nothing))
    with pytest.raises(ValueError, match="'off' must be a dot"):
        register_format(MeshFormat("off", Y_UP, "none", encode_mesh=encode_nothing))
    with pytest.raises(ValueError, match="no function that writes or reads"):
        register_format(MeshFormat(".off", Y_UP, "none"))
    with pytest.raises(ValueError, match="registered already"):
        register_format(MeshFormat(".glb", Y_UP, "none", encode_mesh=encode_nothing))


def test_a_replacement_holds_whichever_is_registered_first(own_registry):
    own = MeshFormat(".glb", Y_UP, "none", encode_mesh=encode_nothing)
    original = format_to_write("x.glb")
    register_format(own, replace=True)
    register_format(original)
    assert format_to_write("x.glb") is own
    register_format(own)
    assert format_to_write("x.glb") is own
