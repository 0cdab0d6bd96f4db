"""What a model can be asked to decode."""

from __future__ import annotations

import pytest

from fastsam3d.errors import UserError
from fastsam3d.sam3d.pipeline.formats import check_formats, decodable

NETWORKS = ("ss_generator", "slat_generator", "slat_decoder_mesh")


def test_formats_are_those_with_a_decoder() -> None:
    assert decodable(NETWORKS) == ("mesh",)
    assert decodable([*NETWORKS, "slat_decoder_gs"]) == ("mesh", "gaussian")
    assert decodable(()) == ()


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        (("gaussian", "voxels"), "Unknown format 'voxels'; choose from mesh, gaussian."),
        (iter(("mesh", "gaussian")), "'toy' has no decoder for the format 'gaussian'; .* has slat_decoder_gs"),
    ],
)
def test_what_cannot_be_decoded_is_refused(formats: object, message: str) -> None:
    check_formats(("mesh",), NETWORKS, "toy")
    with pytest.raises(UserError, match=message):
        check_formats(formats, NETWORKS, "toy")  # type: ignore[arg-type]
