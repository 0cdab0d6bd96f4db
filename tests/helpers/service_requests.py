"""Requests to the service: a good one, and many mistakes of a client."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LIMITS: dict[str, Any] = {"file_mib": 1.0, "megapixels": 1.0, "masks": 4}
"""Options of a service to which `BAD` are mistakes."""


def parts(vase: Path, **more: Any) -> dict[str, Any]:
    return {"picture": (vase / "image.png").open("rb"), "mask": (vase / "0.png").open("rb"), **more}


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


def bomb(side: int = 20_000) -> bytes:
    """A PNG of some bytes that promises many megapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def array(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


GREY = png(np.full((48, 64, 3), 120, np.uint8))
DISC = np.zeros((48, 64), np.uint8)
DISC[10:30, 10:30] = 255
P, M = ("p.png", GREY), ("m.png", png(DISC))
OBJECT, SCENE = "/v1/objects", "/v1/scenes"
BAD = {
    "no mask": (OBJECT, [("picture", P)], {}, 422, "the part mask is missing"),
    "no picture": (OBJECT, [("mask", M)], {}, 422, "the part picture is missing"),
    "no masks": (SCENE, [("picture", P)], {}, 422, "the part masks is missing"),
    "masks twice": (SCENE, [("picture", P), ("masks", M), ("labels", M)], {}, 422, "both given"),
    "two pictures": (OBJECT, [("picture", P), ("picture", P), ("mask", M)], {}, 422, "2 files are called picture"),
    "too many masks": (SCENE, [("picture", P), *[("masks", M)] * 5], {}, 422, "5 files are called masks"),
    "unknown part": (OBJECT, [("picture", P), ("mask", M), ("image", P)], {}, 422, "'image' is not wanted"),
    "text for a picture": (OBJECT, [("mask", M)], {"picture": "x"}, 422, "'picture' is not wanted here, or is no file"),
    "a text file": (OBJECT, [("picture", ("p.txt", b"x")), ("mask", M)], {}, 422, "ends in .txt"),
    "no suffix": (OBJECT, [("picture", ("p", GREY)), ("mask", M)], {}, 422, "ends in nothing"),
    "a path": (OBJECT, [("picture", ("../../etc/passwd", b"x")), ("mask", M)], {}, 422, "ends in nothing"),
    "no image": (OBJECT, [("picture", ("p.png", b"not a picture")), ("mask", M)], {}, 422, "is not an image"),
    "cut off": (OBJECT, [("picture", ("p.png", GREY[:60])), ("mask", M)], {}, 422, "picture.png"),
    "a bomb": (OBJECT, [("picture", ("p.png", bomb())), ("mask", M)], {}, 422, "too large to be opened"),
    "a bomb as mask": (OBJECT, [("picture", P), ("mask", ("m.png", bomb(3000)))], {}, 422, "9.0 megapixels"),
    "an empty file": (OBJECT, [("picture", ("p.png", b"")), ("mask", M)], {}, 422, "picture.png"),
    "another size": (OBJECT, [("picture", P), ("mask", ("m.png", png(DISC[:20])))], {}, 422, "mask.png"),
    "an empty mask": (OBJECT, [("picture", P), ("mask", ("m.png", png(DISC * 0)))], {}, 422, "is empty"),
    "a pickle": (OBJECT, [("picture", P), ("mask", ("m.npy", b"\x80\x04."))], {}, 422, "array of numbers"),
    "an array of objects": (
        *(OBJECT, [("picture", P), ("mask", ("m.npy", array(np.array([{}], dtype=object))))], {}, 422),
        "array of numbers",
    ),
    "a map of another size": (
        *(OBJECT, [("picture", P), ("mask", M), ("pointmap", ("x.npy", array(np.ones((3, 3, 3)))))], {}, 422),
        "pointmap.npy",
    ),
    "options that are no JSON": (OBJECT, [("picture", P), ("mask", M)], {"options": "{"}, 422, "no JSON object"),
    "options that are a list": (OBJECT, [("picture", P), ("mask", M)], {"options": "[1]"}, 422, "no JSON object"),
    "unknown option": (OBJECT, [("picture", P), ("mask", M)], {"options": '{"sed": 1}'}, 422, "Did you mean seed"),
    "a path as option": (
        OBJECT,
        [("picture", P), ("mask", M)],
        {"options": '{"output_dir": "/"}'},
        422,
        "unknown option",
    ),
    "a seed": (OBJECT, [("picture", P), ("mask", M)], {"options": '{"seed": -1}'}, 422, "seed is -1"),
    "a format": (OBJECT, [("picture", P), ("mask", M)], {"options": '{"export": ["exe"]}'}, 422, "export exe"),
    "a format that is no text": (
        *(OBJECT, [("picture", P), ("mask", M)], {"options": '{"export": ["\\ud800"]}'}, 422),
        "export \\ud800 is not possible",
    ),
    "too many faces": (OBJECT, [("picture", P), ("mask", M)], {"options": '{"faces": 9999999}'}, 422, "takes up to"),
    "too large": (OBJECT, [("picture", ("p.png", b"x" * 2**21)), ("mask", M)], {}, 413, "more than 1 MiB"),
    "wait": (OBJECT + "?wait=soon", [("picture", P), ("mask", M)], {}, 400, "wait=soon is not possible"),
    "deep JSON": (OBJECT, [("picture", P), ("mask", M)], {"options": "[" * 60000}, 422, "no JSON object"),
}
