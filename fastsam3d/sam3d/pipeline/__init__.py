"""The native pipeline: preprocessing, sampling, pose, decoding, scenes and export."""
