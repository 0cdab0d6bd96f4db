"""SAM 3D Objects' pipeline: the order of calls, and what it rewrites at every one."""

from __future__ import annotations

import itertools
import random

import numpy as np
import torch
from torch import nn

from host_stand_ins.networks import (
    CONDITION,
    GRID,
    LATENT,
    GaussianDecoder,
    MeshDecoder,
    StructureDecoder,
    StructureNetwork,
    WrappedLatentNetwork,
)
from host_stand_ins.sparse import SparseTensor


def tree(function, *values):
    if isinstance(values[0], dict):
        return {name: function(*(v[name] for v in values)) for name in values[0]}
    return function(*values)


class Guidance(nn.Module):
    """Two passes inside an interval of network times; the network makes its condition zero itself."""

    def __init__(self, backbone, interval=(0, 500)):
        super().__init__()
        self.backbone, self.interval = backbone, interval
        self.strength, self.unconditional_handling = 3.0, "add_flag"

    @staticmethod
    def _make_unconditional_args(args, kwargs):
        kwargs["cfg"] = True
        return args, kwargs

    def _cfg_step(self, y_cond, y_uncond, strength):
        return tree(lambda c, u: (1 + strength) * c - strength * u, y_cond, y_uncond)

    def inner_forward(self, x, t, is_cond, strength, *args_cond, **kwargs_cond):
        y_cond = self.backbone(x, t, *args_cond, **kwargs_cond)
        if is_cond:
            return y_cond
        args_cond, kwargs_cond = self._make_unconditional_args(args_cond, kwargs_cond)
        return self._cfg_step(y_cond, self.backbone(x, t, *args_cond, **kwargs_cond), strength)

    def forward(self, x, t, *args_cond, **kwargs_cond):
        strength = self.strength if self.interval[0] <= t <= self.interval[1] else 0.0
        return self.inner_forward(x, t, not strength > 0, strength, *args_cond, **kwargs_cond)


class DrawingGuidance(Guidance):
    """As that of the first stage, which draws a number at every call."""

    def forward(self, x, t, *args_cond, p_unconditional=None, **kwargs_cond):
        random.random()
        return super().forward(x, t, *args_cond, **kwargs_cond)


class Euler:
    def step(self, dynamics_fn, x_t, t, dt, *args, **kwargs):
        return tree(lambda x, v: x + v * dt, x_t, dynamics_fn(x_t, t, *args, **kwargs))


class Generator(nn.Module):
    def __init__(self, reverse_fn, rescale_t):
        super().__init__()
        self.reverse_fn, self.rescale_t = reverse_fn, rescale_t
        self.inference_steps, self.time_scale, self.reversed_timestamp = 25, 1000.0, False
        self._solver = Euler()

    def forward(self, x_shape, x_device, *args, **kwargs):
        return self.generate(x_shape, x_device, *args, **kwargs)

    def generate(self, x_shape, x_device, *args_conditionals, **kwargs_conditionals):
        x, times, extra = self.begin(x_shape, x_device)
        for t0, t1 in itertools.pairwise(times):
            call = (*extra, *args_conditionals)
            x = self._solver.step(self._generate_dynamics, x, t0, t1 - t0, *call, **kwargs_conditionals)
        return x

    def _rescaled(self, t):
        return t / (1 + (self.rescale_t - 1) * (1 - t))


class LatentGenerator(Generator):
    def _prepare_t(self, steps=None):
        return self._rescaled(torch.linspace(0, 1, (self.inference_steps if steps is None else steps) + 1))

    def begin(self, shape, device):
        return torch.randn(shape, device=device), self._prepare_t(), ()

    def _generate_dynamics(self, x_t, t, *args_conditionals, **kwargs_conditionals):
        return self.reverse_fn(x_t, t * self.time_scale, *args_conditionals, **kwargs_conditionals)


