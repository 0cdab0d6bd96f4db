"""Blender add-on: makes a mesh of an object in a picture, and puts it into the scene at the right place and scale.

One file, for Blender 4.2 and newer. Install it in Preferences > Add-ons > Install from Disk. fastsam3d itself runs as a
separate process, in the Python in which you installed it: Blender's Python needs no package. `docs/integrations.md` is
the guide.
"""

import json
import math
import os
import shlex
import subprocess
import tempfile
import threading

import bpy
from mathutils import Matrix

bl_info = {
    "name": "fastsam3d",
    "author": "fastsam3d contributors",
    "version": (0, 1, 0),
    "blender": (4, 2, 0),
    "location": "Image Editor > Sidebar > fastsam3d",
    "description": "Reconstructs an object of a picture as a mesh",
    "category": "Import-Export",
}

TICK = 0.25
"""Seconds between two looks at the process."""
SMALLEST_BOX = 4
"""Smallest shorter side of a box, in pixels; a smaller drag is a click by mistake."""
FIELD_OF_VIEW = 60.0
"""Horizontal field of view in degrees, if the report names no camera."""


# The command and its process. Nothing here needs Blender.


def command(python, picture, mark, output, settings):
    """Makes the command line of one run, as a list of words.

    Args:
        python: the Python that has fastsam3d.
        picture: path of the picture.
        mark: words that mark the object, see `mark_words`.
        output: folder for the results.
        settings: values by name: preset, model, checkpoint_dir, seed, more (further options of the command line).
    """
    words = [python, "-m", "fastsam3d", "infer", "--json", "--export", "glb", "--image_path", picture, *mark]
    words += ["--output_dir", output, "--seed", str(settings["seed"]), "preview=false"]
    words += [f"model={settings['model']}", f"acceleration={settings['preset']}"]
    if settings["checkpoint_dir"]:
        words.append(f"checkpoint_dir={settings['checkpoint_dir']}")
    return words + shlex.split(settings["more"])


def mark_words(kind, box, points, mask):
    """Makes the flags that mark the object. Pixels count from the upper left corner.

    Args:
        kind: BOX, POINTS or FILE.
        box: x0, y0, x1, y1.
        points: "x,y" of the object and "-x,y" of the background, separated by spaces.
        mask: path of a mask.

    Raises:
        ValueError: nothing is marked.
    """
    if kind == "FILE":
        if not mask:
            raise ValueError("Choose a mask file, or mark a box or points.")
        return ["--mask_path", mask]
    if kind == "BOX":
        if box[2] - box[0] < SMALLEST_BOX or box[3] - box[1] < SMALLEST_BOX:
            raise ValueError("Mark the object first: press Drag a Box, and drag over the picture.")
        return ["--box=" + ",".join(str(value) for value in box)]
    if not any(not word.startswith("-") for word in points.split()):
        raise ValueError("Mark the object first: press Click Points, and click on the object.")
    return [f"--point={word}" for word in points.split()]


