"""A 3D viewer of our own for web pages: plain JavaScript on WebGL 2, nothing fetched from anywhere.

`glb.js` reads binary glTF, `splats.js` draws Gaussians, `shaders.js` has the light of meshes, `viewer.js` shows all.
The head of each file documents its interface. In a page:

    <canvas id="result"></canvas>
    <script>{scripts()}</script>
    <script>
      const viewer = Fastsam3dViewer.mount(document.getElementById("result"), "/files/object.glb");
    </script>

`page` makes a complete page that contains its file: you can store it, send it, and open it from the disk.
"""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path

_FOLDER = Path(__file__).parent
_SCRIPTS = ("glb", "splats", "shaders", "viewer")


def scripts() -> str:
    """Returns all scripts as one text, for a `<script>` element; they define `Fastsam3dViewer` and `Fastsam3dGlb`."""
    return "\n".join((_FOLDER / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)


def page(glb: bytes, title: str) -> str:
    """Returns a self-contained page that shows a GLB file; it sends no request.

    Args:
        glb: the file's bytes.
        title: shown above the picture; any text.
    """
    parts = {
        "title": html.escape(title),
        "model": base64.b64encode(glb).decode("ascii"),
        "scripts": scripts(),
    }
    template = (_FOLDER / "page.html").read_text(encoding="utf-8")
    # In one pass, so that text in a title is never replaced.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found.group(1)], template)
