"""Video: keypoints of each frame, matched over time into tracks."""
