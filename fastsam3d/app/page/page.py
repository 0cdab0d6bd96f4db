"""Builds the demo's page in Gradio: its header, its tabs and its appearance.

Only this folder imports Gradio at the top of its modules: Gradio reads the annotations of its functions.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from fastsam3d.app.page import fragments
from fastsam3d.app.page.ask_tab import ASK_A_ROOM, build_ask_tab
from fastsam3d.app.page.parts import asset, piece
from fastsam3d.app.page.picture_tab import PICTURE_TO_3D, build_picture_tab
from fastsam3d.app.viewer import scripts
from fastsam3d.app.visitors.shared import Studio
from fastsam3d.app.visitors.visitors import Visitors

TITLE = "fastsam3d"


def build_page(studio: Studio) -> Any:
    """Builds the page as Gradio blocks.

    Args:
        studio: the objects that all visitors share.
    """
    visitors = Visitors(studio)

    def left(request: gr.Request) -> None:
        visitors.leave(str(request.session_hash))

    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        piece(fragments.header(asset("header.html"), studio.model_note), elem_id="top")
        with gr.Tabs():
            with gr.Tab(PICTURE_TO_3D):
                build_picture_tab(visitors)
            with gr.Tab(ASK_A_ROOM, elem_id="ask-tab"):
                build_ask_tab(visitors)
        page.unload(left)
    page.queue(default_concurrency_limit=4, max_size=200)
    return page


def appearance() -> dict[str, Any]:
    """Returns theme, style and scripts, for mounting the page. No font and no script comes from another server."""
    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.slate,
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
        radius_size=gr.themes.sizes.radius_md,
    ).set(body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_400")
    return {"theme": theme, "css": asset("page.css"), "head": f"<script>{scripts()}\n{asset('unsaved.js')}</script>"}
