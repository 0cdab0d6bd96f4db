"""The jobs of the service on disk."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from fastsam3d.cluster.service.store import DISCARDED, JobStore
from fastsam3d.errors import UserError


def ended(store: JobStore, size: int, changed: float) -> str:
    """A job that ended at some time, with a result of some bytes."""
    name = store.create("object", {}, [])
    (store.path / name / "results").mkdir()
    (store.path / name / "results" / "object.glb").write_bytes(b"x" * size)
    store.update(name, status="done", files={"object.glb": size})
    state = json.loads((store.path / name / "state.json").read_text())
    (store.path / name / "state.json").write_text(json.dumps(state | {"changed": changed}))
    return name


def test_the_oldest_results_go_first_where_all_are_too_large(tmp_path):
    import time

    now = time.time()
    store = JobStore(tmp_path, keep_seconds=1000, most_bytes=25_000)
    old, middle, young = (ended(store, 10_000, now - age) for age in (300, 200, 100))
    assert store.expire() == [old]
    assert {path.name for path in tmp_path.iterdir()} == {middle, young}
    assert store.used()[1] <= 25_000


def test_results_that_are_too_old_go_and_jobs_that_wait_stay(tmp_path):
    store = JobStore(tmp_path, keep_seconds=50)
    old = ended(store, 10, 0.0)
    waiting = store.create("scene", {}, [])
    store.accept(waiting)
    assert store.expire() == [old]
    assert store.waiting() == [waiting]


def test_uploads_that_are_being_checked_stay_however_full_the_store_is(tmp_path):
    store = JobStore(tmp_path, keep_seconds=1000, most_bytes=10)
    checked = store.create("object", {}, [("picture.png", b"x" * 100)])
    store.update(checked, status="checked")
    fresh = store.create("object", {}, [("picture.png", b"x" * 100)])
    assert store.expire() == []
    assert {path.name for path in tmp_path.iterdir()} == {checked, fresh}


def test_an_upload_that_a_killed_process_left_without_a_job_goes_after_ten_minutes(tmp_path):
    import time

    store = JobStore(tmp_path, keep_seconds=100_000)
    for name, age in (("a" * 32, 601), ("b" * 32, 590)):
        (tmp_path / name / "inputs").mkdir(parents=True)
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    assert store.expire() == ["a" * 32]
    assert [path.name for path in tmp_path.iterdir()] == ["b" * 32]


def test_a_job_that_ends_while_it_is_deleted_goes_too(tmp_path, monkeypatch):
    store = JobStore(tmp_path)
    name = store.create("object", {}, [])
    store.update(name, status="running")
    touch = Path.touch

    def slow(path: Path) -> None:
        store.update(name, status="done")  # by its worker, just before the mark is there
        touch(path)

    monkeypatch.setattr(Path, "touch", slow)
    store.remove(name)
    assert list(tmp_path.iterdir()) == []


def test_two_hundred_jobs_leave_a_bounded_store(tmp_path):
    import time

    store = JobStore(tmp_path, keep_seconds=1000, most_bytes=50_000)
    for number in range(200):
        ended(store, 2_000, time.time() - 500 + number)
        if number % 10 == 9:
            store.expire()
            assert store.used()[1] <= 50_000
    assert 15 <= store.used()[0] <= 25


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a" * 31, "A" * 32, "0" * 32, "\0"])
def test_no_name_leads_out_of_the_store(tmp_path, name):
    with pytest.raises(UserError, match="there is no job"):
        JobStore(tmp_path).folder(name)


def test_only_results_are_given(tmp_path):
    store = JobStore(tmp_path)
    name = ended(store, 3, 0.0)
    assert store.result(name, "object.glb").read_bytes() == b"xxx"
    for file in ("state.json", "../state.json", "job.json", ""):
        with pytest.raises(UserError, match="the job has no file"):
            store.result(name, file)


def test_a_job_that_runs_is_marked_and_one_that_waits_is_removed(tmp_path):
    store = JobStore(tmp_path)
    first, second = store.create("object", {}, []), store.create("object", {}, [])
    store.update(first, status="running")
    store.accept(second)
    store.remove(first)
    store.remove(second)
    assert store.cancelled(first) and (tmp_path / first).exists()
    assert store.cancelled(second) and not (tmp_path / second).exists()
    store.update(second, status="done")  # does nothing for what is gone
    assert not (tmp_path / second).exists()


def test_a_job_is_gone_before_its_files_are(tmp_path, monkeypatch):
    store, seen, rmtree = JobStore(tmp_path), [], shutil.rmtree

    def slow(folder: Path, **options: bool) -> None:
        store.update(name, status="running")  # by a worker that gets the job just now
        seen.append((tmp_path / name).exists())
        rmtree(folder, **options)

    name = store.create("object", {}, [("picture.png", b"x")])
    store.accept(name)
    monkeypatch.setattr("fastsam3d.cluster.service.store.shutil.rmtree", slow)
    store.remove(name)
    assert seen == [False]
    assert list(tmp_path.iterdir()) == []


def test_folders_that_a_killed_process_was_removing_go(tmp_path):
    store = JobStore(tmp_path)
    (tmp_path / f"{DISCARDED}1" / "inputs").mkdir(parents=True)
    assert store.expire() == []
    assert list(tmp_path.iterdir()) == []


def test_a_job_without_its_description_is_told(tmp_path):
    store = JobStore(tmp_path)
    name = store.create("object", {}, [])
    (tmp_path / name / "job.json").unlink()
    with pytest.raises(UserError, match="is damaged"):
        store.job(name)


def test_a_full_disk_is_told_without_a_path(tmp_path, monkeypatch):
    import errno

    store = JobStore(tmp_path)
    name = store.create("object", {}, [])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fastsam3d.basics.files.os.fsync", full)
    said = r"^the service cannot store the job \(No space left on device\)\.$"
    with pytest.raises(UserError, match=said):
        store.accept(name)
    with pytest.raises(UserError, match=said):
        store.create("object", {}, [])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_state_that_was_cut_off_counts_as_queued(tmp_path):
    store = JobStore(tmp_path)
    name = store.create("object", {}, [])
    store.accept(name)
    Path(tmp_path / name / "state.json").write_text('{"stat')
    assert store.state(name) == {"status": "queued"}


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_store_that_cannot_be_made_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be made"):
        JobStore(tmp_path / "x")
