"""What the tabs of the page share."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import gradio as gr

POLL = 0.25
"""Seconds between two looks at a running job."""
INSIDE = "Something went wrong inside; the terminal that the demo was started from says what."
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Of events: nothing is shown meanwhile, and no other program is told about them."""
_ASSETS = Path(__file__).resolve().parents[1] / "assets"


def asset(name: str) -> str:
    """A file of the page as text."""
    return (_ASSETS / name).read_text(encoding="utf-8")


def piece(*values: Any, **more: Any) -> Any:
    """A part of the page in HTML of our own."""
    return gr.HTML(*values, apply_default_css=False, padding=False, container=False, **more)


def png_url(data: bytes) -> str:
    """The address of a PNG that holds the PNG itself."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def value_of(event: Any, key: str) -> Any:
    """A value that a part of the page sent with its event; None without it."""
    data = event._data
    return data.get(key) if isinstance(data, dict) else None


def refuse_quietly(component: Any) -> None:
    """Lets one component answer values that the page never sends, and that Gradio would write a traceback about."""
    read = component.preprocess

    def preprocess(payload: Any) -> Any:
        try:
            return read(payload)
        except Exception:
            raise gr.Error("This value is not possible.", print_exception=False) from None

    component.preprocess = preprocess
