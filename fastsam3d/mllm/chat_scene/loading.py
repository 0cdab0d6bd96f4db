"""Loads Chat-Scene: a folder of Vicuna, and the checkpoint that was trained on top of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastsam3d.basics.devices import check_device
from fastsam3d.basics.optional import optional_module
from fastsam3d.basics.paths import user_path
from fastsam3d.errors import UserError
from fastsam3d.mllm.chat_scene.checkpoint import EMBEDDINGS, PROJECTIONS, Checkpoint, grouped, read_checkpoint
from fastsam3d.mllm.chat_scene.model import PLACE, ChatScene
from fastsam3d.mllm.chat_scene.tokens import MOST_OBJECTS, ObjectTokenizer

ALPHA = 16.0
"""The alpha of LoRA in the published training."""


def load_chat_scene(
    vicuna: str | Path,
    checkpoint: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    lora_alpha: float = ALPHA,
    missing_objects: str = PLACE,
    settings_classes: Sequence[str] = (),
) -> ChatScene:
    """Loads Chat-Scene, ready to answer. No code of a file runs, and nothing is fetched.

    LoRA is merged into the matrices, W + (alpha / r) B A, so the result is a plain Llama. The published code does not
    merge LoRA, and keeps embeddings and head in float32 while the layers are in bfloat16. So with
    `dtype=torch.bfloat16` the numbers here differ from it by rounding.

    Args:
        vicuna: folder of Vicuna-7B v1.5 as transformers loads it, with its tokeniser.
        checkpoint: file of Chat-Scene.
        device: `cpu`, `cuda` or `cuda:0`.
        dtype: number type of the language model.
        attention: `sdpa` or `eager`.
        lora_alpha: the alpha of LoRA in its training. The rank is read from the checkpoint.
        missing_objects: `place` or `leave_out`, see `ChatScene`.
        settings_classes: more classes that the checkpoint may name, as "module.Class". Those of published checkpoints
            are always allowed.

    Raises:
        UserError: there is no such device; a file is missing or cannot be read; or Vicuna and the checkpoint do not
            belong together. The message lists the keys that do not fit.
    """
    target = check_device(device)
    folder = user_path(vicuna)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no folder of a language model: it has no config.json. Give the folder of Vicuna.")
    transformers = optional_module("transformers", "Chat-Scene", "mllm")
    tokenizer = _read_tokenizer(transformers, folder)
    language_model = _read_language_model(transformers, folder, dtype, attention)
    shapes = {name: tuple(value.shape) for name, value in language_model.named_parameters(remove_duplicate=False)}
    weights = read_checkpoint(checkpoint, shapes, settings_classes)
    objects = len(weights.embeddings) - len(tokenizer)
    if not 0 < objects <= MOST_OBJECTS:
        raise UserError(
            f"{checkpoint} has {len(weights.embeddings)} embeddings, and the tokeniser in {folder} has "
            f"{len(tokenizer)} tokens: the checkpoint must have 1 to {MOST_OBJECTS} more, for the names of objects. "
            "Check that both belong together."
        )
    with torch.no_grad():
        merge_adapters(language_model, weights, lora_alpha)
        _replace_embeddings(language_model, weights, dtype)
    projections = tuple(_projection(weights, name) for name in PROJECTIONS)
    model = ChatScene(language_model, ObjectTokenizer(tokenizer, objects), projections, missing_objects)  # type: ignore[arg-type]
    return model.eval().requires_grad_(False).to(target)


def merge_adapters(language_model: Any, weights: Checkpoint, alpha: float) -> None:
    """Adds (alpha / r) B A to every matrix that LoRA changes, in float32 (Hu et al., ICLR 2022, equation 3)."""
    for name, (first, second) in weights.adapters.items():
        matrix = language_model.get_submodule(name).weight
        change = second.float() @ first.float() * (alpha / first.shape[0])
        matrix.copy_(matrix.float() + change.to(matrix.device))


def _read_tokenizer(transformers: Any, folder: Path) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(
            str(folder), legacy=False, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever the packages beneath make of a damaged or absent file
        text = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"the tokeniser in {folder} cannot be read ({text}). A folder with tokenizer.model and without "
            "tokenizer.json needs two more packages: pip install sentencepiece protobuf."
        ) from error


def _read_language_model(transformers: Any, folder: Path, dtype: torch.dtype, attention: str) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        if config.model_type != "llama":
            raise UserError(f"the model in {folder} is a {config.model_type}, no Llama: give the folder of Vicuna.")
        # What a file lacks would be drawn at random: the draws must not move the caller's random numbers.
        with torch.random.fork_rng(devices=[]):
            model, found = transformers.LlamaForCausalLM.from_pretrained(
                str(folder),
                config=config,
                dtype=dtype,
                attn_implementation=attention,
                local_files_only=True,
                output_loading_info=True,
            )
    except UserError:
        raise
    except Exception as error:
        text = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"the language model in {folder} cannot be read ({text}). Download or copy it again."
        ) from error
    lacking = sorted(found["missing_keys"]) + [str(entry) for entry in found.get("mismatched_keys", ())]
    if lacking:
        raise UserError(
            f"the language model in {folder} has missing or wrong weights: {grouped(lacking)}. Copy it again."
        )
    # Vicuna's own settings of sampling would be mixed with those of an answer.
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id or 0
    )
    return model


def _replace_embeddings(language_model: Any, weights: Checkpoint, dtype: torch.dtype) -> None:
    """Puts the trained embeddings and head, with rows for the names of objects, in place of Vicuna's."""
    rows, hidden = weights.embeddings.shape
    embeddings = nn.Embedding.from_pretrained(_own(weights.embeddings, dtype))
    head = nn.Linear(hidden, rows, bias=False, device="meta")
    head.weight = nn.Parameter(_own(weights.head, dtype))
    language_model.set_input_embeddings(embeddings)
    language_model.set_output_embeddings(head)
    language_model.config.vocab_size = language_model.vocab_size = rows
    language_model.config.tie_word_embeddings = False
    assert language_model.get_submodule(EMBEDDINGS.removesuffix(".weight")) is embeddings


def _projection(weights: Checkpoint, name: str) -> nn.Module:
    layers = [weights.projections[f"{name}.{index}.weight"] for index in (0, 2)]
    with torch.device("meta"):
        linears = [nn.Linear(layer.shape[1], layer.shape[0]) for layer in layers]
    projection = nn.Sequential(linears[0], nn.GELU(), linears[1])
    own = {key: _own(weights.projections[f"{name}.{key}"], torch.float32) for key in projection.state_dict()}
    projection.load_state_dict(own, assign=True)
    return projection


def _own(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy in memory, and not in the mapped file."""
    return tensor.detach().to(dtype, copy=True).contiguous()
