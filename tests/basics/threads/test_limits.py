"""Cores that a process may use: control groups of both versions, as files of a pretended machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastsam3d.basics.threads.limits import CoreLimits, core_limits, quota_of, usable_cores

VERSION_2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
VERSION_1 = "33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct"
MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory"
DISK = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw"


@pytest.fixture
def machine(tmp_path: Path):
    """Makes a root folder with mounts, the groups of the process, and files of groups."""

    def make(mounts: list[str], groups: list[str], files: dict[str, str]) -> Path:
        for name, text in {
            "proc/self/mountinfo": "\n".join(mounts),
            "proc/self/cgroup": "\n".join(groups) + "\n",
            **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
        }.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return make


def test_version_2_counts_the_tightest_of_all_groups_around_the_process(machine) -> None:
    files = {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n", "a/b/c/cpu.max": "400000 100000\n"}
    assert quota_of(machine([DISK, VERSION_2], ["0::/a/b/c"], files)) == 1.5


def test_version_2_in_a_container_whose_own_group_is_the_mounted_one(machine) -> None:
    files = {"cpu.max": "50000 100000\n"}
    assert quota_of(machine([VERSION_2], ["0::/"], files)) == 0.5


@pytest.mark.parametrize("path", ["/../../other", "/docker/0123"])
def test_a_path_that_cannot_be_seen_means_the_mounted_group(machine, path: str) -> None:
    assert quota_of(machine([VERSION_2], [f"0::{path}"], {"cpu.max": "200000 100000\n"})) == 2.0


def test_version_1_reads_quota_and_period(machine) -> None:
    files = {
        "cpu,cpuacct/job/cpu.cfs_quota_us": "75000\n",
        "cpu,cpuacct/job/cpu.cfs_period_us": "50000\n",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "memory/job/cpu.max": "1 100000\n",  # of a controller that does not limit the time
    }
    groups = ["4:memory:/job", "1:cpu,cpuacct:/job", "0::/"]
    assert quota_of(machine([MEMORY, VERSION_1], groups, files)) == 1.5


def test_version_1_in_a_container_that_is_told_the_path_of_the_machine(machine) -> None:
    mount = VERSION_1.replace("0:29 / ", "0:29 /docker/0123 ")
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}
    assert quota_of(machine([mount], ["1:cpu,cpuacct:/docker/0123"], files)) == 3.0


def test_both_versions_at_once_count_the_tighter(machine) -> None:
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "unified/job/cpu.max": "250000 100000\n",
    }
    unified = VERSION_2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    assert quota_of(machine([VERSION_1, unified], ["1:cpu,cpuacct:/", "0::/job"], files)) == 2.5


@pytest.mark.parametrize("text", ["max 100000", "", "many 100000", "100000", "100000 0", "\xff"])
def test_no_limit_and_files_that_cannot_be_understood_are_no_quota(machine, text: str) -> None:
    assert quota_of(machine([VERSION_2], ["0::/"], {"cpu.max": text})) is None


def test_other_systems_have_no_quota(tmp_path: Path) -> None:
    assert quota_of(tmp_path) is None
    assert core_limits(tmp_path) == CoreLimits(usable_cores(), None)


@pytest.mark.parametrize(
    ("quota", "threads"), [(None, 4), (0.5, 1), (1.0, 1), (1.9, 1), (2.0, 2), (3.5, 3), (4.0, 4), (64.0, 4)]
)
def test_threads_never_exceed_the_quota_or_the_cores(quota: float | None, threads: int) -> None:
    assert CoreLimits((0, 1, 5, 7), quota).threads == threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_cores_are_those_of_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {6, 2})
    assert usable_cores() == (2, 6)


def test_all_cores_count_where_there_is_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert usable_cores() == (0, 1, 2)
