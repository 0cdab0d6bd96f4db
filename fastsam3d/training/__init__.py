"""Training of the small model on procedural objects, stage by stage: `python -m fastsam3d train`.

- command: the stages in order; sparse_structure_vae, sparse_structure_flow, structured_latent_vae,
  structured_latent_flow: a program each; export: from their runs to the shipped weights
- loop: what all stages go through; optimization, muon: what it is made of
- dataset, shards, device_dataset, data_source: objects on disk, or made on a GPU; condition_batch: pictures and poses
  of a batch; structured_latent_data, structured_latent_batch: voxels of an object, and of a batch
- structured_latent_autoencoder: the second stage's latents and their decoder; structured_latent_evaluation: the second
  stage alone, on held-out objects

Submodules are imported on demand; nothing here is needed for reconstruction.
"""
