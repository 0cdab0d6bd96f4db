"""Checkpoint folders in the official layout, written here at a small size: loaded, run, damaged and partial."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from fastsam3d.errors import UserError
from fastsam3d.sam3d.checkpoints import loading
from fastsam3d.sam3d.checkpoints.folder import EMBEDDER_PREFIX, GENERATOR_PREFIX, locate, read_state
from fastsam3d.sam3d.checkpoints.loading import load_pipeline
from fastsam3d.sam3d.models.build import build_condition_embedders, build_models
from fastsam3d.sam3d.models.config import GaussianDecoderConfig, ModelConfig

NETWORKS = ("ss_generator", "slat_generator", "ss_decoder", "slat_decoder_mesh", "slat_decoder_gs")


class Callback:
    """Something that a training checkpoint carries beside its weights."""

    def __init__(self) -> None:
        self.best = {"loss": 0.5}


@pytest.fixture(scope="module")
def config(tiny_config: ModelConfig) -> ModelConfig:
    gaussians = GaussianDecoderConfig(
        resolution=tiny_config.resolution,
        latent_channels=len(tiny_config.slat_mean),
        model_channels=32,
        num_blocks=1,
        num_heads=2,
        window=8,
        gaussians=4,
    )
    return replace(
        tiny_config,
        ss_decoder=replace(tiny_config.ss_decoder, channels=(16, 8, 8)),
        slat_decoder_mesh=replace(tiny_config.slat_decoder_mesh, model_channels=32, upsample_channels=(16,)),
        slat_decoder_gs=gaussians,
    )


@pytest.fixture(scope="module")
def states(config: ModelConfig) -> dict[str, dict[str, torch.Tensor]]:
    """What each official file holds, by network: fp32 generators with both prefixes, half-precision decoders."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        models, embedders = build_models(config), build_condition_embedders(config)
    # Nothing is occupied: the pipeline takes the few highest logits, and a run is quick.
    models["ss_decoder"].out_layer[2].bias.data.fill_(-100.0)
    result = {}
    for name, module in models.items():
        state = dict(module.state_dict())
        if name.endswith("generator"):
            embedder = embedders[name.replace("generator", "condition_embedder")].state_dict()
            state = {GENERATOR_PREFIX + key: value for key, value in state.items()}
            state |= {EMBEDDER_PREFIX + key: value for key, value in embedder.items()}
            state["_base_models.decoder.unused"] = torch.zeros(1)
        else:
            state = {key: value.half() for key, value in state.items()}
        result[name] = state
    return result


