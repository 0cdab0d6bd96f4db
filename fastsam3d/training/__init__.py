"""Training of the small model on procedural objects, stage by stage: `python -m fastsam3d train`.

- recipe: the stages in order; sparse_structure, structured_latent: the autoencoder and the generator of each stage;
  export: from their runs to the shipped weights; options: the settings of all of them
- loop: what all stages go through; optimization, muon: what it is made of; loss_curves: losses of a run as a picture
- data: objects on disk, or made on a GPU, and the pictures and poses of a batch
- structured_latent/evaluation: the second stage alone, on held-out objects
- predictor: the predictor of attention maps of a language model, on batches that a caller makes;
  predictor/chat_scene: the same on stored maps of Chat-Scene

Submodules are imported on demand; nothing here is needed for reconstruction.
"""
