"""`presets --cite NAME`: every technique that comes from a paper is cited, with entries that are whole."""

from __future__ import annotations

import re

import pytest

from fastsam3d.acceleration.family import families
from fastsam3d.basics.config_files import preset_names
from fastsam3d.cli.citations import FOLDERS, WORKS, bibtex, entries, keys_of
from fastsam3d.cli.main import main

OURS = {
    "exact",
    "exact_layout",
    "few_step_shortcut",
    "fewer_steps",
    "pruning",
    "oracle",
    "external",
    "random",
    "text_rows",
}
CODE_ONLY = {"first_block_cache"}


def test_every_technique_has_a_work_or_is_known_to_have_none():
    known = {name for family in families() if family.name in FOLDERS for name in family.registry}
    assert known - WORKS.keys() <= OURS | CODE_ONLY
    assert set(WORKS) <= known
    assert set(WORKS.values()) < entries().keys()


def test_entries_are_whole():
    found = entries()
    assert len(found) == 17
    for key, text in found.items():
        assert text.count("{") == text.count("}"), key
        fields = set(re.findall(r"^\s+(\w+)\s*=", text, flags=re.MULTILINE))
        assert {"title", "author", "year"} <= fields, key
        if "eprint" in fields:
            assert re.search(r"eprint = \{\d{4}\.\d{5}\}", text) and "archivePrefix" in fields, key


def test_every_preset_can_be_cited():
    for folder in FOLDERS.values():
        for name in preset_names(folder):
            assert bibtex(name).startswith("@software{fastsam3d,")


@pytest.mark.parametrize(
    ("preset", "keys"),
    [
        ("off", ["fastsam3d", "sam3d"]),
        ("paper", ["fastsam3d", "sam3d", "fast_sam3d"]),
        ("taylorseer", ["fastsam3d", "sam3d", "taylorseer"]),
        ("fastv_35", ["fastsam3d", "fastv"]),
        ("balanced", ["fastsam3d", "sam3d", "unipc", "fast3d"]),  # both families have one
    ],
)
def test_keys_by_hand(preset, keys):
    assert keys_of(preset) == keys


def test_command(capsys):
    assert main(["presets", "--cite", "easycache"]) == 0
    assert "eprint = {2507.02860}" in capsys.readouterr().out
    assert main(["presets", "--cite", "easycash"]) == 2
    assert "Did you mean easycache?" in capsys.readouterr().err
    assert main(["presets", "--cite"]) == 2
