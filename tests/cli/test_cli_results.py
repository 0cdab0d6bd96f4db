"""The closing lines of a run: what made the result, said where a person reads it."""

from __future__ import annotations

import types

import pytest

from fastsam3d.cli import results


@pytest.fixture
def closing(tmp_path, monkeypatch):
    """Text on stdout by model and flags."""
    monkeypatch.setattr(results, "render", lambda report: f"report of {report['model']}")
    path = tmp_path / "object.glb"
    path.write_bytes(b"12")

    def text(model: str, as_json: bool = False, quiet: bool = False) -> str:
        return results.text_of(types.SimpleNamespace(as_json=as_json, quiet=quiet), {"model": model}, [path])

    return text


def test_the_small_model_is_named_at_the_end(closing):
    last = closing("mini").splitlines()[-1]
    assert last.startswith("Made by the small demonstration model, which was trained on synthetic toys.")
    assert "model=sam3d" in last


def test_nothing_is_said_of_other_models_nor_where_programs_read(closing):
    assert "demonstration" not in closing("sam3d")
    assert "demonstration" not in closing("mini", as_json=True)
    assert closing("mini", quiet=True) == ""