class Job:
    """Runs a command; keeps what it prints. `poll` and `stop` never wait long."""

    def __init__(self, words, folder):
        # Settings of Blender's own Python must not reach the other Python.
        environment = {
            key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "__PYVENV_LAUNCHER__")
        }
        flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        text = {"encoding": "utf-8", "errors": "replace"}
        self.process = subprocess.Popen(words, cwd=folder, env=environment, creationflags=flags, **pipes, **text)
        self.lines, self.printed = [], ""
        self._threads = [threading.Thread(target=read, daemon=True) for read in (self._read_lines, self._read_result)]
        for thread in self._threads:
            thread.start()

    def poll(self):
        """Returns the exit code; None while the process runs."""
        if self.process.poll() is None:
            return None
        for thread in self._threads:
            thread.join(5)
        return self.process.returncode

    def stop(self):
        """Ends the process, which removes its temporary files."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def last_line(self):
        """Returns the newest line of progress; an empty text before the first."""
        return self.lines[-1] if self.lines else ""

    def error(self):
        """Returns a sentence about a run that failed."""
        told = [line[len("error: ") :] for line in self.lines if line.startswith("error: ")]
        if told:
            return told[-1]
        if any("No module named" in line and "fastsam3d" in line for line in self.lines):
            return (
                "The Python in the add-on's preferences has no fastsam3d. Choose another Python, or install it there."
            )
        return f"fastsam3d ended with code {self.process.returncode}. {self.last_line()}"

    def warnings(self):
        """Returns the warnings of the run."""
        return [line[len("warning: ") :] for line in self.lines if line.startswith("warning: ")]

    def _read_lines(self):
        for line in self.process.stderr:
            if line.strip():
                self.lines.append(line.strip())

    def _read_result(self):
        self.printed = self.process.stdout.read()


# Positions in the scene. Matrices are lists of rows and act on column vectors.


def product(a, b):
    """Multiplies two matrices."""
    return [[sum(x * y for x, y in zip(row, column, strict=True)) for column in zip(*b, strict=True)] for row in a]


def affine(linear, shift):
    """Makes a 4 x 4 matrix of a 3 x 3 matrix and a shift."""
    return [[*linear[i], shift[i]] for i in range(3)] + [[0.0, 0.0, 0.0, 1.0]]


def rotation_of(quaternion):
    """Makes the 3 x 3 matrix of a unit quaternion (w, x, y, z)."""
    w, x, y, z = quaternion
    return [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]


class Placement:
    """Computes the matrices of the object and of the photo's camera.

    The report gives `p_camera = (p_object * scale) @ R + translation` for row vectors, in a camera frame with x left,
    y up, z forward. Blender's cameras have x right, y up and look along -z.

    Args:
        pose: from the report: rotation_wxyz, translation, scale; None: the object is at the camera's origin.
        corners: the object's bounding box, as two points.
        size: length of the longest side in the scene's units; 0 keeps the units of the report.
    """

    def __init__(self, pose, corners, size):
        pose = pose or {"rotation_wxyz": [1.0, 0.0, 0.0, 0.0], "translation": [0.0] * 3, "scale": [1.0] * 3}
        self.corners, scale = corners, pose["scale"]
        longest = max((high - low) * factor for low, high, factor in zip(*corners, scale, strict=True))
        self.units = size / longest if size and longest > 0 else 1.0
        self.scale = [factor * self.units for factor in scale]
        turn = rotation_of(pose["rotation_wxyz"])
        # The rows of the matrix are columns of its transpose, and the camera's x and z change sign.
        self.rotation = [[sign * turn[j][i] for j in range(3)] for i, sign in enumerate((-1.0, 1.0, -1.0))]
        x, y, z = (value * self.units for value in pose["translation"])
        self.shift = [-x, y, -z]

    def upright(self, place):
        """Returns the object's matrix: the middle of its bottom is at `place`, z up."""
        (x0, y0, z0), (x1, y1, _) = self.corners
        bottom = [(x0 + x1) / 2, (y0 + y1) / 2, z0]
        shift = [at - scale * value for at, scale, value in zip(place, self.scale, bottom, strict=True)]
        return affine(self._sized([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), shift)

    def before(self, camera):
        """Returns the object's matrix: a camera with the matrix `camera` sees it as the photo's camera did."""
        lengths = [math.hypot(*(camera[i][j] for i in range(3))) or 1.0 for j in range(3)]
        rigid = [[camera[i][j] / lengths[j] for j in range(3)] for i in range(3)]
        local = affine(self._sized(self.rotation), self.shift)
        return product(affine(rigid, [camera[i][3] for i in range(3)]), local)

    def camera_for(self, place):
        """Returns the matrix of a camera that sees the object of `upright(place)` as the photo's camera did."""
        origin = [row[3] for row in self.upright(place)[:3]]
        turned = [list(column) for column in zip(*self.rotation, strict=True)]
        moved = [sum(a * b for a, b in zip(row, self.shift, strict=True)) for row in turned]
        return affine(turned, [a - b for a, b in zip(origin, moved, strict=True)])

    def _sized(self, linear):
        return [[value * scale for value, scale in zip(row, self.scale, strict=True)] for row in linear]


# Blender.


class Preferences(bpy.types.AddonPreferences):
    """The add-on's preferences: the Python that has fastsam3d."""

    bl_idname = __name__
    python: bpy.props.StringProperty(
        name="Python",
        description="The Python that has fastsam3d, for instance .venv/bin/python of its folder",
        subtype="FILE_PATH",
        default=os.environ.get("FASTSAM3D_PYTHON", ""),
    )

    def draw(self, context):
        """Draws the preferences."""
        self.layout.prop(self, "python")


class Settings(bpy.types.PropertyGroup):
    """Values of the panel; stored with the scene."""

    marking: bpy.props.EnumProperty(
        name="Mark by",
        items=[
            ("BOX", "Box", "A box around the object"),
            ("POINTS", "Points", "Points on the object, and on the background"),
            ("FILE", "Mask", "A mask file: RGBA whose alpha is the mask, or greyscale"),
        ],
    )
    box: bpy.props.IntVectorProperty(name="Box", description="x0, y0, x1, y1 in pixels from the upper left", size=4)
    points: bpy.props.StringProperty(name="Points", description="x,y of the object, -x,y of the background")
    mask: bpy.props.StringProperty(name="Mask", subtype="FILE_PATH")
    model: bpy.props.EnumProperty(
        name="Model",
        items=[
            ("mini", "Small", "Small demonstration model, trained on synthetic toys"),
            ("sam3d", "SAM 3D", "The official weights, for photographs"),
        ],
    )
    checkpoint_dir: bpy.props.StringProperty(name="Weights", description="Folder of the weights", subtype="DIR_PATH")
    preset: bpy.props.EnumProperty(
        name="Preset",
        items=[
            ("balanced", "Balanced", "Almost the same result, several times faster"),
            ("accurate", "Accurate", "Nearer to the exact solution than the plain run"),
            ("fast", "Fast", "Speed first: look at the result"),
            ("exact", "Exact", "Only savings that change no result"),
            ("off", "Off", "Nothing is skipped"),
        ],
    )
    seed: bpy.props.IntProperty(name="Seed", min=0)
    more: bpy.props.StringProperty(name="More", description="Further options of the command line: device=cuda --finish")
    placement: bpy.props.EnumProperty(
        name="Place",
        items=[
            ("CURSOR", "On the 3D Cursor", "Upright, with the middle of its bottom at the 3D cursor"),
            ("CAMERA", "Before the Camera", "Where the scene's camera sees it as the photo shows it"),
        ],
    )
    size: bpy.props.FloatProperty(
        name="Size", description="Longest side; 0: as the point map says", default=1.0, min=0.0, subtype="DISTANCE"
    )
    add_camera: bpy.props.BoolProperty(
        name="Add the Photo's Camera", description="A camera that sees it as in the photo"
    )
    status: bpy.props.StringProperty(options={"SKIP_SAVE"})


def pixel_of(region, image, x, y):
    """Converts a place of the mouse, in the window's pixels, to a pixel of the picture from the upper left."""
    u, v = region.view2d.region_to_view(x - region.x, y - region.y)
    width, height = image.size
    return min(max(round(u * width), 0), width), min(max(round((1 - v) * height), 0), height)


class Mark(bpy.types.Operator):
    """Marks the object in the picture by the mouse."""

    bl_idname = "fastsam3d.mark"
    bl_label = "Mark the Object"
    bl_description = "Box: drag. Points: click on the object, Ctrl-click on the background, Enter ends. Esc cancels"

    @classmethod
    def poll(cls, context):
        """Tells whether there is a picture to mark."""
        return getattr(context.space_data, "image", None) is not None

    def invoke(self, context, event):
        """Begins to follow the mouse."""
        settings = context.scene.fastsam3d
        self.region = next(region for region in context.area.regions if region.type == "WINDOW")
        self.start, self.before = None, (tuple(settings.box), settings.points)
        if settings.marking == "POINTS":
            settings.points = ""
        context.window.cursor_modal_set("CROSSHAIR")
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context, event):
        """Follows the mouse."""
        settings = context.scene.fastsam3d
        x, y = pixel_of(self.region, context.space_data.image, event.mouse_x, event.mouse_y)
        context.area.tag_redraw()
        if event.type in {"ESC", "RIGHTMOUSE"}:
            settings.box, settings.points = self.before
            return self._end(context, {"CANCELLED"})
        if settings.marking == "POINTS":
            if event.type in {"RET", "NUMPAD_ENTER"}:
                return self._end(context, {"FINISHED"})
            if (event.type, event.value) == ("LEFTMOUSE", "PRESS"):
                settings.points = f"{settings.points} {'-' if event.ctrl else ''}{x},{y}".strip()
                return {"RUNNING_MODAL"}
            return {"PASS_THROUGH"}
        if (event.type, event.value) == ("LEFTMOUSE", "PRESS"):
            self.start = (x, y)
        if self.start is not None:
            (x0, x1), (y0, y1) = sorted((self.start[0], x)), sorted((self.start[1], y))
            settings.box = (x0, y0, x1, y1)
            if (event.type, event.value) == ("LEFTMOUSE", "RELEASE"):
                return self._end(context, {"FINISHED"})
            return {"RUNNING_MODAL"}
        return {"PASS_THROUGH"}

    def _end(self, context, result):
        context.window.cursor_modal_restore()
        return result


