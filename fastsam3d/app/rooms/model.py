"""The small 3D language model of the page: loaded at the first question, shared by all visitors."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

INSTALL = (
    "Answering questions about rooms needs Hugging Face transformers, which is not installed. Run "
    "pip install 'fastsam3d[mllm]' and start the demo again."
)


class RoomModel:
    """Loads the small 3D language model once.

    Args:
        folder: folder of its files; None: the files of this package.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._model: Any = None

    def problem(self) -> str | None:
        """Returns why no question can be answered, and what to do; None if all is there. It imports nothing large."""
        from fastsam3d.mllm.mini.loading import FOLDER, LANGUAGE_MODEL

        if find_spec("transformers") is None:
            return INSTALL
        path = (self._folder or FOLDER) / LANGUAGE_MODEL
        if not path.is_file():
            return f"The weights of the small language model are missing: there is no {path.name} in its folder."
        return None

    def get(self) -> Any:
        """Returns the model. Only jobs call this: they run one at a time.

        Raises:
            UserError: it cannot be loaded.
        """
        if self._model is None:
            from fastsam3d.mllm.mini.loading import load_small_model

            self._model = load_small_model(self._folder)
        return self._model