class ShortCut(Generator):
    no_shortcut = False

    def _prepare_t_and_d(self, steps=None):
        steps = self.inference_steps if steps is None else steps
        return self._rescaled(np.linspace(0, 1, steps + 1)), 0 if self.no_shortcut else 1 / steps

    def begin(self, shape, device):
        noise = {name: torch.randn(shape[name], device=device) for name in sorted(shape)}
        times, d = self._prepare_t_and_d()
        return noise, times, (d,)

    def _generate_dynamics(self, x_t, t, d, *args_conditionals, **kwargs_conditionals):
        t, d = (torch.tensor([v * self.time_scale], dtype=torch.float32) for v in (t, d))
        return self.reverse_fn(x_t, t, *args_conditionals, d=d, **kwargs_conditionals)


class Backbone(nn.Module):
    """An image encoder that says how often it ran."""

    def __init__(self):
        super().__init__()
        self.proj, self.calls = nn.Linear(3 * 64, CONDITION), 0

    def forward_features(self, x):
        self.calls += 1
        patches = nn.functional.unfold(x, 8, stride=8).transpose(1, 2)
        return {"x_prenorm": self.proj(patches)}


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Backbone()

    def forward(self, x):
        return self.backbone.forward_features(x.expand(-1, 3, -1, -1) * 2 - 1)["x_prenorm"]


class Fuser(nn.Module):
    def __init__(self):
        super().__init__()
        image, mask = Encoder(), Encoder()
        self.module_list = nn.ModuleList([image, mask])
        self.embedder_list = [
            [image, [["image", "cropped"], ["rgb_image", "full"]]],
            [mask, [["mask", "cropped"], ["rgb_image_mask", "full"]]],
        ]

    def forward(self, **inputs):
        return torch.cat([e(inputs[key]) for e, keys in self.embedder_list for key, _ in keys], dim=1)


class DepthModel:
    calls = 0

    def __call__(self, image):
        self.calls += 1
        return {"pointmaps": image.permute(1, 2, 0)}