class Reconstruct(bpy.types.Operator):
    """Runs fastsam3d, and brings the mesh into the scene. Called by a script, or without a window, it waits."""

    bl_idname = "fastsam3d.reconstruct"
    bl_label = "Reconstruct"
    bl_description = "Reconstructs the marked object, and brings it into the scene. Esc stops it"
    bl_options = {"REGISTER", "UNDO"}

    image: bpy.props.StringProperty(name="Picture", description="Name of the picture, for scripts", options={"HIDDEN"})

    def execute(self, context):
        """Runs to the end."""
        if not self._start(context):
            return {"CANCELLED"}
        while self.job.poll() is None:
            self.job.process.wait()
        return self._finish(context)

    def invoke(self, context, event):
        """Begins to run; `modal` goes on."""
        if not self._start(context):
            return {"CANCELLED"}
        self.timer = context.window_manager.event_timer_add(TICK, window=context.window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context, event):
        """Shows the progress of the run; imports its result at the end."""
        if event.type == "ESC":
            self.job.stop()
            self._show(context, "")
            context.window_manager.event_timer_remove(self.timer)
            self.report({"WARNING"}, "Stopped. Nothing was imported.")
            return {"CANCELLED"}
        if event.type != "TIMER":
            return {"PASS_THROUGH"}
        if self.job.poll() is None:
            self._show(context, self.job.last_line() or "starting")
            return {"RUNNING_MODAL"}
        context.window_manager.event_timer_remove(self.timer)
        self._show(context, "")
        return self._finish(context)

    def _start(self, context):
        settings = context.scene.fastsam3d
        python = bpy.path.abspath(context.preferences.addons[__name__].preferences.python)
        try:
            picture = self._picture(context)
            if not python:
                raise ValueError("Name the Python that has fastsam3d in the add-on's preferences.")
            mark = mark_words(settings.marking, settings.box, settings.points, bpy.path.abspath(settings.mask))
            folder = tempfile.mkdtemp(prefix="fastsam3d_", dir=bpy.app.tempdir or None)
            path = bpy.path.abspath(picture.filepath)
            depth = os.path.join(os.path.dirname(path), "pointmap.npy")
            if settings.marking != "FILE":
                # The result is named after this copy.
                stem = os.path.splitext(os.path.basename(path))[0]
                path = self._as_shown(picture, os.path.join(folder, f"{stem}.png"))
                mark += ["--pointmap", depth] if os.path.isfile(depth) else []
            self.output = os.path.join(folder, "out")
            names = ("model", "preset", "seed", "more")
            values = {name: getattr(settings, name) for name in names}
            values["checkpoint_dir"] = bpy.path.abspath(settings.checkpoint_dir)
            self.job = Job(command(python, path, mark, self.output, values), folder)
        except (ValueError, OSError, RuntimeError) as error:
            self.report({"ERROR"}, str(error))
            return False
        return True

    def _picture(self, context):
        picture = bpy.data.images.get(self.image) or getattr(context.space_data, "image", None)
        if picture is None:
            raise ValueError("Open a picture in the Image Editor first.")
        if not os.path.isfile(bpy.path.abspath(picture.filepath)):
            raise ValueError("The picture is not saved as a file: use Image > Save As first.")
        self.picture = picture
        return picture

    def _as_shown(self, picture, path):
        """Writes the picture as Blender shows it, without an orientation tag: marks are pixels of this picture."""
        copy = bpy.data.images.load(bpy.path.abspath(picture.filepath), check_existing=False)
        try:
            copy.file_format = "PNG"
            copy.pixels[0]  # loads it
            copy.filepath_raw = path
            copy.save()
        finally:
            bpy.data.images.remove(copy)
        return path

    def _finish(self, context):
        if self.job.process.returncode != 0:
            self.report({"ERROR"}, self.job.error())
            return {"CANCELLED"}
        for text in self.job.warnings():
            self.report({"WARNING"}, text)
        report = json.loads(self.job.printed)
        made = report["objects"][0]
        known = set(bpy.data.objects)
        bpy.ops.import_scene.gltf(filepath=os.path.join(self.output, made["files"]["glb"]))
        mesh = next(item for item in bpy.data.objects if item not in known and item.type == "MESH")
        self._place(context, mesh, made["pose"], report.get("camera", {}).get("field_of_view", FIELD_OF_VIEW))
        mesh["fastsam3d"] = f"{report['model']}, {report['preset']}, seed {report['seed']}"
        self.report({"INFO"}, f"{mesh.name}: {made['faces']} faces, {report['seconds']['run']:.1f} s")
        return {"FINISHED"}

    def _place(self, context, mesh, pose, angle):
        settings, scene = context.scene.fastsam3d, context.scene
        points = [tuple(corner) for corner in mesh.bound_box]
        corners = [[pick(axis) for axis in zip(*points, strict=True)] for pick in (min, max)]
        placement = Placement(pose, corners, settings.size)
        if settings.placement == "CAMERA" and scene.camera is not None and pose is not None:
            mesh.matrix_world = Matrix(placement.before([list(row) for row in scene.camera.matrix_world]))
            return
        if settings.placement == "CAMERA":
            self.report({"WARNING"}, "The scene has no camera: the object stands on the 3D cursor.")
        place = list(scene.cursor.location)
        mesh.matrix_world = Matrix(placement.upright(place))
        if settings.add_camera and pose is not None:
            self._add_camera(context, placement.camera_for(place), angle)

    def _add_camera(self, context, matrix, angle):
        data = bpy.data.cameras.new("Photo")
        data.sensor_fit = "HORIZONTAL"
        data.lens = data.sensor_width / 2 / math.tan(math.radians(angle) / 2)
        data.show_background_images = True
        data.background_images.new().image = self.picture
        camera = bpy.data.objects.new("Photo", data)
        context.collection.objects.link(camera)
        camera.matrix_world = Matrix(matrix)
        context.scene.camera = camera
        # Otherwise the photo and the object have different proportions in the camera's view.
        context.scene.render.resolution_x, context.scene.render.resolution_y = self.picture.size

    def _show(self, context, text):
        context.scene.fastsam3d.status = text
        context.workspace.status_text_set(f"fastsam3d: {text}    Esc: stop" if text else None)
        if context.area is not None:
            context.area.tag_redraw()


