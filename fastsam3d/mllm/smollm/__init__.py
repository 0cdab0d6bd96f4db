"""A pretrained language model of general text, SmolLM2-135M-Instruct, and rooms written as text for it.

It was not trained on 3D scenes. It serves to check exactness, speed and scorers on real weights.

- loading: loads the weights from an installed package
- scene_text: turns rooms and questions into tokens, and says which tokens belong to which object
"""