@pytest.fixture(scope="module")
def official(states, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `hf download` makes: `checkpoints/` with .ckpt files and pipeline.yaml."""
    parent = tmp_path_factory.mktemp("sam-3d-objects")
    folder = parent / "checkpoints"
    folder.mkdir()
    settings: dict[str, object] = {
        "_target_": "sam3d_objects.pipeline.inference_pipeline_pointmap.InferencePipelinePointMap",
        "dtype": "float16",
        "slat_cfg_strength": 1,
        "slat_rescale_t": 1,
        "downsample_ss_dist": 1,
        "pose_decoder_name": "ScaleShiftInvariant",
        "ss_condition_input_mapping": [],
        "depth_model": {"_target_": "os.system", "command": "exit 1"},
    }
    for name, state in states.items():
        content: object = dict(state)
        if name.endswith("generator"):
            content = {
                "epoch": 3,
                "pytorch-lightning_version": "2.3.3",
                "state_dict": state,
                "callbacks": {"checkpoint": Callback()},
                "optimizer_states": [{"state": {0: {"step": torch.ones(1)}}, "param_groups": [Callback()]}],
                "hyper_parameters": Callback(),
            }
        torch.save(content, folder / f"{name}.ckpt")
        settings[f"{name}_config_path"] = f"{name}.yaml"
        settings[f"{name}_ckpt_path"] = f"{name}.ckpt"
        (folder / f"{name}.yaml").write_text("module: {}\n")
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(settings))
    return parent


@pytest.fixture
def copy(official: Path, tmp_path: Path) -> Path:
    """A copy of the official folder to be damaged."""
    return Path(shutil.copytree(official / "checkpoints", tmp_path / "checkpoints"))


@pytest.fixture
def load(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    monkeypatch.setattr(loading, "load_model_config", lambda path: config)
    return lambda folder, **options: load_pipeline("sam3d", checkpoint_dir=folder, **options)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


def assert_loaded(pipeline, states) -> None:
    for name, state in states.items():
        if name.endswith("generator"):
            embedder = pipeline.condition_embedders[name.replace("generator", "condition_embedder")].state_dict()
            own = {GENERATOR_PREFIX + key: value for key, value in pipeline.models[name].state_dict().items()}
            own |= {EMBEDDER_PREFIX + key: value for key, value in embedder.items()}
        else:
            own = pipeline.models[name].state_dict()
        for key, value in own.items():
            assert value.dtype == torch.float32
            assert torch.equal(value, state[key].float()), key


def test_official_folder_loads_and_runs(official, load, states, picture) -> None:
    pipeline = load(official)
    assert_loaded(pipeline, states)
    assert not any(parameter.requires_grad for parameter in pipeline.models.parameters())
    result = pipeline.run(*picture, seed=1, formats=("mesh", "gaussian"))
    assert len(result.structure.coords)
    assert len(result.gaussian) == 4 * len(result.structure.coords)
    assert result.mesh is not None


def test_safetensors_folder_loads_and_runs(load, states, picture, tmp_path) -> None:
    for name, state in states.items():
        save_file(state, tmp_path / f"{name}.safetensors")
    pipeline = load(tmp_path)
    assert_loaded(pipeline, states)
    result = pipeline.run(*picture, seed=1, formats=("gaussian",))
    assert len(result.gaussian) == 4 * len(result.structure.coords)


def test_safetensors_beside_the_named_file_is_preferred(copy, load, states) -> None:
    changed = {key: value + 1 for key, value in states["ss_decoder"].items()}
    save_file(changed, copy / "ss_decoder.safetensors")
    assert_loaded(load(copy), {"ss_decoder": changed})


def test_only_the_decoders_asked_for_are_read(copy, load) -> None:
    (copy / "slat_decoder_gs.ckpt").write_bytes(b"never looked at")
    pipeline = load(copy, formats=("mesh",))
    assert "slat_decoder_gs" not in pipeline.models
    with pytest.raises(UserError, match=r"slat_decoder_gs\.ckpt cannot be read"):
        load(copy)


def test_weights_of_the_right_type_stay_in_the_file(official, load) -> None:
    """Loading takes no second copy: the parameters are the mapped file's bytes."""
    path = official / "checkpoints" / "ss_generator.ckpt"
    weight = load(official).models["ss_generator"].reverse_fn.backbone.blocks[0].self_attn.to_qkv["shape"].weight
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list memory maps")
    ranges = [line.split()[0].split("-") for line in maps.read_text().splitlines() if line.endswith(str(path))]
    assert any(int(low, 16) <= weight.data_ptr() < int(high, 16) for low, high in ranges)


def test_settings_of_pipeline_yaml_are_used(copy, load, config) -> None:
    mean = [0.5] * len(config.slat_mean)
    edit(
        copy,
        ss_inference_steps=7,
        ss_cfg_strength=4.5,
        ss_cfg_interval=[0, 400],
        slat_rescale_t=2,
        downsample_ss_dist=0,
        slat_mean=mean,
    )
    pipeline = load(copy)
    generator = pipeline.models["ss_generator"]
    assert generator.inference_steps == 7
    assert generator.reverse_fn.strength == 4.5
    assert generator.reverse_fn.interval == (0.0, 400.0)
    assert generator.rescale_t == config.ss_sampler.rescale_t
    assert pipeline.models["slat_generator"].rescale_t == 2.0
    assert pipeline.config.downsample_ss_dist == 0
    assert pipeline.config.slat_mean == tuple(mean)
    assert pipeline.config.slat_std == config.slat_std


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ss_inference_steps": "many"}, "ss_inference_steps is 'many'"),
        ({"ss_inference_steps": 2.5}, "a whole number"),
        ({"slat_cfg_strength": "${oc.env:HOME}"}, "slat_cfg_strength is"),
        ({"ss_cfg_interval": [0]}, "a list of 2 numbers"),
        ({"slat_std": [1.0]}, "slat_std is [1.0]"),
        ({"slat_mean": {"_target_": "os.system"}}, "slat_mean is"),
        ({"downsample_ss_dist": True}, "downsample_ss_dist is True"),
        ({"pose_decoder_name": "ApparentSize"}, "pose decoder 'ApparentSize'"),
        ({"ss_decoder_ckpt_path": "../ss_decoder.ckpt"}, "no file inside the folder"),
        ({"ss_decoder_ckpt_path": "/etc/passwd"}, "no file inside the folder"),
    ],
)
def test_unusable_settings_are_named(copy, load, changes, expected) -> None:
    edit(copy, **changes)
    with pytest.raises(UserError, match=re.escape(expected)) as caught:
        load(copy)
    assert "pipeline.yaml" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["a: [", "just words", "- 1\n", "!!python/object/apply:os.system [exit]", "\0", "a: 2001-99-99"]
)
def test_damaged_pipeline_yaml(copy, load, text) -> None:
    (copy / "pipeline.yaml").write_text(text)
    with pytest.raises(UserError, match=r"pipeline\.yaml"):
        load(copy)


