"""A pretrained language model of general text, SmolLM2-135M-Instruct, and rooms written as text for it.

It was never trained on 3D scenes. It is for checks of exactness, speed and scorers on real weights.

- loading: the weights out of an installed package
- scene_text: rooms and questions to tokens, and which tokens belong to which object
"""
