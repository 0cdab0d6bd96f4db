"""Pieces of the tab for rooms as HTML text. All text from other sources is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from fastsam3d.app.marking.marks import data_url

if TYPE_CHECKING:
    from PIL.Image import Image

    from fastsam3d.mllm.mini.asking import Asked


def picture(image: Image, text: str) -> str:
    """Returns a picture with a text for people who cannot see it."""
    return f'<img class="room" src="{data_url(image)}" alt="{escape(text)}">'


def answers(asked: Asked) -> str:
    """Returns both answers side by side, with milliseconds and the number of objects that stayed."""
    from fastsam3d.mllm.mini.asking import named

    stayed, objects = int(np.asarray(asked.kept).sum()), len(asked.room)
    sides = []
    for way, count in ((asked.plain, objects), (asked.pruned, stayed)):
        sides.append(
            f'<section><h3>{escape(way.name)}</h3><p class="answer">{escape(named(way.answer, asked.room))}</p>'
            f"<p><b>{way.milliseconds:.1f} ms</b> to read the prompt, {count} of {objects} objects stayed</p>"
            "</section>"
        )
    factor = asked.plain.milliseconds / max(asked.pruned.milliseconds, 1e-9)
    how = f"{factor:.1f}× as fast as" if factor >= 1 else f"{1 / factor:.1f}× slower than"
    same = "The same answer" if asked.plain.answer == asked.pruned.answer else "A different answer"
    head = f'<p class="headline"><b>{same}</b> prompt read {how} {escape(asked.plain.name)}</p>'
    return f'{head}<div class="answers">{"".join(sides)}</div>'
