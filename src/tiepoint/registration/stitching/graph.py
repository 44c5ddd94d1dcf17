"""The graph of images whose pairs are registered: its largest part, and why others are outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import Matrix
from tiepoint.registration.result import Registration


@dataclass(frozen=True, eq=False)
class Link:
    """Two registered images.

    Attributes:
        a, b: Indices of the images.
        matrix: 3x3, px of A -> px of B.
        xy_a, xy_b: M 2 float64, positions of the inliers, px.
    """

    a: int
    b: int
    matrix: Matrix
    xy_a: NDArray[np.float64]
    xy_b: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.xy_a)


def link_of(a: int, b: int, registration: Registration) -> Link:
    """The link of two images that are registered."""
    inliers, matrix = registration.inliers, registration.matrix
    assert matrix is not None
    xy_a, xy_b = registration.xy_a[inliers], registration.xy_b[inliers]
    return Link(a, b, matrix, xy_a.astype(np.float64), xy_b.astype(np.float64))


def largest_part(count: int, links: Sequence[Link]) -> list[int]:
    """The images of the largest connected part, in order; of equals the one with most inliers."""
    parts: list[list[int]] = []
    left = set(range(count))
    while left:
        part, waiting = set[int](), [min(left)]
        while waiting:
            image = waiting.pop()
            if image not in part:
                part.add(image)
                ends = [(link.a, link.b) for link in links if image in (link.a, link.b)]
                waiting += [other for pair in ends for other in pair]
        parts.append(sorted(part))
        left -= part

    def weight(part: list[int]) -> tuple[int, int]:
        return len(part), sum(len(link) for link in links if link.a in part)

    return max(parts, key=weight)


def spanning_tree(members: Sequence[int], links: Sequence[Link]) -> tuple[int, list[Link]]:
    """The image in the middle, and links by which all others are reached from it, in order.

    The tree has the links with the most inliers (Kruskal). The middle is the image with the
    fewest links to the farthest one; of equals the one with the most inliers.
    """
    group = {image: image for image in members}
    tree: list[Link] = []
    for link in sorted(links, key=lambda link: (-len(link), link.a, link.b)):
        if group.get(link.a, -1) != group.get(link.b, -1):
            old, new = group[link.b], group[link.a]
            group = {image: new if name == old else name for image, name in group.items()}
            tree.append(link)
    ways = {image: _from(image, tree) for image in members}

    def rank(image: int) -> tuple[int, int]:
        depth: dict[int, int] = {image: 0}
        for link in ways[image]:
            known, new = (link.a, link.b) if link.a in depth else (link.b, link.a)
            depth[new] = depth[known] + 1
        return max(depth.values()), -sum(len(one) for one in tree if image in (one.a, one.b))

    middle = min(members, key=rank)
    return middle, ways[middle]


def _from(image: int, tree: Sequence[Link]) -> list[Link]:
    """The links of a tree in an order in which each touches those before it."""
    known, left, ordered = {image}, list(tree), list[Link]()
    while left:
        link = next(one for one in left if one.a in known or one.b in known)
        left.remove(link)
        known |= {link.a, link.b}
        ordered.append(link)
    return ordered


def reasons_outside(
    members: Sequence[int],
    names: Sequence[str],
    registrations: Mapping[tuple[int, int], Registration],
) -> dict[int, str]:
    """Why each other image does not belong: the verdict on its best pair with a member."""
    reasons = {}
    for image in sorted(set(range(len(names))) - set(members)):
        pairs = [(min(image, one), max(image, one)) for one in members]
        best = max(pairs, key=lambda pair: int(registrations[pair].inliers.sum()))
        other = names[best[0] if best[1] == image else best[1]]
        reasons[image] = f"no overlap with the others; nearest is {other}: " + (
            registrations[best].reason
        )
    return reasons
