"""How `--pairs similar` finds partners: candidates of vectors, and ways to search them.

    python benchmarks/retrieval.py ../shared/eval ../shared/photos -c base
    python benchmarks/retrieval.py --search 100000

Recall: the sets of real pairs (planar scenes, surveyed scenes, a video), and two generated views of
each photograph. All are mixed, so that each image has all others as distractors. Printed is the
share of an image's partners, at most K, that are among its K nearest; each set counts equally. The
images of a scene of `oxford` and `iguazu`, and those of `tum`, are partners of each other;
elsewhere the listed pairs are.

Search: generated vectors, in sequences whose neighbours drift apart. Seconds are CPU time on one
core. The packages faiss, usearch and hnswlib are measured if they are installed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint import Detector, Features
from tiepoint.matching.image_vectors import (
    Vocabulary,
    nearest_centres,
    spherical_means,
    with_projection,
)
from tiepoint.matching.similar import similar_pairs

Vectors = NDArray[np.float32]
NEAREST = (1, 5, 10, 20)
SCENES = ("oxford/bikes", "oxford/boat", "oxford/ubc", "oxford/wall", "iguazu", "tum")
"""Folders whose images all show one scene."""
SUFFIXES = (".jpg", ".png")
PER_IMAGE = 100
SEARCHED = 20
SEQUENCE = 50
QUERIES = 2000


class Collection(NamedTuple):
    """Images with their partners.

    Attributes:
        features: Features of each image.
        partners: Index of an image -> those of its partners.
        sets: Set of each image.
    """

    features: list[Features]
    partners: dict[int, set[int]]
    sets: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="EVAL PHOTOS")
    parser.add_argument("--checkpoint", "-c", default="base")
    parser.add_argument("--max-keypoints", type=int, default=2000)
    parser.add_argument("--search", type=int, metavar="N", help="generated vectors to search")
    parser.add_argument("--length", type=int, default=512, help="values of a generated vector")
    options = parser.parse_args()
    if options.search:
        search(sequences(options.search, options.length))
        return
    if len(options.folders) != 2:
        parser.error("expected the folders of the real pairs and of the photographs")
    detector = Detector(options.checkpoint, max_keypoints=options.max_keypoints)
    pairs, photos = options.folders
    collection = collected(pairs, photos, detector)
    print(f"{len(collection.features)} images, {len(collection.partners)} with partners")
    names = " | ".join(f"{k} nearest" for k in NEAREST)
    print(f"| vector | values | ms | {names} |\n|{'---|' * (3 + len(NEAREST))}", flush=True)
    for name, vectors, milliseconds in candidates(collection.features):
        shares = " | ".join(f"{share:.3f}" for share in recall(vectors, collection))
        print(f"| {name} | {vectors.shape[1]} | {milliseconds:.1f} | {shares} |", flush=True)


def collected(pairs: Path, photos: Path, detector: Detector) -> Collection:
    """The images of both folders with their features."""
    files = {
        str(path.relative_to(pairs)): path
        for path in sorted(pairs.rglob("*"))
        if path.suffix in SUFFIXES and not path.stem.endswith("disp")
    }
    index = {name: number for number, name in enumerate(files)}
    partners: dict[int, set[int]] = {}
    for a, b in true_pairs(pairs, list(files)):
        if a in index and b in index:
            partners.setdefault(index[a], set()).add(index[b])
            partners.setdefault(index[b], set()).add(index[a])
    features = [detector(path) for path in files.values()]
    sets = [name.split("/")[0] for name in files]
    rng = np.random.default_rng(5)
    for path in sorted(path for path in photos.rglob("*") if path.suffix in SUFFIXES):
        image = cv2.imread(str(path))
        assert image is not None, path
        both = [detector(view(image, rng), channel_order="bgr") for _ in range(2)]
        first = len(features)
        features += both
        sets += ["generated views"] * 2
        partners[first], partners[first + 1] = {first + 1}, {first}
    return Collection(features, partners, sets)


def true_pairs(folder: Path, names: list[str]) -> Iterator[tuple[str, str]]:
    for scene in SCENES:
        yield from combinations([name for name in names if name.startswith(f"{scene}/")], 2)
    for listed in sorted(folder.glob("*/pairs.txt")):
        for line in listed.read_text().splitlines():
            if len(parts := line.split()) > 2:
                yield tuple(f"{listed.parent.name}/{part}" for part in parts[:2])  # type: ignore[misc]


def view(image: NDArray[Any], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Another view of a photograph: 0.6 of its sides, turned, zoomed, tilted, other exposure."""
    height, width = image.shape[:2]
    w, h = int(0.6 * width), int(0.6 * height)
    angle, zoom = np.radians(rng.uniform(-20, 20)), rng.uniform(0.7, 1.3)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2 * zoom
    centre = [width, height] * rng.uniform(0.38, 0.62, 2)
    source = corners @ turn.T + centre + rng.uniform(-0.06, 0.06, (4, 2)) * [w, h]
    target = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    matrix = cv2.getPerspectiveTransform(source.astype(np.float32), target)
    warped = cv2.warpPerspective(image, matrix, (w, h), borderMode=cv2.BORDER_REFLECT_101)
    exposed = 255 * (warped / 255) ** rng.uniform(0.6, 1.6) * rng.uniform(0.7, 1.2)
    result: NDArray[np.uint8] = np.clip(exposed, 0, 255).astype(np.uint8)
    return result


