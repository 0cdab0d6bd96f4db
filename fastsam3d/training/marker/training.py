"""Trains the marking network on pictures that are made on the way.

    python -m fastsam3d train marker --output RUN --minutes 60

A step makes a batch of pictures and marks each four times: first with a click or a box, then with clicks in the largest
error of the answer so far, which the network also reads (as in RITM: Sofiiuk et al., arXiv 2102.06583). The weights are
updated after each of the four. A step depends on the seed, on its number, and on the share of the run that is done.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fastsam3d.marking.network import MULTIPLE, MarkingNetwork
from fastsam3d.marking.prompt_maps import picture_maps, prompt_maps
from fastsam3d.marking.segmentation import Prompt, opencv
from fastsam3d.procedural.cameras import sample_camera
from fastsam3d.procedural.objects import training_object
from fastsam3d.procedural.render import crop_window, render_windows
from fastsam3d.procedural.shading import sample_light
from fastsam3d.procedural.tracing import TracedObject
from fastsam3d.training.loop import TrainingLoop
from fastsam3d.training.marker.options import MarkerOptions
from fastsam3d.training.marker.patterns import pattern_bank
from fastsam3d.training.marker.pictures import Materials, training_picture
from fastsam3d.training.marker.simulated_marks import first_prompt, further_prompt
from fastsam3d.training.optimization import Average, Budget, OptimizerGroup, cosine_factor

ROUNDS, TARGETS = 4, 2
"""How many times an object is marked in a step; how many objects of a picture are marked."""
SHAPES = ((192, 192), (192, 160), (160, 192), (192, 128), (128, 192))
"""Sizes of the pictures, (height, width)."""
EARLY, SMALLER = 0.55, 2 / 3
"""In this first share of the run pictures are smaller by this factor, because small ones are quicker."""
REPEATED, FORGOTTEN = 0.12, 0.12
"""Share of the later rounds that get no new click, and share that do not see the last answer."""
RENDER_SIZE, VIEWS = 128, 2
"""Side of a render in pixels; number of renders of each procedural object."""


def rendered_objects(path: Path, objects: int) -> np.ndarray:
    """Reads renders of procedural objects, uint8 `[2 * objects, 128, 128, 4]`, from a file, or makes and writes it.

    A file that exists is used as it is, also if it holds another number of objects: a resumed run keeps its renders.
    """
    if path.exists():
        return np.asarray(np.load(path))
    pictures = []
    for seed in range(objects):
        traced = TracedObject.prepare(training_object(seed))
        surface, rng = traced.surface_points(), np.random.default_rng([8, seed])
        cameras = [sample_camera(rng, surface) for _ in range(VIEWS)]
        requests = [(camera, sample_light(rng), crop_window(camera, surface, 1.06)) for camera in cameras]
        for colours, mask, _ in render_windows(traced, requests, RENDER_SIZE):
            picture = torch.cat([colours, mask[..., None].float()], dim=2)
            pictures.append((picture * 255 + 0.5).to(torch.uint8).numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npy")
    np.save(temporary, np.stack(pictures) if pictures else np.zeros((0, RENDER_SIZE, RENDER_SIZE, 4), np.uint8))
    os.replace(temporary, path)
    return np.asarray(np.load(path))


def marking_loss(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Computes cross entropy plus one minus the soft IoU, and the mean IoU of the masks at one half.

    Args:
        logits: `[B, 1, H, W]`.
        truth: 0 or 1, `[B, 1, H, W]`.
    """
    probability = logits.sigmoid()
    both = (probability * truth).sum((1, 2, 3))
    union = (probability + truth - probability * truth).sum((1, 2, 3))
    # Pixels of a small object count more, so that small objects are learned as well as large ones.
    share = truth.mean((1, 2, 3), keepdim=True).clamp(0.05, 0.5)
    weight = torch.where(truth > 0, 0.5 / share, 0.5 / (1 - share))
    entropy = (weight * F.binary_cross_entropy_with_logits(logits, truth, reduction="none")).mean()
    with torch.no_grad():
        answer, wanted = logits > 0, truth > 0
        iou = (answer & wanted).sum((1, 2, 3)) / (answer | wanted).sum((1, 2, 3)).clamp_min(1)
    return entropy + (1 - both / union.clamp_min(1)).mean(), iou.mean()


def train(options: MarkerOptions) -> None:
    """Runs, or resumes, the training that the options describe.

    Raises:
        UserError: OpenCV is not installed.
    """
    cv2 = opencv()
    cv2.setNumThreads(1)
    torch.manual_seed(options.seed)  # initial weights; this is a program of its own
    network = MarkingNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = OptimizerGroup(network, options.learning_rate)
    average = Average(network, options.average)
    output = Path(options.output)
    materials = Materials(pattern_bank(cv2, options.seed), rendered_objects(output / "renders.npy", options.objects))
    loop = TrainingLoop(
        "marking network",
        output,
        Budget(options.minutes, options.steps),
        network,
        optimizer,
        torch.Generator().manual_seed(options.seed),
        average=average,
        save_seconds=60.0,
    )
    for progress in loop.steps():
        rng = np.random.default_rng([43, options.seed, loop.budget.step])
        images, masks = _drawn(cv2, materials, rng, _shape(rng, progress), options.pictures)
        pictures = picture_maps(torch.from_numpy(images).permute(0, 3, 1, 2))
        truth = torch.from_numpy(np.stack(masks))[:, None].float()
        prompts = [first_prompt(cv2, rng, mask) for mask in masks]
        previous = torch.zeros_like(truth)
        for number in range(ROUNDS):
            maps = prompt_maps(pictures, prompts, previous).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(maps)
            loss, iou = marking_loss(logits, truth)
            loss.backward()
            optimizer.step(cosine_factor(progress, warmup=0.03))
            average.update(network)
            loop.record({"loss": loss, f"iou_{number + 1}": iou})
            probability = logits.detach().sigmoid()
            prompts = _marked_again(cv2, rng, prompts, probability.numpy()[:, 0] > 0.5, masks)
            kept = torch.from_numpy(rng.random((len(masks), 1, 1, 1)) >= FORGOTTEN)
            previous = probability * kept


def _shape(rng: np.random.Generator, progress: float) -> tuple[int, int]:
    """(height, width) of a step's pictures."""
    height, width = SHAPES[int(rng.integers(len(SHAPES)))]
    scale = SMALLER / MULTIPLE if progress < EARLY else 1 / MULTIPLE
    return round(height * scale) * MULTIPLE, round(width * scale) * MULTIPLE


def _drawn(
    cv2: Any, materials: Materials, rng: np.random.Generator, shape: tuple[int, int], pictures: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Pictures, each once for each of its objects that are marked, uint8 `[B, H, W, 3]`, and the objects' masks."""
    samples = [training_picture(cv2, materials, rng, shape, TARGETS) for _ in range(pictures)]
    images = [image for image, targets in samples for _ in targets]
    return np.stack(images), [mask for _, targets in samples for mask in targets]


def _marked_again(
    cv2: Any, rng: np.random.Generator, prompts: list[Prompt], answers: np.ndarray, masks: list[np.ndarray]
) -> list[Prompt]:
    """The prompts with a click more each, but for some that stay as they are."""
    return [
        further_prompt(cv2, rng, prompt, answer, mask) if rng.random() >= REPEATED else prompt
        for prompt, answer, mask in zip(prompts, answers, masks, strict=True)
    ]
