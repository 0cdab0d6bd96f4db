"""A session of Blender without a window: installs the add-on as a user does, and reconstructs objects of pictures.

    PYTHON_WITH_BPY blender_session.py ADDON PYTHON PICTURE MASK OUT.json [WORD ...]

The words are further words of fastsam3d's command line. What Blender holds afterwards is written to OUT.json.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import bpy
import gpu
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Matrix


def attempt(**changes):
    """Calls the operator with changed settings; returns the new objects, or the error."""
    settings, known = bpy.context.scene.fastsam3d, set(bpy.data.objects)
    for name, value in changes.items():
        setattr(settings, name, value)
    try:
        result = bpy.ops.fastsam3d.reconstruct(image=Path(picture).name)
    except RuntimeError as error:
        return {"error": str(error)}
    bpy.context.view_layer.update()
    added = [item for item in bpy.data.objects if item not in known]
    return {"result": sorted(result), "objects": [described(item) for item in added]}


def described(item):
    """Describes an object of the scene as plain values."""
    told = {"type": item.type, "matrix": [list(row) for row in item.matrix_world]}
    if item.type == "MESH":
        places = [item.matrix_world @ vertex.co for vertex in item.data.vertices]
        told["low"], told["high"] = ([pick(p[i] for p in places) for i in range(3)] for pick in (min, max))
        told["colours"] = len(item.data.color_attributes)
        told["note"] = item["fastsam3d"]
        scene = bpy.context.scene
        if scene.camera is not None:
            seen = [world_to_camera_view(scene, scene.camera, place) for place in places]
            told["seen"] = [[pick(p[i] for p in seen) for i in range(2)] for pick in (min, max)]
            told["nearest"] = min(p[2] for p in seen)
    if item.type == "CAMERA":
        told["angle"] = item.data.angle_x
    return told


def drawn(module, **marks):
    """Draws marks on a picture of 400 x 200 pixels, shown at 200 x 100; returns the lit pixels (x, y, colour).

    None where this Blender cannot draw without a window.
    """
    if not hasattr(gpu, "init"):
        return None
    gpu.init()
    view = SimpleNamespace(view_to_region=lambda u, v, clip: (u * 200, v * 100))
    scene, image = SimpleNamespace(fastsam3d=SimpleNamespace(**marks)), SimpleNamespace(size=(400, 200))
    shown = {"space_data": SimpleNamespace(image=image), "region": SimpleNamespace(view2d=view)}
    real, module.bpy = module.bpy, SimpleNamespace(context=SimpleNamespace(scene=scene, **shown))
    target = gpu.types.GPUOffScreen(200, 100)
    with target.bind():
        buffer = gpu.state.active_framebuffer_get()
        buffer.clear(color=(0.0, 0.0, 0.0, 1.0))
        with gpu.matrix.push_pop():
            gpu.matrix.load_matrix(Matrix.Identity(4))
            to_clip = ((2 / 200, 0, 0, -1), (0, 2 / 100, 0, -1), (0, 0, -1, 0), (0, 0, 0, 1))
            gpu.matrix.load_projection_matrix(Matrix(to_clip))
            module.draw_marks()
        rows = buffer.read_color(0, 0, 200, 100, 4, 0, "FLOAT").to_list()
    module.bpy = real
    lit = [(x, y, *row[x][:3]) for y, row in enumerate(rows) for x in range(200) if sum(row[x][:3]) > 0.2]
    return [[x, y, *(round(value, 2) for value in color)] for x, y, *color in lit]


addon, python, picture, mask, out, *words = sys.argv[1:]
for item in list(bpy.data.objects):
    bpy.data.objects.remove(item)
found = {"version": list(bpy.app.version), "background": bpy.app.background}
bpy.ops.preferences.addon_install(filepath=addon, overwrite=True)
bpy.ops.preferences.addon_enable(module=Path(addon).stem)
bpy.data.images.load(picture)
scene = bpy.context.scene
scene.cursor.location = (1.0, 2.0, 0.5)
common = {"marking": "FILE", "mask": mask, "more": " ".join(words), "seed": 0, "preset": "balanced"}
found["no python"] = attempt(**common)
preferences = bpy.context.preferences.addons[Path(addon).stem].preferences
preferences.python = python
found["not marked"] = attempt(marking="BOX")
found["no such preset"] = attempt(**common | {"more": "acceleration=nothing"})
found["on the cursor"] = attempt(**common, size=2.0, add_camera=True)
found["resolution"] = [scene.render.resolution_x, scene.render.resolution_y]
scene.camera.location.x += 0.5
bpy.context.view_layer.update()
found["before the camera"] = attempt(**common, placement="CAMERA", size=0.0)
module = sys.modules[Path(addon).stem]
found["box"] = drawn(module, marking="BOX", box=(40, 20, 240, 160), points="")
found["points"] = drawn(module, marking="POINTS", box=(0,) * 4, points="100,60 -300,120")
bpy.ops.preferences.addon_disable(module=Path(addon).stem)
found["left behind"] = hasattr(bpy.types.Scene, "fastsam3d")
Path(out).write_text(json.dumps(found))
