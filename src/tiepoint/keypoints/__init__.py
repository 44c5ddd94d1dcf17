"""Dense maps -> keypoints: candidates, top k, refinement, covariance, descriptors."""