class InferencePipelinePointMap:
    def __init__(self, dtype="float32"):
        torso = torch.float32 if dtype == "float32" else torch.bfloat16
        self.device = torch.device("cpu")
        self.models = nn.ModuleDict(
            {
                "ss_generator": ShortCut(DrawingGuidance(StructureNetwork()), rescale_t=3),
                "slat_generator": LatentGenerator(Guidance(WrappedLatentNetwork(torso)), rescale_t=1),
                "ss_encoder": None,
                "ss_decoder": StructureDecoder(),
                "slat_decoder_gs": GaussianDecoder(),
                "slat_decoder_gs_4": None,
                "slat_decoder_mesh": MeshDecoder(),
            }
        )
        embedders = Fuser(), Fuser()
        embedders[1].load_state_dict(embedders[0].state_dict())
        names = ("ss_condition_embedder", "slat_condition_embedder")
        self.condition_embedders = dict(zip(names, embedders, strict=True))
        self.ss_cfg_strength, self.slat_cfg_strength = 7, 1
        self.depth_model = DepthModel()
        self.decode_formats = ["gaussian", "mesh"]
        self.slat_std, self.slat_mean = torch.full((8,), 0.5), torch.zeros(8)
        for part in (self.models, *embedders):
            part.eval().requires_grad_(False)

    def merge_image_and_mask(self, image, mask):
        return image if mask is None else np.concatenate([image[..., :3], np.asarray(mask)[..., None]], axis=-1)

    def compute_pointmap(self, image, pointmap=None):
        picture = torch.from_numpy(image[..., :3] / 255.0).float().permute(2, 0, 1)
        return self.depth_model(picture)["pointmaps"] if pointmap is None else pointmap

    def preprocess_image(self, image, preprocessor=None, pointmap=None):
        values = torch.from_numpy(image / 255.0).float().permute(2, 0, 1)[None]
        rgb, mask = values[:, :3], values[:, 3:]
        return {"mask": mask, "image": rgb * mask, "rgb_image": rgb, "rgb_image_mask": mask.roll(3, -1)}

    def get_condition_input(self, condition_embedder, input_dict, input_mapping):
        return (condition_embedder(**input_dict),), {}

    def sample_sparse_structure(self, ss_input_dict, inference_steps=None, use_distillation=False):
        generator = self.models["ss_generator"]
        generator.no_shortcut = not use_distillation
        generator.reverse_fn.strength = 0 if use_distillation else self.ss_cfg_strength
        before = generator.inference_steps
        if inference_steps:
            generator.inference_steps = inference_steps
        with torch.no_grad():
            shapes = {
                name: (1, m.pos_emb.shape[0], m.input_layer.in_features)
                for name, m in generator.reverse_fn.backbone.latent_mapping.items()
            }
            embedder = self.condition_embedders["ss_condition_embedder"]
            args, kwargs = self.get_condition_input(embedder, ss_input_dict, [])
            result = generator(shapes, self.device, *args, **kwargs)
            latent = result["shape"].transpose(1, 2).reshape(1, 8, LATENT, LATENT, LATENT)
            coords = torch.argwhere(self.models["ss_decoder"](latent) > 0)[:, [0, 2, 3, 4]].int()
        full = torch.zeros((GRID,) * 3)
        full[tuple(coords[:, 1:].long().unbind(1))] = 1
        inside = nn.functional.avg_pool3d(full[None, None], 3, 1, 1)[0, 0] > 0.999
        result["coords_original"] = coords
        result["coords"] = coords[~inside[tuple(coords[:, 1:].long().unbind(1))]]
        result["downsample_factor"] = 1
        generator.inference_steps = before
        return result

    def sample_slat(self, slat_input, coords, inference_steps=25, use_distillation=False):
        generator = self.models["slat_generator"]
        before = generator.inference_steps
        if inference_steps:
            generator.inference_steps = inference_steps
        generator.no_shortcut = not use_distillation
        generator.reverse_fn.strength = 0 if use_distillation else self.slat_cfg_strength
        with torch.no_grad():
            embedder = self.condition_embedders["slat_condition_embedder"]
            args, kwargs = self.get_condition_input(embedder, slat_input, [])
            args += (coords.cpu().numpy(),)
            slat = generator((1, len(coords), 8), self.device, *args, **kwargs)
            slat = SparseTensor(slat[0], coords).to(self.device) * self.slat_std + self.slat_mean
        generator.inference_steps = before
        return slat

    def decode_slat(self, slat, formats):
        names = {"mesh": "slat_decoder_mesh", "gaussian": "slat_decoder_gs"}
        with torch.no_grad():
            return {name: self.models[decoder](slat) for name, decoder in names.items() if name in formats}

    def postprocess_slat_output(self, outputs, *options):
        return outputs | {"gs": outputs["gaussian"][0], "glb": None}

    def run(
        self,
        image,
        mask=None,
        seed=None,
        stage1_only=False,
        stage1_inference_steps=None,
        stage2_inference_steps=None,
        use_stage1_distillation=False,
        use_stage2_distillation=False,
        pointmap=None,
        decode_formats=None,
    ):
        image = self.merge_image_and_mask(image, mask)
        with self.device:
            self.compute_pointmap(image, pointmap)
            ss_input, slat_input = self.preprocess_image(image), self.preprocess_image(image)
            if seed is not None:
                torch.manual_seed(seed)
            result = self.sample_sparse_structure(ss_input, stage1_inference_steps, use_stage1_distillation)
            result["scale"] = result["scale"].exp() * result["downsample_factor"]
            if stage1_only:
                return result
            slat = self.sample_slat(slat_input, result["coords"], stage2_inference_steps, use_stage2_distillation)
            outputs = self.decode_slat(slat, self.decode_formats if decode_formats is None else decode_formats)
            return result | self.postprocess_slat_output(outputs)


class Inference:
    """The notebook's object."""

    def __init__(self, pipeline):
        self._pipeline = pipeline

    def __call__(self, image, mask, seed=None):
        rgba = np.concatenate([image[..., :3], mask.astype(np.uint8)[..., None] * 255], axis=-1)
        return self._pipeline.run(rgba, None, seed)