def candidates(images: list[Features]) -> Iterator[tuple[str, Vectors, float]]:
    """Name, vectors and ms per image of each candidate."""

    def made(name: str, vector: Callable[[Features], Any]) -> tuple[str, Vectors, float]:
        start = time.process_time()
        vectors = unit(np.stack([vector(image) for image in images]))
        return name, vectors, 1000 * (time.process_time() - start) / len(images)

    yield made("mean", lambda image: described(image).mean(axis=0))
    second = made("second-order", second_order)
    yield second
    yield "second-order, half-whitened", projected(second[1], 0.5), second[2]
    rng = np.random.default_rng(0)
    rows = [
        described(image)[rng.choice(len(image), min(PER_IMAGE, len(image)), replace=False)]
        for image in images
    ]
    sample = np.concatenate(rows)
    for count in (32, 64, 128):
        vocabulary = Vocabulary(spherical_means(sample, count))
        yield made(f"VLAD {count}, by scores", partial(by_scores, centres=vocabulary.centres))
        plain = made(f"VLAD {count}", vocabulary.vector)
        yield plain
        yield f"VLAD {count}, principal components", projected(plain[1], 0), plain[2]
        full = with_projection(vocabulary, plain[1])
        yield made(f"VLAD {count}, half-whitened", full.vector)
        yield f"VLAD {count}, whitened", projected(plain[1], 1), plain[2]


def described(image: Features) -> Vectors:
    assert image.descriptors is not None
    return image.descriptors


def second_order(image: Features) -> Vectors:
    """Sum of score * d d^T (Carreira et al., ECCV 2012)."""
    descriptors = described(image)
    table = (descriptors * image.scores[:, None]).T @ descriptors
    rows, columns = np.triu_indices(len(table))
    pooled = table[rows, columns] * np.where(rows == columns, 1, np.sqrt(2))
    return (np.sign(pooled) * np.sqrt(np.abs(pooled))).astype(np.float32)


def by_scores(image: Features, centres: Vectors) -> Vectors:
    """VLAD whose residuals are weighted by the scores of the keypoints."""
    descriptors = described(image)
    sums = np.zeros_like(centres)
    nearest = nearest_centres(descriptors, centres)
    np.add.at(sums, nearest, (descriptors - centres[nearest]) * image.scores[:, None])
    return (np.sign(sums) * np.sqrt(np.abs(sums))).ravel()


def projected(vectors: Vectors, whitening: float, length: int = 512) -> Vectors:
    """Principal components, divided by the standard deviation to the power of `whitening`."""
    centred = vectors - vectors.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    values = np.maximum(values, 1e-6 * values[0])
    return unit(left[:, :length] * values[:length] ** (1 - whitening))


def recall(vectors: Vectors, collection: Collection) -> list[float]:
    """The share of found partners for each of `NEAREST`, the mean over the sets."""
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, : max(NEAREST)]
    shares: dict[str, list[list[float]]] = {}
    for image, true in collection.partners.items():
        found = [len(true & set(order[image, :k].tolist())) / min(k, len(true)) for k in NEAREST]
        shares.setdefault(collection.sets[image], []).append(found)
    means = [np.mean(rows, axis=0) for rows in shares.values()]
    return [float(share) for share in np.mean(means, axis=0)]


