"""The names and rules of transformers' keypoint guide (needs torch)."""
