"""Common parts of the page's tabs."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import gradio as gr

POLL = 0.25
"""Seconds between two looks at a running job."""
INSIDE = "An error happened in the program. The terminal in which the demo was started shows it."
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Options of events: no progress is shown, and the event is not part of the public API."""
_ASSETS = Path(__file__).resolve().parents[1] / "assets"


def asset(name: str) -> str:
    """Reads a file of the page as text."""
    return (_ASSETS / name).read_text(encoding="utf-8")


def piece(*values: Any, **more: Any) -> Any:
    """Makes a part of the page in HTML of our own."""
    return gr.HTML(*values, apply_default_css=False, padding=False, container=False, **more)


def png_url(data: bytes) -> str:
    """Returns the address of a PNG that holds the PNG itself."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def value_of(event: Any, key: str) -> Any:
    """Returns a value of the data that a part of the page sent with its event; None if it is missing."""
    data = event._data
    return data.get(key) if isinstance(data, dict) else None


def refuse_quietly(component: Any) -> None:
    """Makes a component refuse values that the page never sends; for these Gradio would log a traceback."""
    read = component.preprocess

    def preprocess(payload: Any) -> Any:
        try:
            return read(payload)
        except Exception:
            raise gr.Error("This value is not possible.", print_exception=False) from None

    component.preprocess = preprocess
