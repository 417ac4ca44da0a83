"""Centroid separation: how much nearer examples lie to their own class than to the next."""

from __future__ import annotations

import numpy as np

from headstart.transferability.scores.examples import Examples, Scored, blocks, checked, present


def centroids(examples: Examples) -> Scored:
    """The simplified silhouette (Hruschka et al. 2004; Rousseeuw 1987), mean of (b - a) / max(a, b); from -1 to 1.

    a is the Euclidean distance to the centroid of one's class without oneself, b that to the nearest other one. The
    only example of its class counts 0, as in the silhouette, and so does one with a = b = 0.
    """
    from scipy.spatial.distance import cdist

    checked(examples)
    count, places = present(examples.targets)
    sizes = np.bincount(places, minlength=count)
    features, width = examples.features, examples.features.shape[1]
    means = np.stack([features[places == place].mean(axis=0, dtype=np.float64) for place in range(count)])
    found = np.zeros(len(examples))
    for rows in blocks(len(examples), width=max(width, count)):
        away = cdist(features[rows].astype(np.float64), means)
        own, size = places[rows], sizes[places[rows]]
        line = np.arange(len(own))
        # x - (n mean - x) / (n - 1) = n / (n - 1) (x - mean)
        inside = away[line, own] * size / np.maximum(size - 1, 1)
        away[line, own] = np.inf
        outside = away.min(axis=1)
        largest = np.maximum(inside, outside)
        scale = np.where(largest > 0, largest, 1.0)
        found[rows] = np.where(size > 1, (outside - inside) / scale, 0.0)
    return Scored(float(found.mean()), per_example=found)
