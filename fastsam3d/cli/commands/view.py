"""`view`: a file of a run, or any other, in the browser."""

from __future__ import annotations

import sys
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fastsam3d.basics.paths import user_path
from fastsam3d.cli.console import ShownWarnings
from fastsam3d.cli.flags import Parser, whole
from fastsam3d.errors import UserError

LOOPBACK = "127.0.0.1"


def main(words: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
        UserError: the file cannot be read, or the page not be written or served.
    """
    from fastsam3d.meshes.formats import read_formats, suffix_list

    suffixes = suffix_list(read_formats())
    parser = Parser(
        prog="python -m fastsam3d view",
        description=f"Shows a {suffixes} file in the browser: a page of its own, served to this machine only.",
        epilog="Ends with Ctrl-C. Over SSH: --port 8010 --no-open, and ssh -L 8010:127.0.0.1:8010 HOST on your side.",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help=f"object or scene: {suffixes}")
    parser.add_argument("--html", metavar="PAGE", help="write the page to a file that holds everything, and stop")
    parser.add_argument("--port", type=whole, default=0, metavar="N", help="port to serve on (default: any free one)")
    parser.add_argument("--no-open", action="store_true", help="print the address without opening a browser")
    given = parser.parse_args(words)
    if not 0 <= given.port <= 65535:
        raise UserError(f"--port {given.port} is not possible: give 1 to 65535.")
    source = user_path(given.file)
    if given.html and source.exists():
        target = user_path(given.html)
        if target.exists() and target.samefile(source):
            raise UserError(f"--html {target} is the file that is shown and would be overwritten: give another name.")
    with ShownWarnings():
        text = page_of(source)
    if given.html:
        from fastsam3d.basics.files import write_atomically

        path = write_atomically(user_path(given.html), text.encode("utf-8", "replace"))
        sys.stdout.write(f"written: {path}\n")
        return 0
    serve(text, given.port, not given.no_open)
    return 0


def page_of(path: Path) -> str:
    """The viewer's page for a file; GLB is passed on as it is, other kinds are turned into it.

    Raises:
        UserError: the file cannot be read.
    """
    from fastsam3d.app.viewer import page
    from fastsam3d.meshes.gltf import Node, glb_bytes
    from fastsam3d.meshes.reading import read_model
    from fastsam3d.meshes.splats.gltf import splats_glb
    from fastsam3d.meshes.splats.reading import holds_splats, read_splats

    parts = read_model(path)
    if path.suffix.lower() == ".ply" and all(mesh.is_empty for _, mesh in parts) and holds_splats(path):
        return page(splats_glb(read_splats(path), path.stem), path.name)
    data = path.read_bytes() if path.suffix.lower() == ".glb" else glb_bytes([Node(*part) for part in parts])
    return page(data, path.name)


def serve(text: str, port: int = 0, open_browser: bool = True) -> None:
    """Serves one page to this machine until it is interrupted.

    Raises:
        UserError: the port is taken.
    """
    try:
        server = make_server(text, port)
    except OSError as error:
        raise UserError(f"port {port} cannot be used ({error.strerror or error}): give another --port.") from None
    address = f"http://{LOOPBACK}:{server.server_address[1]}/"
    with server:
        opened = open_browser and webbrowser.open(address)
        sys.stdout.write(f"{'showing' if opened else 'open'} {address}  (Ctrl-C ends)\n")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.stdout.write("\n")


def make_server(text: str, port: int = 0) -> ThreadingHTTPServer:
    """A server of one page on the loopback address. Whatever else is asked for is not there."""
    body = text.encode("utf-8", "replace")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = self.headers.get("Host", "").rsplit(":", 1)[0]
            # A page elsewhere whose name was made to point here must not get the file.
            found = self.path == "/" and host in (LOOPBACK, "localhost")
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(body)

        def log_message(self, format: str, *values: Any) -> None:
            """Writes nothing: a person who looks at an object does not want to read about requests."""

    return ThreadingHTTPServer((LOOPBACK, port), Handler)
