"""How good and how fast a pruned language model is: `python -m fastsam3d mllm bench`.

- options, rows: what is compared
- held_out: rooms and questions that nothing was trained on
- answering, scores: answers of every row, and the five scores
- timing: milliseconds of every row, measured in turns
- counted: operations and memory of each row at the size of Vicuna-7B, by formula
- chat_scene: published weights on the five benchmarks, `python -m fastsam3d mllm evaluate`
- run, tables, plots: the whole benchmark, with results as JSON, Markdown and a picture
"""
