"""Tokens of Chat-Scene: token ids of a piece of a prompt with names of objects, and text from generated tokens.

Chat-Scene asks for transformers 4.39 and its slow tokeniser of Llama (`legacy=False`). This tokeniser puts one blank in
front of every text, even if the text begins with a blank, and no blank after the name of an object. Newer tokenisers
put a blank in front only if there is none. So this module writes the blanks itself, and uses only the merges of the
tokeniser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastsam3d.errors import UserError
from fastsam3d.mllm.benchmarks.metrics.object_ids import OBJECT_ID, object_token

BLANK = "▁"
"""How the vocabulary of Llama writes a blank."""
MOST_OBJECTS = 1000
"""Most objects: their names have three digits."""


class ObjectTokenizer:
    """A tokeniser of Llama, with one more token after its vocabulary for the name of each object.

    Args:
        tokenizer: of transformers, backed by the package tokenizers. Names of objects are added to it.
        objects: number of names.

    Raises:
        UserError: the tokeniser is of another kind, has no token for begin or end, or already has some of the names.
    """

    def __init__(self, tokenizer: Any, objects: int) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if type(getattr(backend, "model", None)).__name__ != "BPE":
            raise UserError(
                f"{type(tokenizer).__name__} is no tokeniser of Llama (BPE of the package tokenizers): give the folder "
                "of Vicuna with its own tokeniser."
            )
        self._tokenizer, self._pieces = tokenizer, backend.model
        self.first = len(tokenizer)
        self.objects = objects
        names = [object_token(number) for number in range(objects)]
        tokenizer.add_tokens(names, special_tokens=True)
        if tokenizer.convert_tokens_to_ids(names) != list(range(self.first, self.first + objects)):
            raise UserError("the tokeniser already has names of objects: give that of Vicuna, without additions.")
        for name in ("bos", "eos"):
            if getattr(tokenizer, f"{name}_token_id") is None:
                raise UserError(f"the tokeniser has no {name}_token: give the whole folder of Vicuna.")

    @property
    def begin(self) -> int:
        """Id of the token that begins a prompt."""
        return int(self._tokenizer.bos_token_id)

    @property
    def end(self) -> int:
        """Id of the token that ends an answer."""
        return int(self._tokenizer.eos_token_id)

    def ids(self, text: str) -> list[int]:
        """Token ids of one piece of a prompt, which is tokenised on its own."""
        found: list[int] = []
        rest, place = BLANK + text.replace(" ", BLANK), 0
        for match in OBJECT_ID.finditer(rest):
            if int(match[1]) < self.objects:
                found += self._merged(rest[place : match.start()])
                found.append(self.first + int(match[1]))
                place = match.end()
        return found + self._merged(rest[place:])

    def text(self, ids: Sequence[int]) -> str:
        """Text of a generated answer, cleaned up as Chat-Scene does: up to its end token, with single blanks."""
        kept = list(ids)
        if self.end in kept:
            kept = kept[: kept.index(self.end)]
        if self.begin in kept:
            kept = kept[len(kept) - kept[::-1].index(self.begin) :]
        text = self._tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text.replace("  ", " ").replace(" .", ".").strip()

    def _merged(self, text: str) -> list[int]:
        return [piece.id for piece in self._pieces.tokenize(text)] if text else []
