"""How good keypoints are: pairs of images with known homographies, methods, metrics, tables.

`pairs` and `generated` give the pairs, `methods` the features, `metrics` the figures; `run` brings
them together, `report` sums them up.
"""
