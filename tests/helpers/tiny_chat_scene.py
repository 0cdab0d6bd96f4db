"""A folder in the layout of Chat-Scene, with a language model of a few thousand random parameters."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_scene_files import OTHER, SCENE, write_annotations
from torch import Tensor

OBJECTS, HIDDEN, WIDTH_3D, WIDTH_2D, RANK, LAYERS = 6, 32, 5, 7, 3, 3
WRAPPED = "llama_model.base_model.model."


@dataclass(frozen=True)
class Files:
    """Paths of the folder, and what is in the checkpoint."""

    vicuna: Path
    checkpoint: Path
    features_3d: Path
    features_2d: Path
    annotations: Path
    state: dict[str, Tensor]


def small_tokenizer() -> Any:
    """A tokeniser of Llama's kind (BPE over characters and bytes) with some merges."""
    import tokenizers
    import transformers

    letters = sorted(set("▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:?'[]<>-"))
    merges = [("▁", "▁"), ("▁", "a"), ("t", "h"), ("th", "e"), ("▁", "the"), ("c", "h"), ("ch", "a"), ("cha", "i")]
    merges += [("chai", "r"), ("▁", "chair"), ("▁", "."), ("b", "r"), ("o", "w"), ("br", "ow"), ("brow", "n")]
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *map("".join, merges)]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    model = tokenizers.models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    parts = [tokenizers.decoders.Replace("▁", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
    backend.decoder = tokenizers.decoders.Sequence([*parts, tokenizers.decoders.Strip(" ", 1, 0)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def save_language_model(folder: Path) -> int:
    """Saves a Llama and its tokeniser; returns the size of the vocabulary."""
    import transformers

    tokenizer = small_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config)
    # As Vicuna's own settings: they must not be mixed with those of an answer.
    model.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=2, max_length=9)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def checkpoint_state(vocabulary: int) -> dict[str, Tensor]:
    """Random tensors with the names and shapes of a checkpoint of Chat-Scene."""
    generator = torch.Generator().manual_seed(1)
    shapes: dict[str, tuple[int, ...]] = {}
    sizes = {"self_attn.q": (HIDDEN, HIDDEN), "self_attn.k": (HIDDEN, HIDDEN), "self_attn.v": (HIDDEN, HIDDEN)}
    sizes |= {"self_attn.o": (HIDDEN, HIDDEN), "mlp.gate": (48, HIDDEN), "mlp.up": (48, HIDDEN)}
    sizes |= {"mlp.down": (HIDDEN, 48)}
    for layer in range(LAYERS):
        for name, (rows, columns) in sizes.items():
            key = f"{WRAPPED}model.layers.{layer}.{name}_proj"
            shapes[f"{key}.lora_A.default.weight"] = (RANK, columns)
            shapes[f"{key}.lora_B.default.weight"] = (rows, RANK)
    for name in ("model.embed_tokens", "lm_head"):
        shapes[f"{WRAPPED}{name}.weight"] = (vocabulary + OBJECTS, HIDDEN)
    for name, width in (("object_proj", WIDTH_3D), ("object_img_proj", WIDTH_2D)):
        shapes |= {f"{name}.0.weight": (HIDDEN, width), f"{name}.0.bias": (HIDDEN,)}
        shapes |= {f"{name}.2.weight": (HIDDEN, HIDDEN), f"{name}.2.bias": (HIDDEN,)}
    shapes |= {"pos_proj.0.weight": (HIDDEN, 8), "pos_proj.0.bias": (HIDDEN,), "pos_embedding.gauss_B": (3, 4)}
    sizes_of_values = {name: 0.1 if "lora" in name else 0.3 for name in shapes}
    return {name: sizes_of_values[name] * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def save_checkpoint(path: Path, state: dict[str, Tensor], module: str = "utils.easydict") -> Path:
    """Saves a checkpoint whose settings are an object of a class that is gone afterwards."""
    settings = type("EasyDict", (dict,), {"__module__": module, "__qualname__": "EasyDict"})
    parts = module.split(".")
    with pytest.MonkeyPatch.context() as patch:
        for count in range(1, len(parts) + 1):
            patch.setitem(sys.modules, ".".join(parts[:count]), types.ModuleType(".".join(parts[:count])))
        sys.modules[module].EasyDict = settings  # type: ignore[attr-defined]
        config = settings(model=settings(max_obj_num=OBJECTS), lora=settings(lora_r=RANK))
        config.__dict__["lora"] = config["lora"]
        torch.save({"model": state, "config": config, "epoch": 2, "global_step": 10}, path)
    return path


def write_chat_scene(folder: Path) -> Files:
    """Writes everything that Chat-Scene needs, with a small annotation folder."""
    annotations = write_annotations(folder / "annotations")
    vocabulary = save_language_model(folder / "vicuna")
    state = checkpoint_state(vocabulary)
    generator = torch.Generator().manual_seed(2)
    paths = []
    for name, width in (("3d.pt", WIDTH_3D), ("2d.pt", WIDTH_2D)):
        vectors = {
            f"{scene}_{number:02d}": torch.randn(width, generator=generator)
            for scene in (SCENE, OTHER)
            for number in range(3)
        }
        torch.save(vectors, folder / name)
        paths.append(folder / name)
    checkpoint = save_checkpoint(folder / "ckpt.pth", state)
    return Files(folder / "vicuna", checkpoint, paths[0], paths[1], annotations, state)
