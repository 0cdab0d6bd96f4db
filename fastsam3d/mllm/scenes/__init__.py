"""Procedural indoor scenes and questions about them, for a small 3D language model that runs anywhere.

- vocabulary: classes, colours, sizes and the words for them
- rooms: objects with class, colour, size and box, made from a seed
- files: rooms in JSON files
- features: the noisy features of each object that the model reads; the box is not one of them
- questions, wording: questions of five tasks with their answers, and their sentences
- drawing, labels: a picture of a room from above
"""
