"""A checkpoint as one ONNX file that finds keypoints in other programs, without tiepoint.

`graph` writes arithmetic as nodes; `pixels`, `network`, `selection`, `positions` and `descriptors`
are the steps of the detector; `model` joins them, with the inputs and outputs of each profile;
`check` compares a file with `Detector`; `write` is the way to a file.
"""
