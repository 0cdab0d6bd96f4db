"""TRELLIS' pipeline: opposite direction of time, sampler classes, sparse velocities."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from host_stand_ins.networks import (
    CONDITION,
    DenseStructureNetwork,
    GaussianDecoder,
    LatentNetwork,
    MeshDecoder,
    StructureDecoder,
)
from host_stand_ins.sparse import SparseTensor


class FlowEulerSampler:
    def _inference_model(self, model, x_t, t, cond=None, **kwargs):
        time = torch.tensor([1000 * t] * x_t.shape[0], dtype=torch.float32)
        if cond.shape[0] == 1 and x_t.shape[0] > 1:
            cond = cond.repeat(x_t.shape[0], 1, 1)
        return model(x_t, time, cond, **kwargs)

    @torch.no_grad()
    def sample_once(self, model, x_t, t, t_prev, cond=None, **kwargs):
        velocity = self._inference_model(model, x_t, t, cond, **kwargs)
        return x_t - (t - t_prev) * velocity

    def euler(self, model, noise, cond, steps, rescale_t, **kwargs):
        times = np.linspace(1, 0, steps + 1)
        times = rescale_t * times / (1 + (rescale_t - 1) * times)
        x = noise
        for t, t_prev in itertools.pairwise(times):
            x = self.sample_once(model, x, t, t_prev, cond, **kwargs)
        return SimpleNamespace(samples=x)


class FlowEulerGuidanceIntervalSampler(FlowEulerSampler):
    def _inference_model(self, model, x_t, t, cond, neg_cond, cfg_strength, cfg_interval, **kwargs):
        pred = super()._inference_model(model, x_t, t, cond, **kwargs)
        if not cfg_interval[0] <= t <= cfg_interval[1]:
            return pred
        neg_pred = super()._inference_model(model, x_t, t, neg_cond, **kwargs)
        return (1 + cfg_strength) * pred - cfg_strength * neg_pred

    def sample(
        self,
        model,
        noise,
        cond,
        neg_cond,
        steps=50,
        rescale_t=1.0,
        cfg_strength=3.0,
        cfg_interval=(0.0, 1.0),
        verbose=True,
        **kwargs,
    ):
        guidance = {"neg_cond": neg_cond, "cfg_strength": cfg_strength, "cfg_interval": cfg_interval}
        return self.euler(model, noise, cond, steps, rescale_t, **guidance, **kwargs)


class RescaledGuidanceSampler(FlowEulerGuidanceIntervalSampler):
    """Guidance as in TRELLIS.2: strength 1 and 0 run one branch alone; the data estimate keeps the deviation of `c`."""

    def _inference_model(self, model, x_t, t, cond, neg_cond, cfg_strength, cfg_interval, cfg_rescale=0.0, **kwargs):
        plain = super(FlowEulerGuidanceIntervalSampler, self)._inference_model
        strength = cfg_strength if cfg_interval[0] <= t <= cfg_interval[1] else 1
        if strength in (0, 1):
            return plain(model, x_t, t, cond if strength == 1 else neg_cond, **kwargs)
        pred = plain(model, x_t, t, cond, **kwargs)
        guided = strength * pred + (1 - strength) * plain(model, x_t, t, neg_cond, **kwargs)
        if cfg_rescale == 0:
            return guided
        data, own = x_t - t * guided, x_t - t * pred
        ratio = std(own) / std(data)
        rescaled = cfg_rescale * (data * ratio) + (1 - cfg_rescale) * data
        return (x_t - rescaled) * (1 / t)


def std(x):
    return (x if isinstance(x, torch.Tensor) else x.feats).std()


class ImageEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj, self.calls = nn.Linear(3 * 64, CONDITION), 0

    def forward(self, x, is_training=False):
        self.calls += 1
        return {"x_prenorm": self.proj(nn.functional.unfold(x, 8, stride=8).transpose(1, 2))}


class TrellisImageTo3DPipeline:
    def __init__(self):
        self.models = {
            "sparse_structure_decoder": StructureDecoder(),
            "sparse_structure_flow_model": DenseStructureNetwork(),
            "slat_flow_model": LatentNetwork(),
            "slat_decoder_gs": GaussianDecoder(),
            "slat_decoder_mesh": MeshDecoder(),
            "image_cond_model": ImageEncoder(),
        }
        for model in self.models.values():
            model.eval().requires_grad_(False)
        self.sparse_structure_sampler = FlowEulerGuidanceIntervalSampler()
        self.slat_sampler = FlowEulerGuidanceIntervalSampler()
        defaults = {"steps": 25, "cfg_strength": 5.0, "cfg_interval": (0.5, 1.0), "rescale_t": 3.0}
        self.sparse_structure_sampler_params, self.slat_sampler_params = dict(defaults), dict(defaults)

    @property
    def device(self):
        return self.models["slat_flow_model"].device

    def preprocess_image(self, image):
        return image.convert("RGB")

    def get_cond(self, image):
        pixels = np.stack([np.array(i.convert("RGB"), dtype=np.float32) / 255 for i in image])
        pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        cond = self.models["image_cond_model"](pixels, is_training=True)["x_prenorm"]
        return {"cond": cond, "neg_cond": torch.zeros_like(cond)}

    def sample_sparse_structure(self, cond, num_samples=1, sampler_params={}):  # noqa: B006
        model = self.models["sparse_structure_flow_model"]
        noise = torch.randn(num_samples, model.in_channels, *[model.resolution] * 3)
        params = {**self.sparse_structure_sampler_params, **sampler_params}
        z = self.sparse_structure_sampler.sample(model, noise, **cond, **params, verbose=True).samples
        return torch.argwhere(self.models["sparse_structure_decoder"](z) > 0)[:, [0, 2, 3, 4]].int()

    def sample_slat(self, cond, coords, sampler_params={}):  # noqa: B006
        model = self.models["slat_flow_model"]
        noise = SparseTensor(torch.randn(len(coords), model.in_channels), coords)
        params = {**self.slat_sampler_params, **sampler_params}
        return self.slat_sampler.sample(model, noise, **cond, **params, verbose=True).samples * 0.5

    def decode_slat(self, slat, formats=("mesh", "gaussian", "radiance_field")):
        names = {"mesh": "slat_decoder_mesh", "gaussian": "slat_decoder_gs"}
        return {name: self.models[decoder](slat) for name, decoder in names.items() if name in formats}

    @torch.no_grad()
    def run(
        self,
        image,
        num_samples=1,
        seed=42,
        sparse_structure_sampler_params={},  # noqa: B006
        slat_sampler_params={},  # noqa: B006
        formats=("mesh", "gaussian"),
        preprocess_image=True,
    ):
        image = self.preprocess_image(image) if preprocess_image else image
        cond = self.get_cond([image])
        torch.manual_seed(seed)
        coords = self.sample_sparse_structure(cond, num_samples, sparse_structure_sampler_params)
        return self.decode_slat(self.sample_slat(cond, coords, slat_sampler_params), formats)

    @contextmanager
    def several_images(self, sampler, count):
        """One picture after the other: the sampler's evaluation is replaced on the instance, and put back as it was."""
        turns, before = list(range(count)) * 50, sampler._inference_model

        def one_image(model, x_t, t, cond, **kwargs):
            turn = turns.pop(0)
            return before(model, x_t, t, cond=cond[turn : turn + 1], **kwargs)

        sampler._inference_model = one_image
        yield
        sampler._inference_model = before


class ThreeStagePipeline(TrellisImageTo3DPipeline):
    """A third sampled stage: one sampler draws the structured latent and then its details by another network."""

    def __init__(self):
        super().__init__()
        self.models["detail_flow_model"] = LatentNetwork().eval().requires_grad_(False)

    def sample_slat(self, cond, coords, sampler_params={}):  # noqa: B006
        slat = super().sample_slat(cond, coords, sampler_params)
        model = self.models["detail_flow_model"]
        noise = slat.replace(torch.randn(len(slat.feats), model.in_channels))
        params = {**self.slat_sampler_params, **sampler_params}
        return slat + self.slat_sampler.sample(model, noise, **cond, **params, verbose=True).samples * 0.1
