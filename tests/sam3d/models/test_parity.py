"""Every network against outputs of the genuine modules with the same weights (tests/data/parity/README.md)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from parity_rule import fill, uniform, voxels
from safetensors.torch import load_file
from torch import Tensor, nn

from fastsam3d.modules.flexicubes import extract_surface
from fastsam3d.sam3d.models.build import build_condition_embedder
from fastsam3d.sam3d.models.config import ConditionEmbedderConfig, DinoConfig, PointPatchConfig
from fastsam3d.sam3d.models.flow_matching import ClassifierFreeGuidance, FlowMatching, ShortCut
from fastsam3d.sam3d.models.precision import store_half
from fastsam3d.sam3d.models.sparse_structure_decoder import SparseStructureDecoder
from fastsam3d.sam3d.models.sparse_structure_generator import LATENT_CHANNELS, SparseStructureGenerator
from fastsam3d.sam3d.models.structured_latent_decoder import GaussianDecoder, MeshDecoder
from fastsam3d.sam3d.models.structured_latent_generator import StructuredLatentGenerator

DATA = Path(__file__).parents[2] / "data" / "parity"
TOLERANCE = 1e-4
"""Largest difference, relative to the largest recorded value."""
TIME = 437.5


def recorded(name: str) -> dict[str, Tensor]:
    return load_file(DATA / f"{name}.safetensors")


def assert_agree(ours: Tensor, genuine: Tensor, tolerance: float = TOLERANCE) -> None:
    assert ours.shape == genuine.shape
    assert genuine.abs().max() > 0.01
    difference = (ours - genuine).abs().max() / genuine.abs().max()
    assert difference <= tolerance, f"relative difference {difference:.2g}"


def condition_inputs(points: bool) -> dict[str, Tensor]:
    inputs = {
        "image": (uniform("image", 1, 3, 56, 56) + 1) / 2,
        "rgb_image": (uniform("rgb_image", 1, 3, 64, 64) + 1) / 2,  # not the embedder's size: it is resized
        "mask": (uniform("mask", 1, 1, 56, 56) > 0).float(),
        "rgb_image_mask": (uniform("rgb_image_mask", 1, 1, 56, 56) > 0.5).float(),
    }
    for name in ("pointmap", "rgb_pointmap") if points else ():
        inputs[name] = 2 * uniform(name, 1, 3, 56, 56)
        inputs[name][:, :, 20:30, 5:40] = torch.nan
        inputs[name][:, 1, 3, 4] = torch.inf
    return inputs


def small(name: str) -> nn.Module:
    """A network at the size of the recordings."""
    if name.endswith("embedder"):
        points = name.startswith("ss")
        image = DinoConfig(56, 14, 64, 2, 4, 4, prenorm_features=not points)
        pointmap = PointPatchConfig(32, 8, 32, 16) if points else None
        return build_condition_embedder(ConditionEmbedderConfig(64, 256, image, image, pointmap))
    return {
        "ss_generator": lambda: SparseStructureGenerator(4, 8, 64, 2, 4, 4.0, 48),
        "ss_decoder": lambda: SparseStructureDecoder(8, (32, 16, 8), 2, 2),
        "slat_generator": lambda: StructuredLatentGenerator(16, 8, 64, 2, 4, 4.0, 48, (32,), 2),
        "slat_decoder_gs": lambda: GaussianDecoder(16, 8, 64, 3, 4, 8, 32),
        "slat_decoder_gs_4": lambda: GaussianDecoder(16, 8, 64, 3, 4, 8, 4),
        "slat_decoder_mesh": lambda: MeshDecoder(8, 8, 256, 2, 4, 4, (64, 32)),
    }[name]()


NAMES = json.loads((DATA / "names.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_state_dicts_have_the_genuine_names_and_shapes(name: str) -> None:
    """Buffers too, which the rule of the weights leaves out."""
    lines = sorted(f"{key} {list(value.shape)}" for key, value in small(name).state_dict().items())
    count, digest = NAMES[name]
    assert len(lines) == count
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == digest


@pytest.mark.parametrize("name", ["ss_condition_embedder", "slat_condition_embedder"])
def test_condition_embedders(name: str) -> None:
    embedder = fill(small(name), name)
    assert_agree(embedder(**condition_inputs(name.startswith("ss"))), recorded(name)["tokens"])


def structure_sampler() -> ShortCut:
    return ShortCut(ClassifierFreeGuidance(small("ss_generator"), 7.0, (0.0, 500.0)), 4, 3.0)


def latent_sampler() -> FlowMatching:
    return FlowMatching(ClassifierFreeGuidance(small("slat_generator"), 1.0, (0.0, 500.0)), 4, 1.0)


@pytest.fixture(scope="module")
def ss_generator() -> ShortCut:
    return fill(structure_sampler(), "ss_generator")


def ss_inputs() -> tuple[dict[str, Tensor], Tensor]:
    tokens = dict.fromkeys(LATENT_CHANNELS, 1) | {"shape": 64}
    noise = {name: 1.7 * uniform(f"noise/{name}", 1, tokens[name], c) for name, c in LATENT_CHANNELS.items()}
    return noise, 1.7 * uniform("ss_condition", 1, 11, 48)


@pytest.mark.parametrize("case", ["conditional", "unconditional", "step_size_250"])
def test_ss_velocity(ss_generator: ShortCut, case: str) -> None:
    x, condition = ss_inputs()
    size = torch.tensor([250.0 if case == "step_size_250" else 0.0])
    velocity = ss_generator.reverse_fn.backbone(x, torch.tensor([TIME]), condition, d=size, cfg=case == "unconditional")
    genuine = recorded("ss_generator")
    for name in x:
        assert_agree(velocity[name], genuine[f"{case}.{name}"])


def test_ss_cases_differ() -> None:
    """Guidance and step size change the recorded velocity, so that agreeing on each case means something."""
    genuine = recorded("ss_generator")
    for case in ("unconditional", "step_size_250"):
        assert (genuine[f"{case}.shape"] - genuine["conditional.shape"]).abs().max() > 0.01


@pytest.mark.parametrize("case", ["sampled", "distilled"])
def test_ss_sampling(ss_generator: ShortCut, case: str) -> None:
    """Four steps of the genuine sampler: time grid, guidance interval, Euler steps, step-size embedding."""
    noise, condition = ss_inputs()
    sampler = ss_generator
    if case == "distilled":
        guided = ClassifierFreeGuidance(sampler.reverse_fn.backbone, 0.0, (0.0, 500.0))
        sampler = ShortCut(guided, 4, 3.0, shortcut=True).eval()
    result = sampler.sample(noise, condition)
    for name in noise:
        assert_agree(result[name], recorded("ss_generator")[f"{case}.{name}"])


@pytest.fixture(scope="module")
def slat_generator() -> FlowMatching:
    return fill(latent_sampler(), "slat_generator")


@pytest.mark.parametrize("case", ["conditional", "unconditional", "sampled"])
def test_slat_generator(slat_generator: FlowMatching, case: str) -> None:
    genuine = recorded("slat_generator")
    coords = voxels("slat", 150, 16)
    assert torch.equal(coords, genuine["coords"])
    x, condition = 1.7 * uniform("slat_noise", 1, 150, 8), 1.7 * uniform("slat_condition", 1, 13, 48)
    if case == "sampled":
        result = slat_generator.sample(x, condition, coords)
    else:
        backbone = slat_generator.reverse_fn.backbone
        result = backbone(x, torch.tensor(TIME), condition, coords, cfg=case == "unconditional")
    assert_agree(result, genuine[case])


def error(result: Tensor, reference: Tensor) -> float:
    """Root mean square of the difference, relative to that of the reference."""
    return float((result.float() - reference).norm() / reference.norm())


def assert_as_near_as_genuine(ours: Tensor, genuine: Tensor, reference: Tensor) -> None:
    """Rounding differs between two ways to compute the same in half precision; its size must not."""
    assert 1e-5 < error(genuine.float(), reference) < 2e-3
    assert error(ours, reference) < 1.3 * error(genuine.float(), reference)
    assert error(ours, genuine.float()) < 2e-3


def test_half_precision_rounds_as_much_as_upstream() -> None:
    """fp16 as upstream runs it (autocast; torso of the latent stage stored in fp16) and as `precision=float16` does."""
    genuine = recorded("half")
    structure = fill(structure_sampler(), "ss_generator")
    latents = fill(latent_sampler(), "slat_generator")
    for name, sampler in (("ss_generator", structure), ("slat_generator", latents)):
        store_half(name, sampler, torch.float16, torch.device("cuda"))
    x, condition = ss_inputs()
    noise, latent_condition = 1.7 * uniform("slat_noise", 1, 150, 8), 1.7 * uniform("slat_condition", 1, 13, 48)
    with torch.autocast("cpu", torch.float16):
        velocity = structure.reverse_fn.backbone(x, torch.tensor([TIME]), condition, d=torch.zeros(1))
        latent_velocity = latents.reverse_fn.backbone(
            noise, torch.tensor(TIME), latent_condition, voxels("slat", 150, 16)
        )
    reference = recorded("ss_generator")
    for name in ("shape", "6drotation_normalized"):
        assert_as_near_as_genuine(velocity[name], genuine[f"ss_generator.{name}"], reference[f"conditional.{name}"])
    assert_as_near_as_genuine(latent_velocity, genuine["slat_generator"], recorded("slat_generator")["conditional"])


def test_ss_decoder() -> None:
    decoder = fill(small("ss_decoder"), "ss_decoder")
    assert_agree(decoder(1.7 * uniform("ss_latent", 1, 64, 8)), recorded("ss_decoder")["logits"])


@pytest.mark.parametrize(("name", "count"), [("slat_decoder_gs", 120), ("slat_decoder_gs_4", 40)])
def test_gaussian_decoder(name: str, count: int) -> None:
    decoder = fill(small(name), "slat_decoder_gs")
    result = decoder(1.7 * uniform("gs_latent", count, 8), voxels("gs", count, 16))[0]
    genuine = recorded(name)  # every seventh Gaussian
    for field in ("xyz", "scaling", "rotation", "opacity", "features_dc"):
        assert_agree(getattr(result, field)[::7], genuine[f"raw_{field}"])
    for field in ("xyz", "scaling", "rotation", "opacity"):
        assert_agree(getattr(result, f"get_{field}")[::7], genuine[field])


def test_mesh_decoder_features() -> None:
    decoder = fill(small("slat_decoder_mesh"), "slat_decoder_mesh")
    output = decoder(1.7 * uniform("mesh_latent", 10, 8), voxels("mesh", 10, 8))
    genuine = recorded("slat_decoder_mesh")
    assert torch.equal(output.coords, genuine["coords"])
    assert_agree(output.feats, genuine["features"])


def test_surface_extraction() -> None:
    """The genuine dense FlexiCubes of the same features, random ones: ambiguous cubes, open borders and all.

    Vertices come in another order; they are matched by position, and faces by the vertices that they join.
    """
    genuine = recorded("slat_decoder_mesh")
    surface = extract_surface(genuine["coords"][:, 1:], genuine["features"], 32)
    assert surface.vertices.shape == genuine["vertices"].shape
    distance, match = torch.cdist(
        surface.vertices, genuine["vertices"], compute_mode="donot_use_mm_for_euclid_dist"
    ).min(dim=1)
    assert distance.max() < TOLERANCE
    assert len(match.unique()) == len(match)
    assert_agree(surface.attributes, genuine["attributes"][match])
    ours = {_cyclic(face) for face in match[surface.faces].tolist()}
    assert ours == {_cyclic(face) for face in genuine["faces"].tolist()}
    assert len(ours) > 1000


def _cyclic(face: list[int]) -> tuple[int, ...]:
    first = face.index(min(face))
    return tuple(face[first:] + face[:first])
