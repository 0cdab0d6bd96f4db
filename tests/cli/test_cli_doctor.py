"""`doctor`: what it says of packages, devices, upstream code, checkpoint folders and memory."""

from __future__ import annotations

import importlib.util
import json
import re
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fastsam3d.basics.threads.limits import CoreLimits
from fastsam3d.basics.threads.openmp import SPINNING
from fastsam3d.cli import doctor_checks
from fastsam3d.cli.commands import doctor
from fastsam3d.cli.main import main
from fastsam3d.sam3d.checkpoints.folder import EMBEDDER_PREFIX, GENERATOR_PREFIX
from fastsam3d.sam3d.checkpoints.loading import model_config
from fastsam3d.sam3d.models.build import build_condition_embedders, build_models
from fastsam3d.sam3d.models.config import ModelConfig


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    config = model_config("mini")
    return replace(
        config,
        ss_generator=replace(config.ss_generator, num_blocks=1),
        slat_generator=replace(config.slat_generator, num_blocks=1),
        slat_decoder_mesh=replace(config.slat_decoder_mesh, num_blocks=1),
    )


@pytest.fixture
def folder(config: ModelConfig, tmp_path: Path) -> Path:
    """A whole checkpoint folder of the tiny model: generators as .ckpt, decoders as .safetensors."""
    with torch.random.fork_rng(devices=[]):
        models, embedders = build_models(config), build_condition_embedders(config)
    for name, module in models.items():
        state = dict(module.state_dict())
        if name.endswith("generator"):
            embedder = embedders[name.replace("generator", "condition_embedder")].state_dict()
            state = {GENERATOR_PREFIX + key: value for key, value in state.items()}
            state |= {EMBEDDER_PREFIX + key: value for key, value in embedder.items()}
            torch.save({"state_dict": state}, tmp_path / f"{name}.ckpt")
        else:
            save_file(state, tmp_path / f"{name}.safetensors")
    (tmp_path / "pipeline.yaml").write_text("slat_cfg_strength: 1\nss_inference_steps: 12\n")
    return tmp_path


