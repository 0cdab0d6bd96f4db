"""The part of the page with the choices for a run: preset, seeds, settings of acceleration, files.

Imports Gradio at the top of the file, like `page` and for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from fastsam3d.app.page.file_settings import MOST, TEXTURES
from fastsam3d.app.page.knobs import LABELS, MAXIMUM_ERROR, MAXIMUM_STRIDE, choices, knobs_of, presets
from fastsam3d.app.page.parts import refuse_quietly


@dataclass(frozen=True)
class Choices:
    """Components of the choices.

    Attributes:
        preset: the preset of acceleration.
        described: components that depend on the preset: its description and the knobs.
        seeds: first seed and number of seeds.
        files: faces, texture, watertight.
    """

    preset: Any
    described: list[Any]
    seeds: list[Any]
    files: list[Any]

    @property
    def all(self) -> list[Any]:
        """Returns all components that a run needs: preset, knobs, seeds, files."""
        return [self.preset, *self.described[1:], *self.seeds, *self.files]


def run_choices(most_seeds: int) -> Choices:
    """Builds the components at this place of the page.

    Args:
        most_seeds: largest number of seeds in one run.
    """
    described = presets()
    first = next(iter(described))
    knobs = knobs_of(first)

    def labelled(knob: str) -> dict[str, Any]:
        return {"label": LABELS[knob][0], "info": LABELS[knob][1], "elem_id": f"knob-{knob}"}

    preset = gr.Radio(choices(), value=first, label="Preset", elem_id="preset")
    about = gr.Markdown(described[first], elem_id="about-preset", elem_classes="fine")
    with gr.Accordion("Files: faces, texture, watertight", open=False, elem_id="file-settings"):
        with gr.Row():
            faces = gr.Number(
                0,
                label="Faces, about",
                info="0 keeps all.",
                precision=0,
                minimum=0,
                maximum=MOST,
                elem_id="faces",
            )
            texture = gr.Dropdown(
                list(TEXTURES.items()), value=0, label="Colours", info="A texture takes longer.", elem_id="texture"
            )
        watertight = gr.Checkbox(False, label="Watertight", info="Closes holes, for 3D printing.", elem_id="watertight")
    with gr.Accordion("Seeds and settings", open=False, elem_id="more"):
        with gr.Row():
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed")
            count = gr.Slider(
                1,
                most_seeds,
                value=1,
                step=1,
                label="Seeds to try",
                info="The one that fits your mask best is shown.",
                elem_id="count",
            )
        stride = gr.Slider(1, MAXIMUM_STRIDE, value=knobs.stride, step=1, **labelled("stride"))
        error = gr.Slider(0, MAXIMUM_ERROR, value=knobs.error, step=0.1, **labelled("error"))
        carving = gr.Checkbox(knobs.carving, **labelled("carving"))
        merging = gr.Checkbox(knobs.merging, **labelled("merging"))
    made = Choices(preset, [about, stride, error, carving, merging], [seed, count], [faces, texture, watertight])
    for component in made.all:
        refuse_quietly(component)
    return made
