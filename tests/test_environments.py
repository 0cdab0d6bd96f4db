"""The conda environment, its second step, and the image: that they name what exists, and copy no weights."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / "environments"
DOCKERFILE = (ENVIRONMENTS / "Dockerfile").read_text(encoding="utf-8")
requirements = pytest.importorskip("packaging.requirements", reason="packaging is not installed here")


def pip_section() -> dict[str, str]:
    environment = yaml.safe_load((ENVIRONMENTS / "default.yml").read_text(encoding="utf-8"))
    assert "python=3.11" in environment["dependencies"]
    (pip,) = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    parsed = [requirements.Requirement(line) for line in pip]
    return {r.name.lower(): str(r.specifier) for r in parsed}


def test_conda_environment_pins_what_belongs_together() -> None:
    pinned = pip_section()
    for name in ("torch", "torchvision", "xformers", "spconv-cu124", "hydra-core"):
        assert re.fullmatch(r"==[\d.]+(\.post\d+)?", pinned[name]), name
    text = (ENVIRONMENTS / "default.yml").read_text(encoding="utf-8")
    # The compiler, the sparse convolutions and PyTorch's own build are of one CUDA.
    assert "cuda-version=12.4" in text


def test_conda_environment_suits_this_package() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python below 3.11 has no tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = pip_section()
    assert set(project["optional-dependencies"]) >= {"sam3d", "trellis", "xformers"}
    for line in project["dependencies"]:
        needed = requirements.Requirement(line)
        specifier = pinned.get(needed.name.lower(), "")
        if specifier.startswith("=="):
            assert needed.specifier.contains(specifier.removeprefix("==")), line


def test_extras_that_guides_name_exist() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python below 3.11 has no tomllib")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]
    named = {
        name for text in texts for group in re.findall(r"fastsam3d\[([\w,]+)\]", text) for name in group.split(",")
    }
    assert named <= extras.keys() and "ray" in named


KUBERAY = {
    "RayJob": {
        "entrypoint": str,
        "rayClusterSpec": dict,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "backoffLimit": int,
    },
    "RayService": {"serveConfigV2": str, "rayClusterConfig": dict},
}
"""Fields of the resources that we use, with their types, as we know them of KubeRay (ray.io/v1). This test finds typing
errors. Whether KubeRay takes the files was never tried."""
CLUSTER = {"rayVersion": str, "enableInTreeAutoscaling": bool, "headGroupSpec": dict, "workerGroupSpecs": list}
HEAD = {"rayStartParams": dict, "template": dict}
GROUP = {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, **HEAD}


def assert_fields(values: dict, known: dict[str, type]) -> None:
    assert values.keys() <= known.keys()
    for key, value in values.items():
        assert isinstance(value, known[key]), key


@pytest.mark.parametrize(("name", "kind"), [("rayjob.yaml", "RayJob"), ("rayservice.yaml", "RayService")])
def test_resources_of_kuberay_have_its_fields(name: str, kind: str) -> None:
    resource = yaml.safe_load((ENVIRONMENTS / name).read_text(encoding="utf-8"))
    assert (resource["apiVersion"], resource["kind"]) == ("ray.io/v1", kind)
    assert re.fullmatch(r"[a-z0-9-]{1,50}", resource["metadata"]["name"])
    assert_fields(resource["spec"], KUBERAY[kind])
    cluster = resource["spec"]["rayClusterSpec" if kind == "RayJob" else "rayClusterConfig"]
    assert_fields(cluster, CLUSTER)
    assert_fields(cluster["headGroupSpec"], HEAD)
    for group in cluster["workerGroupSpecs"]:
        assert_fields(group, GROUP)
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert container["resources"]["limits"] == container["resources"]["requests"]


def test_the_commands_in_the_resources_are_ours() -> None:
    from fastsam3d.basics.options import parse_options
    from fastsam3d.cli.commands.batch import split
    from fastsam3d.cluster.batch.options import BatchOptions
    from fastsam3d.cluster.service.options import ServeOptions

    job = yaml.safe_load((ENVIRONMENTS / "rayjob.yaml").read_text(encoding="utf-8"))["spec"]
    program, words = job["entrypoint"].split()[:4], job["entrypoint"].split()[4:]
    assert program == ["python", "-m", "fastsam3d", "batch"]
    own, others = split(words)
    assert parse_options(BatchOptions, own, "batch").workers == (1, 8)
    assert {word.partition("=")[0] for word in others} == {"model", "checkpoint_dir", "precision", "acceleration"}
    service = yaml.safe_load((ENVIRONMENTS / "rayservice.yaml").read_text(encoding="utf-8"))["spec"]
    (application,) = yaml.safe_load(service["serveConfigV2"])["applications"]
    assert application["import_path"] == "fastsam3d.cluster.service.deployed:application"
    options = [f"{key}={value}" for key, value in application["args"]["options"].items()]
    assert parse_options(ServeOptions, options, "serve").token_file == "/run/token/token"


def test_second_step_is_pinned_to_commits() -> None:
    lines = [
        requirements.Requirement(line)
        for line in (ENVIRONMENTS / "upstream.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert {r.name for r in lines} == {"kaolin", "pytorch3d", "gsplat", "MoGe", "flash-attn"}
    for r in lines:
        assert re.search(r"@[0-9a-f]{40}$", r.url) if r.url else str(r.specifier).startswith("==")


def ignored(path: str) -> bool:
    """What .dockerignore says of a path; the last line that matches counts."""
    result = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        parts = [path, *(str(parent) for parent in Path(path).parents)]
        anywhere = [part.rpartition("/")[2] for part in parts] if pattern.startswith("**/") else parts
        if any(fnmatch.fnmatchcase(part, pattern.removeprefix("**/")) for part in anywhere if part != "."):
            result = not line.startswith("!")
    return result


def copied() -> list[str]:
    words = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    return [source for line in words for source in line]


def test_image_copies_what_exists_and_no_weights() -> None:
    assert set(copied()) >= {"pyproject.toml", "setup.py", "README.md", "LICENSE", "configs", "examples", "fastsam3d"}
    assert "." not in copied()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert not ignored(source), source
    for path in ("checkpoints/sam3d/ss_generator.ckpt", "fastsam3d/x.ckpt", ".git/config", "out/demo/a.glb", ".venv/x"):
        assert ignored(path), path
    assert not ignored("fastsam3d/mini/ss_generator.safetensors")
    assert re.search(r"^FROM fastsam3d AS service$", DOCKERFILE, flags=re.MULTILINE)
    assert DOCKERFILE.rstrip().endswith("FROM fastsam3d")  # without a target the image is the small one
    assert 'VOLUME ["/weights"]' in DOCKERFILE
    assert re.search(r"^USER (?!root)", DOCKERFILE, flags=re.MULTILINE)
