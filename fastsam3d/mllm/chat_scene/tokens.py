"""Tokens of Chat-Scene: pieces of a prompt, names of objects among them, and text from generated tokens.

Chat-Scene asks for transformers 4.39 and its slow tokeniser of Llama (`legacy=False`). That puts one blank in front of
every text, whether there is one already or not, and none behind the name of an object. Newer tokenisers put it in front
only where none is. So blanks are written here, and only the merges of the tokeniser are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastsam3d.errors import UserError
from fastsam3d.mllm.benchmarks.metrics.object_ids import OBJECT_ID, object_token

BLANK = "▁"
"""How the vocabulary of Llama writes a blank."""
MOST_OBJECTS = 1000
"""Names have three digits."""


class ObjectTokenizer:
    """A tokeniser of Llama, and a token behind its vocabulary for the name of each object.

    Args:
        tokenizer: of transformers, backed by the package tokenizers. Names of objects are added to it.
        objects: number of names.

    Raises:
        UserError: the tokeniser is of another kind, or has some of the names already in other places.
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
            raise UserError("the tokeniser knows names of objects already: give Vicuna's own, without additions.")
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
        """Token ids of one piece of a prompt, which is cut from its neighbours."""
        found: list[int] = []
        rest, place = BLANK + text.replace(" ", BLANK), 0
        for match in OBJECT_ID.finditer(rest):
            if int(match[1]) < self.objects:
                found += self._merged(rest[place : match.start()])
                found.append(self.first + int(match[1]))
                place = match.end()
        return found + self._merged(rest[place:])

    def text(self, ids: Sequence[int]) -> str:
        """Text of a generated answer, in the way in which Chat-Scene tidies it up."""
        kept = list(ids)
        if self.end in kept:
            kept = kept[: kept.index(self.end)]
        if self.begin in kept:
            kept = kept[len(kept) - kept[::-1].index(self.begin) :]
        text = self._tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text.replace("  ", " ").replace(" .", ".").strip()

    def _merged(self, text: str) -> list[int]:
        return [piece.id for piece in self._pieces.tokenize(text)] if text else []
