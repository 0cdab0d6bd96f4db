"""A small 3D language model that ships with the package: it answers questions about procedural rooms.

- tokens: turns words into numbers and back
- model: a `LlamaForCausalLM` of transformers with projectors of object features, as in Chat-Scene
- prompts: turns rooms and questions into embeddings, and answers into words
- loading: reads and writes the files of the model
- asking: asks one question, without pruning and with it
- budget_search: finds the number of an adaptive budget that leaves out a given percentage of the objects
"""
