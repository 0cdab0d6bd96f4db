"""Reads JSON files from unknown sources, within limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from fastsam3d.basics.paths import require_file, user_path
from fastsam3d.errors import UserError

LARGEST_JSON = 1 << 27
"""Largest size of a file, in bytes."""


def read_json(path: str | Path, what: str, largest: int = LARGEST_JSON) -> Any:
    """Reads the value of a JSON file.

    Args:
        what: name of the file in messages, without its path.
        largest: largest size of the file, in bytes.

    Raises:
        UserError: the file does not exist, is too large, or is not strict JSON in UTF-8.
    """
    file = require_file(user_path(path), f"{what} {path}", largest)
    try:
        return json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except RecursionError:
        raise UserError(f"{what} {path} has values that are nested too deeply. Check the file.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)[:200]
        raise UserError(f"{what} {path} cannot be read as JSON ({reason}). Download or write it again.") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
