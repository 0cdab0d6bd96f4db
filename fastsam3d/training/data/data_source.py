"""What the command lines of the training stages share, and where a run's objects come from.

Shards on disk, or, on a GPU, objects made on it.
"""

from __future__ import annotations

import argparse
import functools

from fastsam3d.errors import UserError
from fastsam3d.training.data.dataset import ProceduralDataset
from fastsam3d.training.data.device_dataset import DeviceDataset

Dataset = ProceduralDataset | DeviceDataset


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say where the objects come from and where the networks are."""
    parser.add_argument("--data", default=None, help="folder of shards made by training.data.dataset, for a CPU")
    parser.add_argument("--objects", type=int, default=100_000, help="objects made on the device, without --data")
    parser.add_argument("--workers", type=int, default=1, help="processes that make their tables")
    parser.add_argument("--device", default="cpu")


def add_run_arguments(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """The arguments of every stage's training: where it writes, what it trains, for how long.

    Returns:
        the group of those that say for how long, one of which must be given; a stage may add another.
    """
    parser.add_argument("--output", required=True, help="run folder: checkpoint.pt and losses.jsonl")
    parser.add_argument("--model", default="mini", help="file in configs/model that gives the sizes")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, default=None, help="length of the run, over all resumptions")
    length.add_argument("--steps", type=int, default=None, help="length of the run in steps, instead of minutes")
    return length


def open_dataset(arguments: argparse.Namespace) -> Dataset:
    """The training objects that the command line describes; stages of one process share them.

    Raises:
        UserError: shards from disk for networks on a GPU, which would wait for them most of the time.
    """
    if arguments.data is None:
        return _on_device(arguments.objects, arguments.device, arguments.workers)
    if arguments.device != "cpu":
        raise UserError(f"--data is for a CPU; leave it out, and the objects are made on {arguments.device}")
    return ProceduralDataset(arguments.data)


@functools.lru_cache(maxsize=1)
def _on_device(objects: int, device: str, workers: int) -> DeviceDataset:
    return DeviceDataset(objects, device, workers=workers)
