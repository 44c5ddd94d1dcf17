"""How good keypoints are: tasks with known ground truth, methods, metrics, tables.

`task` is the shape that `homography`, `pose` and `stereo` share: `pair_lists` reads their pairs,
`run` measures every method on them, and `summary` averages. `generated` draws further pairs,
`methods` gives the features, `metrics` and `estimators` the figures.
"""
