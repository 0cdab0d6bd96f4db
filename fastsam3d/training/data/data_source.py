"""Opens the source of a run's objects: shards on disk, or, on a GPU, objects made on it."""

from __future__ import annotations

import functools

from fastsam3d.errors import UserError
from fastsam3d.training.data.dataset import ProceduralDataset
from fastsam3d.training.data.device_dataset import DeviceDataset
from fastsam3d.training.options import StageOptions

Dataset = ProceduralDataset | DeviceDataset


def open_dataset(options: StageOptions) -> Dataset:
    """The training objects that the options of a stage describe; stages of one process share them.

    Raises:
        UserError: shards from disk for networks on a GPU, which would wait for them most of the time.
    """
    if options.data is None:
        return _on_device(options.objects, options.device, options.workers)
    if options.device != "cpu":
        raise UserError(f"--data is for a CPU; leave it out, and the objects are made on {options.device}")
    return ProceduralDataset(options.data)


@functools.lru_cache(maxsize=1)
def _on_device(objects: int, device: str, workers: int) -> DeviceDataset:
    return DeviceDataset(objects, device, workers=workers)
