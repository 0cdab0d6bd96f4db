"""Makes GLB files smaller: whole files in, whole files out.

- glb_parts: a file taken apart and put together again
- quantization: integers in place of floating point (KHR_mesh_quantization)
- draco: Draco's coding of meshes (KHR_draco_mesh_compression), package DracoPy
- compressing: one of them by name
"""
