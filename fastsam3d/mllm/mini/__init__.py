"""A small 3D language model that ships with the package: it answers questions about procedural rooms.

- tokens: words to numbers
- model: a `LlamaForCausalLM` of transformers with projectors of object features, as in Chat-Scene
- prompts: rooms and questions to embeddings, and answers back to words
- loading: the files that ship; asking: one question, without pruning and with it
- alpha: how much of the predicted attention has to stay
"""
