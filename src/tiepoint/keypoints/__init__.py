"""Dense maps -> keypoints, step by step.

`selection` chooses pixels (candidates, then the top k), `positions` refines them and estimates
covariances, `descriptors` samples the dense descriptors, `result` holds the keypoints. These run
in NumPy and OpenCV on one image; `on_torch` runs the same steps on a batch on its device.
"""

from tiepoint.keypoints.descriptors import describe as describe
from tiepoint.keypoints.positions import covariance as covariance
from tiepoint.keypoints.positions import heat_mass as heat_mass
from tiepoint.keypoints.positions import hessian_response as hessian_response
from tiepoint.keypoints.positions import pixel_centres as pixel_centres
from tiepoint.keypoints.positions import refine as refine
from tiepoint.keypoints.result import Keypoints as Keypoints
from tiepoint.keypoints.selection import candidates as candidates
from tiepoint.keypoints.selection import top_k as top_k
from tiepoint.keypoints.selection import zero_outside as zero_outside
