"""TRELLIS.2's pipelines and Pixal3D's: one sampler for two networks, guidance with rescale, a cascade, textures.

Grids are a quarter as wide as the genuine ones: structure 16 voxels a side, modes 512 and 1024 at 128 and 256.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from host_stand_ins.networks import CONDITION, LATENT, StructureDecoder
from host_stand_ins.trellis2_networks import (
    CHANNELS,
    LatentFlow,
    MeshWithVoxel,
    ShapeDecoder,
    SparseTensor,
    StructureFlow,
    TextureDecoder,
)

QUARTER = 4


class FlowEulerSampler:
    def __init__(self, sigma_min=1e-5):
        self.sigma_min = sigma_min

    def _xstart(self, x_t, t, pred):
        return (1 - self.sigma_min) * x_t - (self.sigma_min + (1 - self.sigma_min) * t) * pred

    def _inference_model(self, model, x_t, t, cond=None, **kwargs):
        times = torch.tensor([1000 * t] * x_t.shape[0], dtype=torch.float32)
        return model(x_t, times, cond, **kwargs)

    @torch.no_grad()
    def sample_once(self, model, x_t, t, t_prev, cond=None, **kwargs):
        pred = self._inference_model(model, x_t, t, cond, **kwargs)
        return SimpleNamespace(pred_x_prev=x_t - (t - t_prev) * pred, pred_x_0=self._xstart(x_t, t, pred))

    def euler(self, model, noise, cond, steps, rescale_t, **kwargs):
        times = np.linspace(1, 0, steps + 1)
        times = (rescale_t * times / (1 + (rescale_t - 1) * times)).tolist()
        sample, kept = noise, []
        for t, t_prev in itertools.pairwise(times):
            out = self.sample_once(model, sample, t, t_prev, cond, **kwargs)
            sample = out.pred_x_prev
            kept.append(out.pred_x_0)
        return SimpleNamespace(samples=sample, pred_x_0=kept)


class FlowEulerGuidanceIntervalSampler(FlowEulerSampler):
    def _inference_model(
        self, model, x_t, t, cond, neg_cond, guidance_strength, guidance_interval, guidance_rescale=0.0, **kwargs
    ):
        plain = super()._inference_model
        strength = guidance_strength if guidance_interval[0] <= t <= guidance_interval[1] else 1
        if strength in (0, 1):
            return plain(model, x_t, t, cond if strength == 1 else neg_cond, **kwargs)
        positive, negative = plain(model, x_t, t, cond, **kwargs), plain(model, x_t, t, neg_cond, **kwargs)
        pred = strength * positive + (1 - strength) * negative
        if guidance_rescale > 0:
            own, guided = self._xstart(x_t, t, positive), self._xstart(x_t, t, pred)
            axes = list(range(1, len(own.shape)))
            scaled = guided * (own.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True))
            data = guidance_rescale * scaled + (1 - guidance_rescale) * guided
            pred = ((1 - self.sigma_min) * x_t - data) / (self.sigma_min + (1 - self.sigma_min) * t)
        return pred

    def sample(
        self,
        model,
        noise,
        cond,
        neg_cond,
        steps=50,
        rescale_t=1.0,
        guidance_strength=3.0,
        guidance_interval=(0.0, 1.0),
        verbose=True,
        **kwargs,
    ):
        kwargs.pop("tqdm_desc", None)
        guidance = {"guidance_strength": guidance_strength, "guidance_interval": guidance_interval}
        return self.euler(model, noise, cond, steps, rescale_t, neg_cond=neg_cond, **guidance, **kwargs)


class ImageEncoder:
    """No module, and called through its class: an instance attribute has no effect."""

    def __init__(self):
        self.image_size, self.projection, self.calls = 512, nn.Linear(3, CONDITION), 0

    def to(self, device):
        self.projection.to(device)

    def cpu(self):
        self.projection.cpu()

    def __call__(self, images):
        self.calls += 1
        side = 2 if self.image_size == 512 else 4
        pixels = torch.from_numpy(np.stack([np.array(image.convert("RGB"), np.float32) / 255 for image in images]))
        small = nn.functional.adaptive_avg_pool2d(pixels.permute(0, 3, 1, 2), side)
        return self.projection(small.flatten(2).transpose(1, 2) * 8 - 4)


DEFAULTS = {
    "sparse_structure_sampler": {"guidance_rescale": 0.7, "guidance_strength": 7.5, "rescale_t": 5.0},
    "shape_slat_sampler": {"guidance_rescale": 0.5, "guidance_strength": 7.5, "rescale_t": 3.0},
    "tex_slat_sampler": {"guidance_rescale": 0.0, "guidance_strength": 1.0, "rescale_t": 3.0},
}


def normalization(seed):
    values = torch.Generator().manual_seed(seed)
    return {
        "mean": torch.randn(CHANNELS, generator=values).tolist(),
        "std": (torch.rand(CHANNELS, generator=values) + 0.5).tolist(),
    }


class Pipeline:
    """What both pipelines of TRELLIS.2 do."""

    def __init__(self, models, samplers):
        self.models = models
        for model in models.values():
            model.eval().requires_grad_(False)
        for name in samplers:
            setattr(self, name, FlowEulerGuidanceIntervalSampler())
            ends = (0.6, 0.9) if name.startswith("tex") else (0.6, 1.0)
            setattr(self, f"{name}_params", {"steps": 12, "guidance_interval": ends, **DEFAULTS[name]})
        self.image_cond_model, self.low_vram, self._device = ImageEncoder(), True, "cpu"
        self.shape_slat_normalization, self.tex_slat_normalization = normalization(1), normalization(2)

    @property
    def device(self):
        return torch.device(self._device)

    def preprocess_image(self, input):
        return input.convert("RGB")

    def get_cond(self, image, resolution, include_neg_cond=True):
        self.image_cond_model.image_size = resolution
        cond = self.image_cond_model(image)
        return {"cond": cond, "neg_cond": torch.zeros_like(cond)}

    def moved(self, model):
        if self.low_vram:
            model.to(self.device)
        return model

    def sample_tex_slat(self, cond, flow_model, shape_slat, sampler_params={}):  # noqa: B006
        mean, std = (torch.tensor(self.shape_slat_normalization[k])[None] for k in ("mean", "std"))
        shape_slat = (shape_slat - mean) / std
        noise = shape_slat.replace(torch.randn(len(shape_slat.coords), flow_model.in_channels - CHANNELS))
        params = {**self.tex_slat_sampler_params, **sampler_params}
        sample = self.tex_slat_sampler.sample
        kept = sample(self.moved(flow_model), noise, concat_cond=shape_slat, **cond, **params, tqdm_desc="Texture")
        mean, std = (torch.tensor(self.tex_slat_normalization[k])[None] for k in ("mean", "std"))
        return kept.samples * std + mean


class Trellis2ImageTo3DPipeline(Pipeline):
    def __init__(self, projected=False, dtype=torch.float32):
        options = {"projected": projected, "dtype": dtype}
        models = {
            "sparse_structure_flow_model": StructureFlow(**options),
            "sparse_structure_decoder": StructureDecoder(),
            "shape_slat_flow_model_512": LatentFlow(8, **options),
            "shape_slat_flow_model_1024": LatentFlow(16, **options),
            "shape_slat_decoder": ShapeDecoder(),
            "tex_slat_flow_model_512": LatentFlow(8, texture=True, **options),
            "tex_slat_flow_model_1024": LatentFlow(16, texture=True, **options),
            "tex_slat_decoder": TextureDecoder(),
        }
        super().__init__(models, list(DEFAULTS))
        self.default_pipeline_type = "1024_cascade"

    def sample_sparse_structure(self, cond, resolution, num_samples=1, sampler_params={}):  # noqa: B006
        model = self.models["sparse_structure_flow_model"]
        noise = torch.randn(num_samples, model.in_channels, *[model.resolution] * 3)
        params = {**self.sparse_structure_sampler_params, **sampler_params}
        z = self.sparse_structure_sampler.sample(self.moved(model), noise, **cond, **params, verbose=True).samples
        decoded = self.models["sparse_structure_decoder"](z) > 0
        if resolution != decoded.shape[2]:
            ratio = decoded.shape[2] // resolution
            decoded = nn.functional.max_pool3d(decoded.float(), ratio, ratio, 0) > 0.5
        return torch.argwhere(decoded)[:, [0, 2, 3, 4]].int()

    def _sampled(self, model, cond, coords, sampler_params):
        noise = SparseTensor(torch.randn(len(coords), model.in_channels), coords)
        params = {**self.shape_slat_sampler_params, **sampler_params}
        slat = self.shape_slat_sampler.sample(self.moved(model), noise, **cond, **params, verbose=True).samples
        mean, std = (torch.tensor(self.shape_slat_normalization[k])[None] for k in ("mean", "std"))
        return slat * std + mean

    def sample_shape_slat(self, cond, flow_model, coords, sampler_params={}):  # noqa: B006
        return self._sampled(flow_model, cond, coords, sampler_params)

    def sample_shape_slat_cascade(
        self,
        lr_cond,
        cond,
        flow_model_lr,
        flow_model,
        lr_resolution,
        resolution,
        coords,
        sampler_params={},  # noqa: B006
        max_num_tokens=49152,
    ):
        slat = self._sampled(flow_model_lr, lr_cond, coords, sampler_params)
        fine = self.models["shape_slat_decoder"].upsample(slat, upsample_times=4)
        while True:
            places = ((fine[:, 1:] + 0.5) / lr_resolution * (resolution // 16)).int()
            coords = torch.cat([fine[:, :1], places], dim=1).unique(dim=0)
            if len(coords) < max_num_tokens or resolution == 1024 // QUARTER:
                break
            resolution -= 128 // QUARTER
        return self._sampled(flow_model, self.condition_at(cond, coords), coords, sampler_params), resolution

    def condition_at(self, cond, coords):
        return cond

    def decode_shape_slat(self, slat, resolution):
        self.models["shape_slat_decoder"].set_resolution(resolution)
        return self.models["shape_slat_decoder"](slat, return_subs=True)

    def decode_tex_slat(self, slat, subs):
        return self.models["tex_slat_decoder"](slat, guide_subs=subs) * 0.5 + 0.5

    @torch.no_grad()
    def decode_latent(self, shape_slat, tex_slat, resolution):
        meshes, subs = self.decode_shape_slat(shape_slat, resolution)
        colours = self.decode_tex_slat(tex_slat, subs)
        for mesh in meshes:
            mesh.fill_holes()
        origin, size = [-0.5] * 3, 1 / resolution
        return [MeshWithVoxel(m.vertices, origin, size, colours.coords[:, 1:], colours.feats) for m in meshes]

    @torch.no_grad()
    def run(
        self,
        image,
        num_samples=1,
        seed=42,
        sparse_structure_sampler_params={},  # noqa: B006
        shape_slat_sampler_params={},  # noqa: B006
        tex_slat_sampler_params={},  # noqa: B006
        preprocess_image=True,
        return_latent=False,
        pipeline_type=None,
        max_num_tokens=49152,
    ):
        mode = pipeline_type or self.default_pipeline_type
        image = self.preprocess_image(image) if preprocess_image else image
        torch.manual_seed(seed)
        low = self.get_cond([image], 512)
        high = self.get_cond([image], 1024) if mode != "512" else low
        structure_side = {"1024": 64}.get(mode, 32) // QUARTER
        coords = self.sample_sparse_structure(low, structure_side, num_samples, sparse_structure_sampler_params)
        params, models = shape_slat_sampler_params, self.models
        if mode in ("512", "1024"):
            cond, resolution = self.condition_at({"512": low, "1024": high}[mode], coords), int(mode) // QUARTER
            shape = self.sample_shape_slat(cond, models[f"shape_slat_flow_model_{mode}"], coords, params)
        else:
            sides = 512 // QUARTER, int(mode.partition("_")[0]) // QUARTER
            pair = (models[f"shape_slat_flow_model_{size}"] for size in (512, 1024))
            conditions = self.condition_at(low, coords), high
            shape, resolution = self.sample_shape_slat_cascade(
                *conditions, *pair, *sides, coords, params, max_num_tokens
            )
        texture = self.models[f"tex_slat_flow_model_{512 if mode == '512' else 1024}"]
        cond = self.condition_at(high, shape.coords)
        tex = self.sample_tex_slat(cond, texture, shape, tex_slat_sampler_params)
        meshes = self.decode_latent(shape, tex, resolution)
        return (meshes, (shape, tex, resolution)) if return_latent else meshes


class Pixal3DImageTo3DPipeline(Trellis2ImageTo3DPipeline):
    """Conditions are dicts; what is projected for each token comes on top."""

    def __init__(self):
        super().__init__(projected=True)
        self.image_cond_model_ss = self.image_cond_model

    def get_cond(self, image, resolution, include_neg_cond=True):
        cond = super().get_cond(image, resolution)
        tokens = torch.linspace(-1, 1, LATENT**3 * CONDITION).reshape(1, -1, CONDITION)
        both = {"cond": tokens + cond["cond"].mean(), "neg_cond": torch.zeros_like(tokens)}
        return {name: {"global": value, "proj": both[name]} for name, value in cond.items()}

    def condition_at(self, cond, coords):
        projected = torch.sin(coords[:, 1:].float() @ torch.linspace(0, 1, 3 * CONDITION).reshape(3, -1))
        values = {"cond": projected, "neg_cond": torch.zeros_like(projected)}
        return {k: {"global": v["global"], "proj": SparseTensor(values[k], coords)} for k, v in cond.items()}


class Trellis2TexturingPipeline(Pipeline):
    """A mesh, here its voxels, and a picture."""

    def __init__(self):
        models = {
            "shape_slat_encoder": nn.Linear(3, CHANNELS),
            "tex_slat_flow_model_512": LatentFlow(8, texture=True),
            "tex_slat_flow_model_1024": LatentFlow(16, texture=True),
            "tex_slat_decoder": TextureDecoder(),
        }
        super().__init__(models, ["tex_slat_sampler"])

    def encode_shape_slat(self, mesh, resolution=1024):
        return SparseTensor(self.models["shape_slat_encoder"](mesh[:, 1:].float() / 8 - 1), mesh)

    def postprocess_mesh(self, mesh, colours):
        return colours.feats

    @torch.no_grad()
    def run(self, mesh, image, seed=42, tex_slat_sampler_params={}, resolution=1024):  # noqa: B006
        image = self.preprocess_image(image)
        torch.manual_seed(seed)
        cond = self.get_cond([image], resolution)
        shape = self.encode_shape_slat(mesh, resolution)
        model = self.models[f"tex_slat_flow_model_{512 if resolution == 512 else 1024}"]
        return self.postprocess_mesh(mesh, self.sample_tex_slat(cond, model, shape, tex_slat_sampler_params))