def test_another_crop_is_warned_of(copy, load, caplog) -> None:
    transforms = {"img_transform": {"transforms": [{"size": 224}]}, "joint": [{"box_size_factor": 1.2}]}
    edit(copy, slat_preprocessor=transforms)
    load(copy)
    assert [record.getMessage() for record in caplog.records if "size=224" in record.getMessage()]
    assert not [record for record in caplog.records if "box_size_factor" in record.getMessage()]


def test_partial_folders(copy, load, tmp_path) -> None:
    (copy / "slat_decoder_mesh.ckpt").unlink()
    with pytest.raises(UserError, match=r"no slat_decoder_mesh\.safetensors or slat_decoder_mesh\.ckpt"):
        load(copy)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no networks"):
        load(empty)
    with pytest.raises(UserError, match="is a file"):
        load(copy / "pipeline.yaml")


def test_truncated_and_foreign_files(copy, load) -> None:
    path = copy / "ss_generator.ckpt"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<html>gated</html>", b"version https://git-lfs"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"ss_generator\.ckpt cannot be read.*Download or copy it again"):
            load(copy)
    path.write_bytes((copy / "slat_generator.ckpt").read_bytes())
    with pytest.raises(UserError, match=r"missing .*unexpected"):
        load(copy)


def test_a_generator_without_its_embedder(copy, load, states) -> None:
    kept = {k: v for k, v in states["ss_generator"].items() if not k.startswith(EMBEDDER_PREFIX)}
    torch.save({"state_dict": kept}, copy / "ss_generator.ckpt")
    with pytest.raises(UserError, match=r"do not fit ConditionEmbedder: \d+ missing"):
        load(copy)


def test_folders_are_found_below(official) -> None:
    assert locate(official) == locate(official / "checkpoints") == official / "checkpoints"


def test_state_of_a_checkpoint_is_its_tensors(official, states) -> None:
    state = read_state(official / "checkpoints" / "slat_generator.ckpt")
    assert {key: value.shape for key, value in state.items()} == {
        key: value.shape for key, value in states["slat_generator"].items()
    }
