"""Scenes that are killed at random moments: never a wrong one with exit code 0, and no input is touched."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ball_pipeline import ball_pipeline, disc
from PIL import Image
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
SCENE = (
    "import sys\n"
    "import torch\n"
    "from ball_pipeline import ball_pipeline\n"
    "from fastsam3d.sam3d.checkpoints import loading\n"
    "from safetensors.torch import load_file\n"
    "def load(*a, checkpoint_dir=None, **k):\n"
    "    pipeline = ball_pipeline()\n"
    "    if checkpoint_dir:\n"
    "        weights = load_file(f'{checkpoint_dir}/ss_generator.safetensors')\n"
    "        pipeline.models['ss_generator'].load_state_dict(weights)\n"
    "    return pipeline\n"
    "loading.load_pipeline = load\n"
    "torch.set_num_threads(1)\n"
    "from fastsam3d.cli.main import main\n"
    "print('begun', flush=True)\n"
    "sys.exit(main(['scene', *sys.argv[1:]]))\n"
)
STEPS = ("model.ss_sampler.inference_steps=4", "model.slat_sampler.inference_steps=4")
QUICK = ("device=cpu", "batch=1", "preview=false", *STEPS)
"""Previews take longer than all the rest: then kills would hit hardly anything else."""


def start(vase, masks, out, *words):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")])
    given = (*QUICK, "--image_path", vase / "image.png", "--masks", masks, "--output_dir", out, *words)
    return subprocess.Popen(
        [sys.executable, "-c", SCENE, *map(str, given)],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    _, stderr = process.communicate(timeout=600)
    return process.returncode, stderr


def whole(*arguments):
    """Seconds of a scene that is not killed, from the moment at which PyTorch is there."""
    process = start(*arguments)
    process.stdout.readline()
    begun = time.monotonic()
    code, stderr = finish(process)
    assert code == 0, stderr
    return time.monotonic() - begun


def hashes(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "report.json"
    }


@pytest.fixture
def masks(vase, tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    for number, place in enumerate([(20, 20), (26, 46), (24, 32), (18, 40)]):
        Image.fromarray(disc(*place).astype(np.uint8) * 255).save(folder / f"m{number}.png")
    return folder


@pytest.mark.slow
def test_killed_scenes_end_as_if_they_had_not_been_killed(vase, masks, tmp_path):
    chance = random.Random(0)
    longest = whole(vase, masks, tmp_path / "whole")
    expected, inputs = hashes(tmp_path / "whole"), (hashes(vase), hashes(masks))
    kills, number = 0, 0
    while kills < 30:
        out = tmp_path / f"o{number}"
        number += 1
        for _ in range(4):
            process = start(vase, masks, out, "--resume")
            process.stdout.readline()
            time.sleep(chance.uniform(0, longest / 2))
            process.send_signal(signal.SIGKILL)
            finish(process)
            kills += 1
        code, stderr = finish(start(vase, masks, out, "--resume"))
        assert code == 0, stderr
        assert hashes(out) == expected
    assert (hashes(vase), hashes(masks)) == inputs


@pytest.mark.slow
def test_two_scenes_in_one_folder_are_kept_apart(vase, masks, tmp_path):
    assert finish(start(vase, masks, tmp_path / "whole"))[0] == 0
    running = [start(vase, masks, tmp_path / "o", "--resume", *more) for more in ((), ("seed=1",), ())]
    results = [finish(process) for process in running]
    assert sorted({code for code, _ in results} - {0}) in ([], [2])
    for code, stderr in results:
        assert code == 0 or "another run works in" in stderr or "--resume: seed was" in stderr, stderr
    code, stderr = finish(start(vase, masks, tmp_path / "o", "--resume"))
    assert code == 0, stderr
    assert hashes(tmp_path / "o") == hashes(tmp_path / "whole")


@pytest.mark.slow
def test_a_mask_exchanged_while_a_killed_scene_was_away(vase, masks, tmp_path):
    process = start(vase, masks, tmp_path / "o")
    process.stdout.readline()
    while not list((tmp_path / "o").glob(".scene/*.safetensors")) and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    finish(process)
    for number in range(4):
        Image.fromarray(disc(22, 24 + number).astype(np.uint8) * 255).save(masks / f"m{number}.png")
    assert finish(start(vase, masks, tmp_path / "o", "--resume"))[0] == 0
    assert finish(start(vase, masks, tmp_path / "whole"))[0] == 0
    assert hashes(tmp_path / "o") == hashes(tmp_path / "whole")


def write_weights(folder, sign):
    """Weights whose file has the same name, size and time whatever the sign of their numbers."""
    folder.mkdir(exist_ok=True)
    file = folder / "ss_generator.safetensors"
    state = ball_pipeline().models["ss_generator"].state_dict()
    save_file({name: sign * value for name, value in state.items()}, file)
    os.utime(file, (1_000_000_000, 1_000_000_000))


@pytest.mark.slow
def test_weights_exchanged_while_a_killed_scene_was_away_are_never_mixed(vase, masks, tmp_path):
    chance, weights = random.Random(1), tmp_path / "weights"
    given, expected = f"checkpoint_dir={weights}", {}
    for sign in (-1, 1):
        write_weights(weights, sign)
        longest = whole(vase, masks, tmp_path / f"whole{sign}", given)
        expected[sign] = hashes(tmp_path / f"whole{sign}")
    assert expected[1].keys() == expected[-1].keys() and expected[1] != expected[-1]
    refused = 0
    for number in range(10):
        out = tmp_path / f"o{number}"
        write_weights(weights, 1)
        process = start(vase, masks, out, given, "--resume")
        process.stdout.readline()
        # Every second one is killed once an object is kept; the others at any moment, also before and after.
        while number % 2 and not list(out.glob(".scene/*.safetensors")) and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.05 if number % 2 else longest))
        process.send_signal(signal.SIGKILL)
        finish(process)
        write_weights(weights, -1)
        code, stderr = finish(start(vase, masks, out, given, "--resume"))
        if code == 0:  # nothing had been kept, or the scene had ended
            assert hashes(out) == expected[-1]
            continue
        refused += 1
        assert code == 2 and "a file of the weights has changed" in stderr, stderr
        published = {name: value for name, value in hashes(out).items() if not name.startswith(".")}
        assert published in ({}, expected[1])
        if number % 4 == 1:  # beginning anew is the way out, and so is giving the weights of before
            assert finish(start(vase, masks, out, given))[0] == 0
            assert hashes(out) == expected[-1]
        else:
            write_weights(weights, 1)
            assert finish(start(vase, masks, out, given, "--resume"))[0] == 0
            assert hashes(out) == expected[1]
    assert refused >= 4
