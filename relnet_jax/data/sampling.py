"""Repeat-factor sampling: images with rare classes come more often (Gupta et al., LVIS, CVPR 2019, section 4)."""
import functools
from collections.abc import Callable, Sequence

import numpy as np

from relnet_jax.data.source import Source


def repeat_factors(labels: Sequence[set[int]], threshold: float) -> np.ndarray:
    """float64 [n]: how often each image comes in an epoch, from the classes in it; at least once.

    A class that a share f of the images has asks for max(1, sqrt(threshold / f)) times; the rarest in an image decides.
    Classes in at least the share `threshold` change nothing.
    """
    counts = np.unique([label for found in labels for label in found], return_counts=True)
    wanted = {label: max(1.0, np.sqrt(threshold * len(labels) / count)) for label, count in zip(*counts)}
    return np.array([max((wanted[label] for label in found), default=1.0) for found in labels])


def epoch_order(factors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """int [round(sum of factors)]: the images of one epoch, each as often as its factor with the fraction drawn.

    Systematic sampling: equal steps along the factors laid end to end in a random order. So an image comes as often as
    its factor rounded down or up, and over many epochs in proportion to it; factors of 1 give a shuffle.
    """
    shuffled = rng.permutation(len(factors))
    ends = np.cumsum(factors[shuffled])
    count = round(ends[-1])
    marks = (np.arange(count) + rng.random()) * (ends[-1] / count)
    chosen = shuffled[np.minimum(np.searchsorted(ends, marks, side='right'), len(factors) - 1)]
    return rng.permutation(chosen)


def repeated_order(source: Source, threshold: float, seed: int) -> Callable[[int], int]:
    """Position in an endless stream of epochs -> index of the image there: a pure function of (seed, position)."""
    index = {image_id: i for i, image_id in enumerate(source.image_ids)}
    labels = [set() for _ in index]
    for annotation in source.ground_truth()['annotations']:
        labels[index[annotation['image_id']]].add(annotation['category_id'])
    factors = repeat_factors(labels, threshold)
    length = round(factors.sum())

    @functools.lru_cache(maxsize=4)     # reader threads may work on two epochs at once
    def order(epoch: int) -> np.ndarray:
        return epoch_order(factors, np.random.default_rng((seed, epoch)))

    return lambda position: int(order(position // length)[position % length])
