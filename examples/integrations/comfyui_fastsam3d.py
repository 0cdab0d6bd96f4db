"""ComfyUI nodes: load, accelerate, reconstruct, preview.

One file: copy it into `ComfyUI/custom_nodes/`. fastsam3d must be installed in the Python that runs ComfyUI. It is
imported when a node runs. `docs/integrations.md` is the guide.

Sockets of our own are FASTSAM3D_PIPELINE and FASTSAM3D_OBJECT. An IMAGE is fp32 `[B, H, W, 3]` in 0..1, a MASK fp32
`[B, H, W]` in 0..1, as ComfyUI's documentation says.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, replace
from typing import Any

CATEGORY = "fastsam3d"
PRESETS = ["balanced", "accurate", "fast", "exact", "off"]
NO_MASK = (64, 64)
"""Height and width of the empty mask that ComfyUI's Load Image gives for a picture without transparency."""


@dataclass(frozen=True)
class LoadedPipeline:
    """Value of the socket FASTSAM3D_PIPELINE.

    ComfyUI keeps the outputs of nodes and gives them to several others, so no node changes the pipeline: the preset is
    attached for a run and removed after it.
    """

    pipeline: Any
    preset: str = "off"


@dataclass(frozen=True)
class ReconstructedObject:
    """Value of the socket FASTSAM3D_OBJECT: the result of a run, its picture and its mask."""

    reconstruction: Any
    picture: Any
    mask: Any


class FastSAM3DLoad:
    """Loads the weights."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Loads the small demonstration model, or the official weights of SAM 3D Objects."
    FUNCTION = "load"
    RETURN_TYPES = ("FASTSAM3D_PIPELINE",)
    RETURN_NAMES = ("pipeline",)

    @classmethod
    def INPUT_TYPES(cls):
        """Describes the inputs."""
        return {
            "required": {
                "model": (
                    ["mini", "sam3d"],
                    {"tooltip": "mini: small, trained on synthetic toys. sam3d: for photographs"},
                ),
                "device": (["auto", "cpu", "cuda"],),
                "memory": (["none", "8gb", "12gb", "24gb"], {"tooltip": "weights stay in main memory until used"}),
            },
            "optional": {
                "checkpoint_dir": ("STRING", {"default": "", "tooltip": "folder of the weights of sam3d"}),
            },
        }

    def load(self, model, device, memory, checkpoint_dir=""):
        """Returns the pipeline, without acceleration."""
        import torch

        import fastsam3d

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        # ComfyUI runs nodes in inference mode. Tensors made there do not count changes, but weights have to.
        with torch.inference_mode(False), torch.no_grad():
            where = checkpoint_dir.strip() or None
            pipeline = fastsam3d.load_pipeline(model, device=device, checkpoint_dir=where, memory=memory)
        return (LoadedPipeline(pipeline),)


class FastSAM3DAccelerate:
    """Chooses a preset."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Chooses the preset that the next runs use. The pipeline itself is not changed."
    FUNCTION = "choose"
    RETURN_TYPES = ("FASTSAM3D_PIPELINE",)
    RETURN_NAMES = ("pipeline",)

    @classmethod
    def INPUT_TYPES(cls):
        """Describes the inputs."""
        return {"required": {"pipeline": ("FASTSAM3D_PIPELINE",), "preset": (PRESETS, {"default": "balanced"})}}

    def choose(self, pipeline, preset):
        """Returns the same pipeline with another preset."""
        return (replace(pipeline, preset=preset),)