class FASTSAM3D_PT_panel(bpy.types.Panel):
    """The panel in the sidebar of the Image Editor."""

    bl_idname = "FASTSAM3D_PT_panel"
    bl_label = "fastsam3d"
    bl_space_type = "IMAGE_EDITOR"
    bl_region_type = "UI"
    bl_category = "fastsam3d"

    def draw(self, context):
        """Draws the panel."""
        layout, settings = self.layout, context.scene.fastsam3d
        layout.use_property_split = True
        if getattr(context.space_data, "image", None) is None:
            layout.label(text="Open a picture in this editor", icon="INFO")
            return
        layout.row().prop(settings, "marking", expand=True)
        if settings.marking == "FILE":
            layout.prop(settings, "mask")
        else:
            layout.operator(Mark.bl_idname, text="Drag a Box" if settings.marking == "BOX" else "Click Points")
            layout.prop(settings, settings.marking.lower())
        for name in ("model", "checkpoint_dir", "preset", "seed", "more", "placement", "size", "add_camera"):
            if name != "checkpoint_dir" or settings.model == "sam3d":
                layout.prop(settings, name)
        layout.operator(Reconstruct.bl_idname)
        if settings.status:
            layout.label(text=settings.status, icon="TIME")


def draw_marks():
    """Draws the box or the points over the picture."""
    import gpu
    from gpu_extras.batch import batch_for_shader

    image, settings = bpy.context.space_data.image, bpy.context.scene.fastsam3d
    if image is None or settings.marking == "FILE" or 0 in image.size[:]:
        return
    view, (width, height) = bpy.context.region.view2d, image.size
    shader = gpu.shader.from_builtin("UNIFORM_COLOR")

    def draw(kind, pixels, color):
        places = [view.view_to_region(x / width, 1 - y / height, clip=False) for x, y in pixels]
        shader.bind()
        shader.uniform_float("color", color)
        batch_for_shader(shader, kind, {"pos": [(float(x), float(y), 0.0) for x, y in places]}).draw(shader)

    if settings.marking == "BOX" and settings.box[2] > settings.box[0]:
        x0, y0, x1, y1 = settings.box
        draw("LINE_STRIP", [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], (1.0, 0.5, 0.1, 1.0))
    for word in settings.points.split() if settings.marking == "POINTS" else []:
        x, y = (float(value) for value in word.lstrip("-").split(","))
        color = (0.2, 0.4, 1.0, 1.0) if word.startswith("-") else (1.0, 0.5, 0.1, 1.0)
        reach = 0.01 * max(width, height)
        draw("LINES", [(x - reach, y), (x + reach, y), (x, y - reach), (x, y + reach)], color)


CLASSES = (Preferences, Settings, Mark, Reconstruct, FASTSAM3D_PT_panel)
_drawing = []


def register():
    """Adds everything to Blender."""
    for each in CLASSES:
        bpy.utils.register_class(each)
    bpy.types.Scene.fastsam3d = bpy.props.PointerProperty(type=Settings)
    if not bpy.app.background:
        _drawing.append(bpy.types.SpaceImageEditor.draw_handler_add(draw_marks, (), "WINDOW", "POST_PIXEL"))


def unregister():
    """Removes everything from Blender."""
    while _drawing:
        bpy.types.SpaceImageEditor.draw_handler_remove(_drawing.pop(), "WINDOW")
    del bpy.types.Scene.fastsam3d
    for each in reversed(CLASSES):
        bpy.utils.unregister_class(each)


if __name__ == "__main__":
    register()
