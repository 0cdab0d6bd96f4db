"""Repositories of the Hugging Face Hub that hold weights which are not part of this package."""

from __future__ import annotations

HUB = "https://huggingface.co"
SAM3D_REPOSITORY = "facebook/sam-3d-objects"
"""The official weights; access is given on request."""
MOGE_REPOSITORY = "Ruicheng/moge-vitl"
"""Point maps from a picture alone."""
