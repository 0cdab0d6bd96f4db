"""A stand-in of Blender's Python interface, written from its documentation (docs.blender.org/api), for one add-on.

It keeps what the documentation says of registration, properties, matrices, modal operators and the glTF importer.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from fastsam3d.meshes.gltf_reading import read_glb


class Matrix:
    """`mathutils.Matrix`: made of rows."""

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        self.rows = np.array(rows, dtype=float)
        assert self.rows.shape == (4, 4)

    def __iter__(self) -> Any:
        return iter(self.rows.tolist())


class Item:
    """An object of the scene."""

    def __init__(self, name: str, kind: str, data: Any = None) -> None:
        self.name, self.type, self.data = name, kind, data
        self.bound_box: list[tuple[float, ...]] = []
        self.notes: dict[str, Any] = {}
        self._matrix = Matrix(np.eye(4))

    @property
    def matrix_world(self) -> Matrix:
        return self._matrix

    @matrix_world.setter
    def matrix_world(self, value: Matrix) -> None:
        assert isinstance(value, Matrix), "plain lists are read by columns"
        self._matrix = value

    def __setitem__(self, key: str, value: Any) -> None:
        self.notes[key] = value


class Collection(list):
    """`bpy.data.objects` and the like."""

    def __init__(self, make: Callable[..., Any]) -> None:
        super().__init__()
        self._make = make

    def new(self, *args: Any) -> Any:
        self.append(self._make(*args))
        return self[-1]

    def get(self, name: str) -> Any:
        return next((each for each in self if each.name == name), None)


class Picture:
    """An image datablock: its pixels are loaded at first use, and only a loaded one can be saved."""

    def __init__(self, path: str) -> None:
        with Image.open(path) as opened:
            self._pixels, self.size = opened.convert("RGB").copy(), opened.size
        self.name, self.filepath, self.filepath_raw, self.file_format = Path(path).name, path, path, "JPEG"
        self.has_data = False

    @property
    def pixels(self) -> list[float]:
        self.has_data = True
        return [0.0]

    def save(self) -> None:
        if not self.has_data:
            raise RuntimeError("Image does not have any image data")
        self._pixels.save(self.filepath_raw, format=self.file_format)


class StandIn:
    """Blender: `bpy` and `mathutils` for `sys.modules`, and the parts of a window that a test moves."""

    def __init__(self) -> None:
        self.bpy, self.mathutils = types.ModuleType("bpy"), types.ModuleType("mathutils")
        self.mathutils.Matrix = Matrix  # type: ignore[attr-defined]
        self.classes: list[type] = []
        self.handlers: list[Any] = []
        self.timers: list[Any] = []
        self.shown: list[str | None] = []
        property_of = lambda kind: lambda **options: (kind, options)  # noqa: E731
        kinds = ("String", "Enum", "IntVector", "Int", "Float", "Bool", "Pointer")
        self.bpy.props = SimpleNamespace(**{f"{kind}Property": property_of(kind) for kind in kinds})
        bases = ("AddonPreferences", "PropertyGroup", "Operator", "Panel", "Scene")
        self.bpy.types = SimpleNamespace(**{name: type(name, (), {}) for name in bases})
        self.bpy.types.SpaceImageEditor = SimpleNamespace(
            draw_handler_add=lambda draw, _args, _region, _when: self.handlers.append(draw) or draw,
            draw_handler_remove=lambda draw, _region: self.handlers.remove(draw),
        )
        self.bpy.utils = SimpleNamespace(register_class=self._register, unregister_class=self.classes.remove)
        self.bpy.path = SimpleNamespace(abspath=lambda path: path)
        self.bpy.app = SimpleNamespace(background=False, tempdir="")
        images = Collection(lambda path: Picture(path))
        images.load = lambda path, check_existing=False: images.new(path)  # type: ignore[attr-defined]
        objects = Collection(lambda name, data: Item(name, "CAMERA", data))
        self.bpy.data = SimpleNamespace(images=images, objects=objects, cameras=Collection(_camera))
        self.bpy.ops = SimpleNamespace(import_scene=SimpleNamespace(gltf=self._import))

    def context(self, module: Any, python: str, picture: str) -> Any:
        """Makes a context: the Image Editor with a picture, and a scene; after `register`."""
        settings = SimpleNamespace(**{name: _default(made) for name, made in module.Settings.__annotations__.items()})
        preferences = SimpleNamespace(preferences=SimpleNamespace(python=python))
        window = SimpleNamespace(region_to_view=lambda x, y: (x / 200, y / 100))
        region = SimpleNamespace(type="WINDOW", x=50, y=30, view2d=window)
        return SimpleNamespace(
            scene=SimpleNamespace(
                fastsam3d=settings,
                camera=None,
                cursor=SimpleNamespace(location=(1.0, 2.0, 0.5)),
                render=SimpleNamespace(resolution_x=1920, resolution_y=1080),
            ),
            preferences=SimpleNamespace(addons={module.__name__: preferences}),
            space_data=SimpleNamespace(image=self.bpy.data.images.load(picture)),
            area=SimpleNamespace(tag_redraw=lambda: None, regions=[SimpleNamespace(type="UI"), region]),
            workspace=SimpleNamespace(status_text_set=self.shown.append),
            window=SimpleNamespace(cursor_modal_set=lambda _name: None, cursor_modal_restore=lambda: None),
            window_manager=SimpleNamespace(
                event_timer_add=lambda _step, window: self.timers.append(window) or window,
                event_timer_remove=self.timers.remove,
                modal_handler_add=lambda _operator: True,
            ),
            collection=SimpleNamespace(objects=SimpleNamespace(link=lambda _item: None)),
        )

    def operator(self, kind: type) -> Any:
        """Makes an operator with its properties, whose reports are kept in `told`."""
        made: Any = kind()
        for name, value in getattr(kind, "__annotations__", {}).items():
            setattr(made, name, _default(value))
        made.told = []
        made.report = lambda level, text: made.told.append((*level, text))
        return made

    def _register(self, kind: type) -> None:
        assert kind not in self.classes
        base = kind.__mro__[1].__name__
        if base == "Operator":
            assert re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", kind.bl_idname)  # type: ignore[attr-defined]
            assert hasattr(kind, "bl_label")
        if base == "Panel":
            assert re.fullmatch(r"[A-Z][A-Z0-9_]*_PT_[A-Za-z0-9_]+", kind.__name__)
            assert {"bl_label", "bl_space_type", "bl_region_type"} <= set(vars(kind))
        self.classes.append(kind)

    def _import(self, filepath: str) -> set[str]:
        for name, mesh in read_glb(Path(filepath).read_bytes()):
            item = Item(name, "MESH")
            # The importer turns glTF's y up into Blender's z up, which `read_glb` does too: (x, y, z) -> (x, -z, y).
            low, high = mesh.vertices.min(axis=0).tolist(), mesh.vertices.max(axis=0).tolist()
            item.bound_box = [
                (x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])
            ]
            self.bpy.data.objects.append(item)
        return {"FINISHED"}


def _camera(name: str) -> Any:
    backgrounds = Collection(lambda: SimpleNamespace(image=None))
    return SimpleNamespace(name=name, sensor_width=36.0, lens=50.0, sensor_fit="AUTO", background_images=backgrounds)


def _default(made: tuple[str, dict[str, Any]]) -> Any:
    kind, options = made
    empty = {"String": "", "IntVector": (0,) * 4, "Int": 0, "Float": 0.0, "Bool": False}
    return options["items"][0][0] if kind == "Enum" else options.get("default", empty.get(kind))
