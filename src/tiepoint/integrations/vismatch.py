"""vismatch (formerly image-matching-models): tiepoint as one of its matchers.

    from tiepoint.integrations.vismatch import matcher
    result = matcher(max_num_keypoints=2048)("a.jpg", "b.jpg")

The class inherits vismatch's `BaseMatcher`, which reads images, checks the results and estimates
the homography. Pixel centres are whole numbers in both.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from tiepoint.integrations.programs import as_bytes, load_module, make_detector, subclass


def matcher(device: str = "cpu", *, max_num_keypoints: int = 2048, **settings: Any) -> Any:
    """A matcher of vismatch.

    Args:
        device: "cpu" or "cuda".
        max_num_keypoints: Number of best keypoints of each image.
        settings: `ransac_iters`, `ransac_conf` and `ransac_reproj_thresh` of vismatch;
            `checkpoint`, `engine` and `precision` of `Detector`; `options`, a dict of its further
            settings; `matching`, a dict of settings of `MatchingConfig`.

    Raises:
        MissingProgramError: vismatch is not installed.
    """
    return matcher_class()(device, max_num_keypoints=max_num_keypoints, **settings)


@cache
def matcher_class() -> type:
    """The class of `matcher`, a subclass of vismatch's `BaseMatcher`."""
    base = load_module("vismatch", "vismatch", "pip install vismatch").BaseMatcher

    def initialise(
        self: Any, device: str = "cpu", *, max_num_keypoints: int = 2048, **settings: Any
    ) -> None:
        base.__init__(self, device, **settings)
        options = {"max_keypoints": max_num_keypoints, **settings.get("options", {})}
        self.detector = make_detector({**settings, "device": str(device), "options": options})
        self.matching = dict(settings.get("matching", {}))

    members = {
        "__doc__": "Keypoints of tiepoint, matched by their descriptors.",
        "__init__": initialise,
        "_forward": _forward,
    }
    return subclass("TiepointMatcher", base, __name__, members)


def _forward(self: Any, img0: Any, img1: Any) -> tuple[Any, ...]:
    """Two tensors 3 H W in 0..1 -> matched, all keypoints, descriptors, confidences."""
    from tiepoint.matching.match import match

    a, b = (self.detector(as_bytes(image)) for image in (img0, img1))
    matches = match(a, b, **self.matching)
    first, second = matches.pairs.T
    results = (a.xy[first], b.xy[second], a.xy, b.xy, a.descriptors, b.descriptors, matches.scores)
    return tuple(np.array(result) for result in results)
