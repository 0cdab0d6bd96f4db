"""Tells how many CPU cores this process may use: its affinity, and the CPU quota of its container.

A quota is a share of time, not a number of cores: with a quota of 2 cores on a machine of 64, PyTorch would start 64
threads, and the system would stop all of them for most of every period. The quota is read from the files of Linux
control groups, version 1 and 2 (see cgroups(7), and "CFS Bandwidth Control" and "Control Group v2" of the kernel).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/")
MOUNTS, GROUPS = "proc/self/mountinfo", "proc/self/cgroup"
UNLIMITED = "max"


@dataclass(frozen=True)
class CoreLimits:
    """Limits of the threads of this process.

    Attributes:
        cores: numbers of the cores that it may run on.
        quota: CPU time that its control group may use, in cores; None: no limit.
    """

    cores: tuple[int, ...]
    quota: float | None

    @property
    def threads(self) -> int:
        """Returns the largest number of threads that the quota does not stop, at least 1."""
        if self.quota is None:
            return len(self.cores)
        return max(1, min(len(self.cores), int(self.quota)))


def core_limits(root: Path = ROOT) -> CoreLimits:
    """Reads the limits of this process.

    Args:
        root: folder that holds `proc` and `sys`.
    """
    return CoreLimits(usable_cores(), quota_of(root))


def usable_cores() -> tuple[int, ...]:
    """Returns the numbers of the cores that this process may run on; all cores if the system does not tell."""
    try:
        return tuple(sorted(os.sched_getaffinity(0)))
    except (AttributeError, OSError):  # not Linux
        return tuple(range(os.cpu_count() or 1))


def quota_of(root: Path = ROOT) -> float | None:
    """Returns the smallest CPU quota of this process's control groups and their parents, in cores; None: no limit."""
    quotas = [_quota(folder) for folder in _group_folders(root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(folder: Path) -> float | None:
    """Reads the quota of one group: `cpu.max` (version 2), `cpu.cfs_quota_us` and `cpu.cfs_period_us` (version 1)."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        if quota == UNLIMITED or int(quota) <= 0 or int(period) <= 0:  # version 1 writes -1 for no limit
            return None
        return int(quota) / int(period)
    except (OSError, ValueError):  # no such file, as in the outermost group, or an unknown format
        return None


def _group_folders(root: Path) -> Iterator[Path]:
    """Gives the folders of the groups that may limit this process's CPU time, and of their parent groups."""
    try:
        mounts = (root / MOUNTS).read_text().splitlines()
        groups = (root / GROUPS).read_text().splitlines()
    except (OSError, UnicodeDecodeError):  # not Linux
        return
    paths = dict(_paths(groups))
    for line in mounts:
        before, separator, after = line.partition(" - ")
        facts, kind = before.split(), after.split()
        if not separator or len(facts) < 5 or len(kind) < 3:
            continue
        version_2, version_1 = kind[0] == "cgroup2", kind[0] == "cgroup" and "cpu" in kind[2].split(",")
        if version_2 or version_1:
            mount = root / facts[4].lstrip("/")
            yield from _folders_up(mount, _inside(facts[3], paths.get("" if version_2 else "cpu", "/")))


def _paths(groups: list[str]) -> Iterator[tuple[str, str]]:
    """Gives (controller, path of its group) from lines `number:controllers:path`; version 2 names no controller."""
    for line in groups:
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                yield controller, parts[2]


def _inside(mounted: str, path: str) -> PurePosixPath:
    """Returns the path of a group below the group that is mounted.

    In a container the mounted group may be its own group, while the path is that of the machine, or begins with `..`.
    Then the result is the mounted group.
    """
    try:
        below = PurePosixPath(path).relative_to(mounted)
    except ValueError:
        return PurePosixPath()
    return PurePosixPath() if ".." in below.parts else below


def _folders_up(mount: Path, group: PurePosixPath) -> Iterator[Path]:
    folder = mount / group
    if not folder.is_dir():
        folder = mount
    while True:
        yield folder
        if folder == mount:
            return
        folder = folder.parent
