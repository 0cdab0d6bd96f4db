"""Packages of fastsam3d; everything else is in pyproject.toml."""

from setuptools import find_namespace_packages, setup

# Folders at the top of the repository that are installed inside the package.
INSIDE = {"fastsam3d.configs": "configs", "fastsam3d.examples": "examples"}

setup(
    packages=[*find_namespace_packages(include=["fastsam3d", "fastsam3d.*"]), *INSIDE],
    package_dir=INSIDE,
    package_data={
        "fastsam3d": ["py.typed"],
        "fastsam3d.app.assets": ["*.html", "*.js", "*.css"],
        "fastsam3d.app.viewer": ["*.js", "*.html"],
        "fastsam3d.mini": ["*.safetensors", "*.md", "*.json", "*.png"],
        "fastsam3d.mllm.mini": ["*.safetensors", "*.md"],
        "fastsam3d.evaluation.photographs": ["*.json"],
        "fastsam3d.configs": ["**/*.yaml"],
        "fastsam3d.examples": ["**/*"],
    },
)
