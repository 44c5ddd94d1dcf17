"""Image -> input of the network -> dense maps, by OpenVINO or torch.

An engine runs the network and decides nothing; what becomes a keypoint is decided in `keypoints`.
"""
