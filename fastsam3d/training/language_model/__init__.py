"""Training of the small 3D language model on procedural rooms.

- packing: many questions of one room in one pass
- batches: rooms, questions and what is to be said
- aids: what makes so small a model learn to look objects up
- curriculum: from small rooms to large ones
- training: the run; evaluation: right answers of each kind
"""
