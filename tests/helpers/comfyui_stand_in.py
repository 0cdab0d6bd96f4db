"""A stand-in of ComfyUI, written from its documentation (docs.comfy.org, custom nodes): loads nodes, runs graphs.

It checks what the documentation asks of a node, and that linked sockets have one type.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any

import torch

WIDGETS = {"STRING": str, "INT": int, "FLOAT": float, "BOOLEAN": bool}


class Interrupted(BaseException):
    """ComfyUI's exception for a run that the user stops."""


class ComfyUI:
    """The host: folders, the progress bar, the button that stops a run, loaded nodes."""

    def __init__(self, folder: Path) -> None:
        self.output, self.temp = folder / "output", folder / "temp"
        self.bars: list[list[tuple[int, int]]] = []
        self.stop = False
        self.classes: dict[str, Any] = {}
        self.names: dict[str, str] = {}

    def modules(self) -> dict[str, types.ModuleType]:
        """The modules that nodes may import, by name."""
        paths = types.ModuleType("folder_paths")
        paths.get_output_directory = lambda: str(self.output)  # type: ignore[attr-defined]
        paths.get_temp_directory = lambda: str(self.temp)  # type: ignore[attr-defined]
        paths.get_save_image_path = self._save_path  # type: ignore[attr-defined]
        utils, management = types.ModuleType("comfy.utils"), types.ModuleType("comfy.model_management")
        bars = self.bars

        class ProgressBar:
            def __init__(self, total: int) -> None:
                self.total, self.values = total, []
                bars.append(self.values)

            def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
                self.values.append((value, total or self.total))

        def throw() -> None:
            if self.stop:
                raise Interrupted

        utils.ProgressBar = ProgressBar  # type: ignore[attr-defined]
        management.throw_exception_if_processing_interrupted = throw  # type: ignore[attr-defined]
        comfy = types.ModuleType("comfy")
        comfy.utils, comfy.model_management = utils, management  # type: ignore[attr-defined]
        return {"folder_paths": paths, "comfy": comfy, "comfy.utils": utils, "comfy.model_management": management}

    def _save_path(self, prefix: str, folder: str, width: int = 0, height: int = 0) -> tuple[str, str, int, str, str]:
        subfolder, name = os.path.split(os.path.normpath(prefix))
        there = Path(folder, subfolder)
        numbers = [int(path.name[len(name) + 1 :].split("_")[0]) for path in there.glob(f"{name}_*_*")]
        return str(there), name, max(numbers, default=0) + 1, subfolder, prefix

    def load(self, path: Path) -> None:
        """Loads one file of `custom_nodes`, and checks each node."""
        spec = importlib.util.spec_from_file_location(str(path.with_suffix("")), path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # as ComfyUI does; dataclasses need it
        try:
            spec.loader.exec_module(module)
        finally:
            del sys.modules[spec.name]
        self.classes |= module.NODE_CLASS_MAPPINGS
        self.names |= module.NODE_DISPLAY_NAME_MAPPINGS
        for name, node in module.NODE_CLASS_MAPPINGS.items():
            _check(name, node)

    def run(self, graph: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Runs a graph in ComfyUI's format: {id: {"class_type", "inputs"}}; a link is [id, number of the output].

        Returns:
            What the output nodes show, by id.
        """
        done: dict[str, tuple[Any, ...]] = {}
        shown: dict[str, dict[str, Any]] = {}

        def output(link: list[Any]) -> tuple[str, Any]:
            there = self.classes[graph[link[0]]["class_type"]]
            if link[0] not in done:
                execute(link[0])
            return there.RETURN_TYPES[link[1]], done[link[0]][link[1]]

        def execute(number: str) -> None:
            node = self.classes[graph[number]["class_type"]]
            declared = node.INPUT_TYPES()
            sockets = declared.get("required", {}) | declared.get("optional", {})
            given, values = graph[number]["inputs"], {}
            assert set(declared.get("required", {})) <= set(given) <= set(sockets)
            for name, value in given.items():
                kind = sockets[name][0]
                if isinstance(value, list):
                    found, value = output(value)
                    assert found == kind, (number, name, found, kind)
                elif isinstance(kind, list):
                    assert value in kind, (number, name, value)
                else:
                    assert isinstance(value, WIDGETS[kind]), (number, name, value)
                values[name] = value
            with torch.inference_mode():
                answer = getattr(node(), node.FUNCTION)(**values)
            if isinstance(answer, dict):
                shown[number] = answer["ui"]
                answer = answer["result"]
            assert isinstance(answer, tuple)
            assert len(answer) == len(node.RETURN_TYPES)
            done[number] = answer

        for number, entry in graph.items():
            if getattr(self.classes[entry["class_type"]], "OUTPUT_NODE", False) and number not in done:
                execute(number)
        return shown


class Picture:
    """Stands for Load Image: an IMAGE and a MASK that a test gives."""

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "load"
    CATEGORY = "image"
    image: torch.Tensor
    mask: torch.Tensor

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """It has no inputs."""
        return {"required": {}}

    def load(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns what the test gave."""
        return self.image, self.mask


def _check(name: str, node: Any) -> None:
    declared = node.INPUT_TYPES()
    assert set(declared) <= {"required", "optional", "hidden"}, name
    for group in declared.values():
        for entry in group.values():
            assert isinstance(entry, tuple)
            assert isinstance(entry[0], (str, list))
            if len(entry) > 1 and isinstance(entry[0], list):
                assert entry[1].get("default", entry[0][0]) in entry[0]
    assert isinstance(node.RETURN_TYPES, tuple)
    assert len(node.RETURN_NAMES) == len(node.RETURN_TYPES)
    assert callable(getattr(node, node.FUNCTION))
    assert isinstance(node.CATEGORY, str)
