"""Which findings an image of the phantom holds: label sets as frequent, and together as often, as in ChestX-Det.

One pair of classes departs from it: `by_company` makes an effusion tell atelectasis from mass.

The figures are in `chestx_det_statistics.json` (source named there). Label sets follow the maximum-entropy
distribution over all 2^13 sets whose single-class frequencies, pairwise co-occurrences and share of empty sets are
those of the table: p(s) proportional to exp(sum_i h_i s_i + sum_{i<j} J_ij s_i s_j + c [s empty]), a pairwise,
Ising-type model. With 8,192 states it is fitted exactly (Newton's method on the convex dual), in a fraction of a
second, once per process.
"""
import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from relnet_jax import files

STATISTICS = Path(__file__).with_name('chestx_det_statistics.json')
IMAGE_SIDES = ('image_left', 'image_right')
WHOLE_LUNG = ('Emphysema', 'Diffuse Nodule')  # fill a lung: one per side at most
BY_COMPANY = ('Atelectasis', 'Mass', 'Effusion')    # beside the last it is the first, without it the second


class Request(NamedTuple):
    """One finding to be placed."""
    label: int  # 1..13
    side: int   # 0 = image left, 1 = image right


@functools.cache
def statistics() -> dict:
    """The table as read; treat as read-only."""
    return files.read_json(STATISTICS)


def classes() -> tuple[str, ...]:
    return tuple(statistics()['classes'])


def fit_label_sets(pairs: np.ndarray, empty: float, *, tolerance: float = 1e-9) -> np.ndarray:
    """Maximum-entropy distribution over label sets.

    pairs: float [n, n], share of images that hold both classes (diagonal: the class); empty: share of the others.
    Returns float64 [2^n]; state s holds class i when bit i of s is set.
    Raises ValueError when no distribution has these moments.
    """
    n = len(pairs)
    states = (np.arange(2 ** n)[:, None] >> np.arange(n)) & 1
    first, second = np.triu_indices(n, 1)
    nothing = states.sum(1, keepdims=True) == 0
    features = np.concatenate([states, states[:, first] * states[:, second], nothing], 1).astype(float)
    target = np.concatenate([np.diag(pairs), pairs[first, second], [empty]])

    def dual(theta):
        logits = features @ theta
        top = logits.max()
        weights = np.exp(logits - top)
        return top + np.log(weights.sum()) - theta @ target, weights / weights.sum()

    theta = np.concatenate([np.log(np.diag(pairs) / (1 - np.diag(pairs))), np.zeros(len(target) - n)])
    value, p = dual(theta)
    for _ in range(100):
        mean = p @ features
        if np.abs(mean - target).max() < tolerance:
            return p
        curvature = (features * p[:, None]).T @ features - np.outer(mean, mean)
        step = np.linalg.solve(curvature + 1e-12 * np.eye(len(target)), target - mean)
        slope, scale = (target - mean) @ step, 1.0
        while (new := dual(theta + scale * step))[0] > value - 1e-4 * scale * slope and scale > 1e-6:
            scale /= 2
        theta, (value, p) = theta + scale * step, new
    raise ValueError(f'no distribution over label sets found: moments off by {np.abs(p @ features - target).max():.2e}')


@functools.cache
def label_set_cdf() -> np.ndarray:
    """Cumulative probabilities [2^13] of the fitted label sets (read-only)."""
    table = statistics()
    pairs = np.array(table['cooccurrence'], float) / table['images']
    cdf = np.cumsum(fit_label_sets(pairs, table['images_without_finding'] / table['images']))
    cdf /= cdf[-1]
    cdf.flags.writeable = False
    return cdf


def sample_presence(rng: np.random.Generator, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Label sets, bool [*shape, 13] in the order of the class table."""
    state = np.searchsorted(label_set_cdf(), rng.random(shape), side='right')
    return by_company(((np.asarray(state)[..., None] >> np.arange(len(classes()))) & 1).astype(bool))


def by_company(presence: np.ndarray) -> np.ndarray:
    """Label sets bool [..., 13] in which atelectasis or mass is the one that BY_COMPANY says; a copy.

    The two taken as one class stay as they were with all others. A class that company tells must depend on it by
    itself, as in a co-occurrence graph. That an effusion exchanges what two looks mean, for instance, no predictor that
    is linear in the RoI's features and in those of the class relation could express.
    """
    beside, without, decider = (classes().index(name) for name in BY_COMPANY)
    either, told = presence[..., beside] | presence[..., without], presence.copy()
    told[..., beside] = either & presence[..., decider]
    told[..., without] = either & ~presence[..., decider]
    return told


def sample_count(rng: np.random.Generator, name: str) -> int:
    """Number of instances in an image that holds the class; the open last bin is uniform around its mean."""
    table = statistics()
    entry, row = table['per_class'][name], table['classes'].index(name)
    shares = np.array(entry['count_shares'])
    count = 1 + int(np.searchsorted(np.cumsum(shares) / shares.sum(), rng.random(), side='right'))
    if count == 7:
        total = entry['instances'] / table['cooccurrence'][row][row]      # mean over the images that hold the class
        mean = (total - shares[:6] @ np.arange(1, 7)) / shares[6]
        count = int(rng.integers(7, max(8, round(2 * mean - 6))))
    return min(count, 2) if name in WHOLE_LUNG else count


def sample_sides(rng: np.random.Generator, name: str, count: int) -> np.ndarray:
    """Image side of each instance, int [count]. Two instances lie on opposite sides as often as in the table."""
    entry = statistics()['per_class'][name]
    sides = (rng.random(count) >= entry['image_left']['fraction']).astype(int)
    if count == 2:
        opposite = name in WHOLE_LUNG or rng.random() < entry['two_on_opposite_sides']
        sides[1] = 1 - sides[0] if opposite else sides[0]
    return sides


def sample_requests(rng: np.random.Generator) -> list[Request]:
    """The findings of one image, in the order of the class table."""
    present = sample_presence(rng)
    return [Request(i + 1, int(side)) for i, name in enumerate(classes()) if present[i]
            for side in sample_sides(rng, name, sample_count(rng, name))]


def sample_box(rng: np.random.Generator, name: str, side: int) -> np.ndarray:
    """(centre x, centre y, width, height) [4], shares of the frame, from the class's Gaussian on that image side."""
    entry = statistics()['per_class'][name][IMAGE_SIDES[side]]
    matrix = _gaussian(tuple(entry['mean']), tuple(map(tuple, entry['cov'])))
    x, y, log_w, log_h = matrix @ np.append(_truncated(rng, 4), 1.0)
    return np.array([x, y, np.exp(log_w), np.exp(log_h)])


def _truncated(rng: np.random.Generator, n: int, limit: float = 2.0) -> np.ndarray:
    """Standard normal [n], values beyond +-limit drawn again: the far tails of log sizes leave the lung."""
    z = rng.standard_normal(n)
    while (far := np.abs(z) > limit).any():
        z[far] = rng.standard_normal(far.sum())
    return z


@functools.cache
def _gaussian(mean: tuple, cov: tuple) -> np.ndarray:
    """[4, 5] matrix that maps a standard normal with a 1 appended to the Gaussian of this mean and covariance."""
    return np.concatenate([np.linalg.cholesky(np.array(cov) + 1e-9 * np.eye(4)), np.array(mean)[:, None]], 1)
