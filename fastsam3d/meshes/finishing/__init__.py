"""The finish: makes a clean, small, textured mesh of the mesh and Gaussians of any pipeline.

- finishing: the order of the steps, `fastsam3d.finish`
- sources: results of other pipelines and files, as one kind of input
- cleaning: joining, dropping loose pieces, holes
- baking: the colour of each texel, and texels without a colour of their own
- normal_maps: the shape of the full surface as a picture of normals
- voxel_colors: colours that are stored in voxels (TRELLIS.2)
"""