class FastSAM3DReconstruct:
    """Makes an object of a picture and a mask, and writes it to files."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Reconstructs the marked object. Writes a GLB and, where the model has Gaussians, a PLY."
    FUNCTION = "reconstruct"
    RETURN_TYPES = ("FASTSAM3D_OBJECT", "STRING", "STRING", "STRING")
    RETURN_NAMES = ("object", "glb_path", "ply_path", "report")
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        """Describes the inputs."""
        return {
            "required": {
                "pipeline": ("FASTSAM3D_PIPELINE",),
                "image": ("IMAGE",),
                "mask": ("MASK",),
                "mask_marks": (
                    ["object", "background"],
                    {"tooltip": "choose background for a cut-out from Load Image"},
                ),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**32 - 1}),
                "faces": ("INT", {"default": 0, "min": 0, "max": 10**7, "tooltip": "wanted number of faces; 0: all"}),
                "filename_prefix": ("STRING", {"default": "fastsam3d/object"}),
            },
        }

    def reconstruct(self, pipeline, image, mask, mask_marks, seed, faces, filename_prefix):
        """Returns the object, the paths of its files (an empty text where there is none) and the report as JSON."""
        import torch

        import fastsam3d

        picture, inside = picture_and_mask(image, mask, mask_marks)
        decoders = {"mesh": "slat_decoder_mesh", "gaussian": "slat_decoder_gs"}
        formats = [name for name, decoder in decoders.items() if decoder in pipeline.pipeline.models]
        with torch.inference_mode(False), fastsam3d.accelerate(pipeline.pipeline, pipeline.preset) as acceleration:
            result = pipeline.pipeline.run(picture, inside, seed=seed, formats=formats, progress=shown_progress())
            report = acceleration.report().to_dict()
        base, subfolder = output_base(filename_prefix, picture.shape)
        glb = str(fastsam3d.export(result, f"{base}.glb", faces=faces or None))
        ply = str(fastsam3d.export(result, f"{base}.ply")) if result.gaussian is not None else ""
        shown = [{"filename": os.path.basename(glb), "subfolder": subfolder, "type": "output"}]
        outputs = (ReconstructedObject(result, picture, inside), glb, ply, json.dumps(report))
        return {"ui": {"3d": shown, "text": [glb]}, "result": outputs}


class FastSAM3DPreview:
    """Draws an object from four sides beside its picture."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Draws the object from four sides beside its picture."
    FUNCTION = "draw"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("views",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        """Describes the inputs."""
        return {"required": {"object": ("FASTSAM3D_OBJECT",)}}

    def draw(self, object):
        """Returns the sheet as an IMAGE, and shows it in the node."""
        import folder_paths
        import numpy as np
        import torch

        from fastsam3d.meshes.preview import preview_sheet

        sheet = preview_sheet(object.picture, object.mask, object.reconstruction.mesh).convert("RGB")
        handle, path = tempfile.mkstemp(
            prefix="fastsam3d_", suffix=".png", dir=_made(folder_paths.get_temp_directory())
        )
        os.close(handle)
        sheet.save(path)
        shown = [{"filename": os.path.basename(path), "subfolder": "", "type": "temp"}]
        pixels = torch.from_numpy(np.asarray(sheet).astype(np.float32) / 255)[None]
        return {"ui": {"images": shown}, "result": (pixels,)}


def picture_and_mask(image, mask, mask_marks):
    """Converts an IMAGE and a MASK to uint8 `[H, W, 3]` and bool `[H, W]`.

    Raises:
        ValueError: several pictures, no mask, or a mask of another size.
    """
    if mask.ndim == 2:
        mask = mask[None]
    if image.shape[0] != 1 or mask.shape[0] != 1:
        raise ValueError(
            f"give one picture and one mask, not {image.shape[0]} and {mask.shape[0]}: use Image From Batch."
        )
    picture = (image[0, ..., :3].clamp(0, 1) * 255).round().byte().cpu().numpy()
    values = mask[0].cpu().numpy()
    if values.shape != picture.shape[:2]:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (values.shape, picture.shape)]
        what = f"the mask has {sizes[0]} pixels, the picture {sizes[1]}"
        if values.shape == NO_MASK:
            what += ": Load Image found no mask in the file"
        raise ValueError(f"{what}. Right-click the picture, choose Open in MaskEditor, and paint the object.")
    inside = values > 0.5 if mask_marks == "object" else values <= 0.5
    if not inside.any():
        other = "background" if mask_marks == "object" else "object"
        raise ValueError(f"the mask marks nothing. Paint the object, or choose mask_marks={other}.")
    return picture, inside


def shown_progress():
    """Makes a callback `(stage, done, total)` that moves ComfyUI's bar and stops the run when the user asks for it."""
    from comfy.model_management import throw_exception_if_processing_interrupted
    from comfy.utils import ProgressBar

    bars: dict[str, Any] = {}

    def progress(stage, done, total):
        throw_exception_if_processing_interrupted()
        if stage not in bars:
            bars[stage] = ProgressBar(total)
        bars[stage].update_absolute(done, total)

    return progress


def output_base(filename_prefix, shape):
    """Returns (path of a new file in ComfyUI's output folder, without a suffix; its folder inside that one)."""
    import folder_paths

    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
        filename_prefix, folder_paths.get_output_directory(), shape[1], shape[0]
    )
    return os.path.join(_made(folder), f"{name}_{counter:05}_"), subfolder


def _made(folder):
    os.makedirs(folder, exist_ok=True)
    return folder


NODE_CLASS_MAPPINGS = {
    "FastSAM3DLoad": FastSAM3DLoad,
    "FastSAM3DAccelerate": FastSAM3DAccelerate,
    "FastSAM3DReconstruct": FastSAM3DReconstruct,
    "FastSAM3DPreview": FastSAM3DPreview,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "FastSAM3DLoad": "fastsam3d: Load",
    "FastSAM3DAccelerate": "fastsam3d: Accelerate",
    "FastSAM3DReconstruct": "fastsam3d: Reconstruct",
    "FastSAM3DPreview": "fastsam3d: Preview",
}
