"""A checkpoint as one file that finds keypoints in other programs, without tiepoint.

`graph` writes arithmetic as nodes; `pixels`, `network`, `selection`, `positions` and `descriptors`
are the steps of the detector; `model` joins them, with the inputs and outputs of each profile;
`torch_model` has the same steps as a torch module, and `torch_archive` its file for `torch.export`;
`check` compares a file with `Detector`; `write` is the way to a file.
"""