@pytest.fixture
def ask(config: ModelConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs doctor on the tiny model; (exit code, stdout, stderr)."""
    monkeypatch.setattr("fastsam3d.sam3d.checkpoints.loading.model_config", lambda name: config)

    def ask(*words: object) -> tuple[int, str, str]:
        code = main(["doctor", *(str(word) for word in words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return ask


def test_without_a_folder(ask) -> None:
    code, out, err = ask()
    assert (code, err) == (0, "")
    assert "checkpoint: none was named" in out
    assert torch.__version__ in out
    assert "memory on the device" in out


def test_whole_folder(ask, folder) -> None:
    code, out, _ = ask(f"checkpoint_dir={folder}")
    assert code == 0
    assert f"checkpoint {folder}: whole" in out
    assert "pipeline.yaml sets ss_sampler otherwise" in out
    code, out, _ = ask(f"checkpoint_dir={folder}", "--json")
    report = json.loads(out)
    assert report["checkpoint"]["whole"]
    assert report["checkpoint"]["settings"]["differences"]["ss_sampler"]["inference_steps"] == 12
    (file,) = [f for f in report["checkpoint"]["files"] if f["network"] == "ss_decoder"]
    assert file["bytes"] == (folder / "ss_decoder.safetensors").stat().st_size


def test_threads_are_told_with_quota_load_and_waiting(ask, monkeypatch) -> None:
    monkeypatch.setattr(doctor_checks, "core_limits", lambda: CoreLimits((0, 1, 2, 3), 2.5))
    monkeypatch.setattr(doctor_checks.LoadMeter, "others", lambda self: 3.25)
    monkeypatch.setattr(doctor_checks.time, "sleep", lambda seconds: None)
    for name in SPINNING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    number = torch.get_num_threads()
    _, out, _ = ask()
    expected = f"threads: {number} on an idle machine, 1 now, with 0.8 of 4 cores free; quota of 2.5 cores"
    assert f"{expected}; waiting: OMP_WAIT_POLICY=passive\n" in out
    monkeypatch.setattr(doctor_checks.LoadMeter, "others", lambda self: None)  # not Linux
    monkeypatch.setattr(doctor_checks, "core_limits", lambda: CoreLimits((0, 1), None))
    _, out, _ = ask()
    assert f"threads: {number} on an idle machine; no quota; waiting: OMP_WAIT_POLICY=passive\n" in out
    found = json.loads(ask("--json")[1])["environment"]["processor"]
    assert (found["cores"], found["quota"], found["free_cores"], found["threads_now"]) == (2, None, None, number)


DAMAGE = {
    "missing file": (lambda f: (f / "ss_decoder.safetensors").unlink(), ["missing: no ss_decoder.ckpt or"]),
    "truncated safetensors": (
        lambda f: (f / "ss_decoder.safetensors").write_bytes((f / "ss_decoder.safetensors").read_bytes()[:-4]),
        ["ss_decoder.safetensors cannot be read"],
    ),
    "truncated checkpoint": (
        lambda f: (f / "ss_generator.ckpt").write_bytes((f / "ss_generator.ckpt").read_bytes()[:-500]),
        ["ss_generator.ckpt cannot be read"],
    ),
    "missing tensors": (
        lambda f: torch.save({"state_dict": {}}, f / "slat_generator.ckpt"),
        ["slat_generator: ", "missing", "slat_condition_embedder: "],
    ),
    "misshapen": (
        lambda f: save_file({"input_layer.bias": torch.zeros(3)}, f / "ss_decoder.safetensors"),
        ["input_layer.bias is [3] instead of"],
    ),
    "settings": (
        lambda f: (f / "pipeline.yaml").write_text("slat_cfg_strength: much"),
        ["slat_cfg_strength is 'much'"],
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named_and_is_exit_code_1(ask, folder, case) -> None:
    damage, expected = DAMAGE[case]
    damage(folder)
    code, out, err = ask(f"checkpoint_dir={folder}")
    assert (code, err) == (1, "")
    assert "CANNOT BE LOADED" in out
    said = " ".join(out.split())
    for part in expected:
        assert part in said, out


def test_unusable_words_and_folders(ask, tmp_path) -> None:
    for words, expected in (
        (["checkpoint=x"], "unknown key 'checkpoint'"),
        ([f"checkpoint_dir={tmp_path / 'no'}"], "does not exist"),
        ([f"checkpoint_dir={tmp_path}"], "holds no networks"),
    ):
        code, out, err = ask(*words)
        assert (code, out) == (2, "")
        assert expected in err and len(err.splitlines()) == 1


def test_packages_are_looked_up_and_not_imported(monkeypatch) -> None:
    specs = {"xformers": object(), "moge": None}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: specs.get(name))
    monkeypatch.setattr(doctor_checks.metadata, "packages_distributions", lambda: {"xformers": ["xformers-fork"]})

    def version(name):
        if name == "xformers-fork":
            return "9.9"
        raise doctor_checks.metadata.PackageNotFoundError

    monkeypatch.setattr(doctor_checks.metadata, "version", version)
    found = {package["module"]: package["version"] for package in doctor_checks.packages()}
    assert found["xformers"] == "9.9"
    assert found["moge"] is None
    text = "\n".join(doctor._packages("title", doctor_checks.packages()))
    assert "missing: no depth=moge" in text
    assert "missing: no `demo` (pip install 'fastsam3d[demo]')" in text


def test_every_extra_is_known() -> None:
    """What an extra brings, doctor can miss."""
    tomllib = pytest.importorskip("tomllib", reason="Python below 3.11 has no tomllib")
    root = Path(__file__).resolve().parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    known = {package.distribution: package.extra for package in doctor_checks.PACKAGES}
    for extra, lines in extras.items():
        if extra in ("dev", "browser", "trellis", "xformers"):  # tools of tests, and packages of other pipelines
            continue
        for line in lines:
            name = re.match(r"[\w.-]+", line)[0].replace("_", "-")
            assert name in known, f"{name} of the extra {extra}"
        assert extra in known.values()


def test_devices_and_what_fits(monkeypatch) -> None:
    properties = types.SimpleNamespace(name="Card", total_memory=8 * 10**9, major=7, minor=5)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    found = doctor_checks.environment()
    text = "\n".join(doctor._environment(found))
    assert "Card, 7.5 GiB, capability 7.5, no bfloat16" in text
    entries = [
        {"memory": "none", "precision": "float32", "voxels": 1, "refused": "too much", "bytes": {}},
        _entry("12gb", "float16", 9 * 10**9),
        _entry("8gb", "float16", 7 * 10**9),
    ]
    lines = doctor._memory("sam3d", {"a": 3 * 10**9}, entries, found["devices"])
    assert "refused" in lines[3]
    assert "8.4 GiB" in lines[4] and "on the host" in lines[4] and "surface extraction" in lines[4]
    assert lines[-1] == "  Card: memory=8gb precision=float16"


def _entry(setting: str, precision: str, peak: int) -> dict[str, object]:
    return {
        "memory": setting,
        "precision": precision,
        "voxels": 1,
        "refused": None,
        "weights": "host",
        "largest": "surface",
        "bytes": {"off": peak - 1, "balanced": peak},
        "gaussian_bytes": None,
    }


def test_memory_of_the_official_sizes() -> None:
    """The smaller the card, the less is on it; Gaussians alone never need more; what is counted keeps to the budget."""
    entries = {(e["memory"], e["precision"]): e for e in doctor_checks.memory(model_config("sam3d"))}
    for precision in ("float32", "float16"):
        peaks = [entries[name, precision] for name in ("none", "24gb", "12gb", "8gb")]
        sizes = [max(entry["bytes"].values()) for entry in peaks if not entry["refused"]]
        assert len(sizes) >= 3
        assert sizes == sorted(sizes, reverse=True)
        for entry in peaks:
            if not entry["refused"]:
                assert entry["gaussian_bytes"] <= max(entry["bytes"].values())
                assert entry["memory"] == "none" or max(entry["bytes"].values()) < int(entry["memory"][:-2]) * 2**30
    assert entries["none", "float32"]["weights"] == "device"
    assert entries["8gb", "float32"]["weights"] == "host"
    assert entries["none", "float32"]["bytes"]["balanced"] > 4 * 3.07e9


def test_weights_of_the_official_sizes() -> None:
    """Against the parameter counts of docs/facts.md, section S11, in millions."""
    networks = doctor_checks.networks_on_meta(model_config("sam3d"))
    millions = {name: count / 1e6 for name, count in doctor_checks.weights(networks).items()}
    expected = {
        "ss_generator": 960.0,
        "ss_condition_embedder": 634.5,
        "ss_decoder": 73.7,
        "slat_generator": 600.4,
        "slat_condition_embedder": 626.1,
        "slat_decoder_mesh": 90.9,
        "slat_decoder_gs": 85.4,
    }
    assert millions == pytest.approx(expected, abs=0.06)


def test_installed_upstream_code_is_read(tmp_path) -> None:
    for name, classes in doctor_checks.UPSTREAM_NAMES.items():
        lines = []
        for kind, methods in classes.items():
            lines += [f"class {kind}:", *(f"    def {method}(self): raise SystemExit" for method in methods)]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(["raise SystemExit('imported')", *lines]))
    assert doctor_checks.upstream_differences(tmp_path) == []
    path = tmp_path / "pipeline" / "inference_pipeline.py"
    path.write_text(path.read_text().replace("sample_slat", "sample_latents"))
    (tmp_path / "pipeline" / "inference_pipeline_pointmap.py").write_text("class Other: pass")
    (tmp_path / "model" / "backbone" / "generator" / "shortcut" / "model.py").unlink()
    assert doctor_checks.upstream_differences(tmp_path) == [
        "InferencePipeline has no method sample_slat",
        "pipeline/inference_pipeline_pointmap.py has no class InferencePipelinePointMap",
        "model/backbone/generator/shortcut/model.py is missing or unreadable",
    ]
