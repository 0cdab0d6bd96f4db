"""Formats that an object can be decoded to, and the network that each of them needs.

Nothing heavy is imported, so that a mistyped format can be refused before the networks are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fastsam3d.errors import UserError

DECODERS: Mapping[str, str] = {"mesh": "slat_decoder_mesh", "gaussian": "slat_decoder_gs"}
"""Networks by format."""
FORMATS = tuple(DECODERS)


def decodable(networks: Iterable[str]) -> tuple[str, ...]:
    """Lists the formats that a pipeline with networks of these names has decoders for."""
    there = set(networks)
    return tuple(name for name, decoder in DECODERS.items() if decoder in there)


def check_formats(formats: Iterable[str], networks: Iterable[str], model: str) -> None:
    """Checks that a model can decode the requested formats.

    Args:
        formats: what is asked for.
        networks: names of the networks that there are.
        model: its name, for the message.

    Raises:
        UserError: an unknown format, or one that the model has no decoder for.
    """
    formats = tuple(formats)
    for name in formats:
        if name not in DECODERS:
            raise UserError(f"Unknown format {name!r}; choose from {', '.join(FORMATS)}.")
    there = decodable(networks)
    for name in formats:
        if name not in there:
            raise UserError(
                f"The model {model!r} has no decoder for the format {name!r}; "
                f"leave it out, or load a model that has {DECODERS[name]}."
            )
