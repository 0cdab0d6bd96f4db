"""Packages of fastsam3d; everything else is in pyproject.toml.

The folders `configs` and `examples` lie at the top of the repository. A built package holds them inside. An editable
installation does not need that: the package finds them in the source tree. So it is one line in a .pth file, which type
checkers read. With a mapping of folders in `package_dir` it would be code, which they do not follow.
"""

from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

TOP = Path(__file__).resolve().parent
# What is copied into the package. The point maps of the examples and the gallery of the model card are left out: 1.7 MB
# that no program needs.
INSIDE = ("configs/**/*.yaml", "configs/*.bib", "examples/*/*.png", "examples/room.json", "examples/README.md")


class Build(build_py):
    """Builds the package, with the files of INSIDE in it."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for source, target in self._inside():
                self.mkpath(str(target.parent))
                self.copy_file(str(source), str(target))

    def get_outputs(self, include_bytecode=True):
        return [*super().get_outputs(include_bytecode), *(str(target) for _source, target in self._inside())]

    def get_source_files(self):
        return [*super().get_source_files(), *(str(source.relative_to(TOP)) for source, _target in self._inside())]

    def _inside(self):
        if self.editable_mode:
            return []
        sources = sorted(path for pattern in INSIDE for path in TOP.glob(pattern))
        return [(source, Path(self.build_lib) / "fastsam3d" / source.relative_to(TOP)) for source in sources]


setup(
    packages=find_namespace_packages(include=["fastsam3d", "fastsam3d.*"]),
    package_dir={"": "."},
    package_data={
        "fastsam3d": ["py.typed"],
        "fastsam3d.app.assets": ["*.html", "*.js", "*.css"],
        "fastsam3d.app.viewer": ["*.js", "*.html"],
        "fastsam3d.mini": ["*.safetensors", "*.md", "*.json"],
        "fastsam3d.mllm.mini": ["*.safetensors", "*.md"],
        "fastsam3d.evaluation.photographs": ["*.json"],
    },
    cmdclass={"build_py": Build},
)
