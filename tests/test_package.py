"""The package as a stranger meets it: names, versions, what is installed, and documents that agree with the code."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import fastsam3d
from fastsam3d.acceleration.presets import preset_info
from fastsam3d.basics.config_files import config_directory, preset_names
from fastsam3d.cli.flags import MODULES, PARAMETERS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PATCH = ROOT / "patching" / "hydra"


def test_public_names_are_there():
    for name in fastsam3d.__all__:
        assert getattr(fastsam3d, name) is not None
    assert set(fastsam3d.__all__) <= set(dir(fastsam3d))
    assert fastsam3d.presets() == preset_names()
    with pytest.raises(AttributeError, match="acelerate"):
        _ = fastsam3d.acelerate


def test_import_is_light_and_silent():
    code = (
        "import sys, fastsam3d; fastsam3d.presets(); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'hydra', 'trimesh')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_help_of_the_commands_for_users_answers_without_importing_pytorch():
    code = (
        "import sys; from fastsam3d.cli.main import main\n"
        "for verb in sys.argv[1:]:\n"
        "    try: main([verb, '--help'])\n"
        "    except SystemExit: pass\n"
        "    assert 'torch' not in sys.modules, verb\n"
    )
    verbs = ["infer", "scene", "batch", "serve", "view", "turntable", "presets", "demo", "download", "doctor", "train"]
    done = subprocess.run([sys.executable, "-c", code, *verbs], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("usage: python ") == len(verbs)


def test_installed_version_is_that_of_the_source():
    try:
        installed = metadata.version("fastsam3d")
    except metadata.PackageNotFoundError:
        pytest.skip("fastsam3d is not installed, it runs from the source tree")
    assert installed == fastsam3d.__version__


def test_configuration_is_found_with_everything_it_names():
    folder = config_directory()
    assert (folder / "config.yaml").is_file()
    assert {path.stem for path in (folder / "model").glob("*.yaml")} >= {"mini", "sam3d"}
    assert set(preset_names()) >= {"off", "exact", "paper", "balanced", "fast"}


def test_every_folder_of_the_package_is_installed(monkeypatch):
    given = {}
    setuptools = pytest.importorskip("setuptools", reason="setuptools is not installed here")
    monkeypatch.setattr(setuptools, "setup", lambda **options: given.update(options))
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "fastsam3d").rglob("*.py")}
    assert {".".join(folder.parts) for folder in folders} <= set(given["packages"])
    # With any other mapping an editable installation is code, which type checkers do not follow.
    assert given["package_dir"] == {"": "."}


def test_built_package_holds_what_programs_read_and_nothing_else(tmp_path):
    pytest.importorskip("setuptools", reason="setuptools is not installed here")
    tree = tmp_path / "tree"  # a build writes beside its sources
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "docs", "tests", "out", "build", "*.egg-info"))
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "built")]
    subprocess.run(command, cwd=tree, check=True, capture_output=True, timeout=300)
    built = tmp_path / "built" / "fastsam3d"
    assert (built / "py.typed").is_file() and (built / "mini" / "ss_generator.safetensors").is_file()
    for preset in (ROOT / "configs").rglob("*.yaml"):
        assert (built / "configs" / preset.relative_to(ROOT / "configs")).is_file()
    assert {path.parent.name for path in built.glob("examples/*/image.png")} == {"car", "chair", "toys"}
    assert (built / "examples" / "room.json").is_file()
    assert [path.name for path in built.rglob("*") if path.suffix == ".npy" or path.name == "gallery.png"] == []
    assert list(built.rglob("integrations")) == []


def test_readme_maps_every_flag_to_its_keys():
    rows = {
        match[1]: set(re.findall(r"`([^`]+)`", match[2]))
        for match in re.finditer(r"^\| `--(\w+)` \| ([^|]+) \|", README, flags=re.MULTILINE)
    }
    for flag, keys in PARAMETERS.items():
        assert rows[flag] == set(keys)
    for flag, groups in MODULES.items():
        assert rows[flag] == {f"acceleration.{group}.enabled" for group in groups}


def test_readme_names_every_preset_and_existing_files():
    ours = [name for name in preset_names() if preset_info(name).kind == "preset"]
    assert all(f"| `{name}` |" in README for name in ours)
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    missing = [link for link in links if not (ROOT / link).exists() and not link.startswith("docs/images/")]
    assert missing == []


@pytest.fixture
def patch(tmp_path, monkeypatch, capsys):
    """Runs patching/hydra on a stand-in installation of a Hydra version; returns (exit code, stdout, file)."""
    module = runpy.run_path(str(PATCH))

    def run(version, text, *arguments):
        path = tmp_path / "hydra" / "core" / "utils.py"
        if text is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

        class Distribution:
            locate_file = staticmethod(lambda name: tmp_path / name)

        Distribution.version = version
        monkeypatch.setattr(metadata, "distribution", lambda _name: Distribution)
        code = module["main"](list(arguments))
        return code, capsys.readouterr().out, path.read_text() if path.exists() else None

    return run, f"import os\n\n\ndef save(cfg, filename, output_dir):\n{module['BEFORE']}"


def test_hydra_patch_acts_once_on_its_version_and_can_be_undone(patch):
    run, released = patch
    assert run("1.3.2", released, "--check")[0] == 1
    code, said, patched = run("1.3.2", None)
    assert code == 0 and "patched" in said
    assert "os.replace" in patched
    compile(patched, "utils.py", "exec")
    code, said, again = run("1.3.2", None)
    assert (code, again) == (0, patched) and "already" in said
    assert run("1.3.2", None, "--undo")[2] == released


@pytest.mark.parametrize(("version", "code", "said"), [("1.3.8", 0, "needs no patch"), ("1.2.0", 1, "too old")])
def test_hydra_patch_leaves_other_versions_alone(patch, version, code, said):
    run, released = patch
    result = run(version, released)
    assert result[0] == code and said in result[1] and result[2] == released


def test_hydra_patch_leaves_changed_files_alone(patch):
    run, _ = patch
    code, said, text = run("1.3.2", "something else\n")
    assert (code, text) == (0, "something else\n") and "nothing to do" in said


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_names_the_interpreter_that_it_misses(tmp_path):
    done = subprocess.run(
        ["make", "-C", str(ROOT), "install", f"VENV={tmp_path / 'venv'}", "PYTHON=python-that-is-not-there"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode != 0
    assert "no Python of at least 3.10" in done.stderr
    assert "python-that-is-not-there" in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("name", ["mllm.load_mllm", "mllm.VisualSpan", "diffusion.register"])
def test_names_of_families_need_no_import_of_their_own(name: str) -> None:
    code = f"import sys, fastsam3d; assert 'torch' not in sys.modules; fastsam3d.{name}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
