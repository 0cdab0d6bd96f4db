"""The finish: any pipeline's mesh and Gaussians to a clean, small, textured mesh.

- finishing: the order of the steps, `fastsam3d.finish`
- sources: results of other pipelines and files, as one kind of input
- cleaning: joining, dropping loose pieces, holes
- baking: what colour each texel has, and texels that nothing covers
- voxel_colors: colours that are stored in voxels (TRELLIS.2)
"""
