"""Procedural indoor scenes and questions about them, for a small 3D language model that runs anywhere.

- vocabulary: classes, colours, sizes and the words for them
- rooms: objects with class, colour, size and box
- features: what the model is given of each object; its box is not among it
- questions, wording: five tasks with their answers, and how they are said
"""