def unit(vectors: Any) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return result


def sequences(count: int, length: int) -> Vectors:
    """Sequences of 50 images at 500 kinds of places, in random order."""
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((500, length)).astype(np.float32)
    rows: list[NDArray[np.float64]] = []
    for _ in range(-(-count // SEQUENCE)):
        shown = rng.standard_normal(length)
        for _ in range(SEQUENCE):
            shown = 0.9 * shown + np.sqrt(1 - 0.9**2) * rng.standard_normal(length)
            rows.append(shown + 0.5 * kinds[len(rows) // SEQUENCE % 500])
    return unit(np.array(rows, np.float32))[rng.permutation(len(rows))][:count]


def search(vectors: Vectors) -> None:
    """Print time and recall of each way to search."""
    count, k = len(vectors), SEARCHED
    print("| search | build, s | all queries, s | share of the 20 nearest |\n|---|---|---|---|")
    start = time.process_time()
    exact = similar_pairs(vectors, k, threads=1, most_exact=count)
    print(f"| exact | 0 | {time.process_time() - start:.0f} | 1 |", flush=True)
    true = {(i, j) for i, j in exact.tolist()}
    for probes in (8, 16, 32, 64):
        start = time.process_time()
        found = similar_pairs(vectors, k, threads=1, most_exact=0, probes=probes)
        seconds, right = (
            time.process_time() - start,
            len(true & {(i, j) for i, j in found.tolist()}),
        )
        print(
            f"| cells, {probes} searched | | {seconds:.0f} | {right / len(true):.3f} |", flush=True
        )
    queries = vectors[:QUERIES]
    similarity = queries @ vectors.T
    nearest = np.argpartition(-similarity, k, axis=1)[:, : k + 1]
    for name, build, ask in packages(vectors, k + 1):
        start = time.process_time()
        found = ask(queries)
        seconds = (time.process_time() - start) * count / len(queries)
        right = sum(len(set(a) & set(b)) for a, b in zip(nearest, found, strict=True))
        print(f"| {name} | {build:.0f} | {seconds:.0f} | {right / nearest.size:.3f} |", flush=True)


def packages(vectors: Vectors, k: int) -> Iterator[tuple[str, float, Callable[[Vectors], Any]]]:
    """Name, seconds to build, and search of each package that is installed; on one core."""
    count, length = vectors.shape
    start = time.process_time()
    try:
        faiss = import_module("faiss")

        faiss.omp_set_num_threads(1)
        graph = faiss.IndexHNSWFlat(length, 32, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = graph.hnsw.efSearch = 64
        graph.add(vectors)
        yield "faiss HNSW", time.process_time() - start, lambda rows: graph.search(rows, k)[1]
        start = time.process_time()
        flat = faiss.IndexFlatIP(length)
        cells = faiss.IndexIVFFlat(flat, length, round(count**0.5), faiss.METRIC_INNER_PRODUCT)
        cells.cp.niter, cells.cp.max_points_per_centroid, cells.nprobe = 8, 64, 32
        cells.train(vectors)
        cells.add(vectors)
        yield "faiss IVF", time.process_time() - start, lambda rows: cells.search(rows, k)[1]
    except ImportError:
        print("| faiss is not installed | | | |")
    start = time.process_time()
    try:
        usearch = import_module("usearch.index")
        index = usearch.Index(
            ndim=length, metric="ip", dtype="f16", connectivity=32, expansion_add=64
        )
        index.add(np.arange(count), vectors, threads=1)
        yield (
            "usearch",
            time.process_time() - start,
            lambda rows: index.search(rows, k, threads=1).keys,
        )
    except ImportError:
        print("| usearch is not installed | | | |")
    start = time.process_time()
    try:
        hnswlib = import_module("hnswlib")

        small_world = hnswlib.Index("ip", length)
        small_world.init_index(count, M=32, ef_construction=64)
        small_world.set_num_threads(1)
        small_world.add_items(vectors)
        small_world.set_ef(64)
        yield (
            "hnswlib",
            time.process_time() - start,
            lambda rows: small_world.knn_query(rows, k, num_threads=1)[0],
        )
    except ImportError:
        print("| hnswlib is not installed | | | |")


if __name__ == "__main__":
    main()
