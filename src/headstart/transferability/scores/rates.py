"""TransRate: how many bits the features take, less what they take within the classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.transferability.scores.examples import Array, Examples, Scored, blocks, checked, present

DISTORTION = 1e-4


def transrate(examples: Examples) -> Scored:
    """R(F) - mean over classes of R(F_c), F centred as a whole (Huang et al. 2022, equation 7 as its code has it).

    R(F) = 1/2 logdet(I + F'F / (n eps)) with eps = 1e-4, in nats; classes count alike, and their blocks are not
    centred again. It grows with the scale of the features.
    """
    checked(examples)
    features = examples.features
    count, places = present(examples.targets)
    parts = blocks(len(features), width=features.shape[1])
    mean = np.sum([features[rows].sum(axis=0, dtype=np.float64) for rows in parts], axis=0) / len(features)
    everything = coding_rate(features, mean)
    within = [coding_rate(features[places == place], mean) for place in range(count)]
    return Scored(everything - float(np.mean(within)))


def coding_rate(features: NDArray[Any], mean: Array) -> float:
    """1/2 logdet(I + F'F / (n eps)) of features (n, d) less `mean`, by the smaller of F'F and FF'."""
    count, width = features.shape
    if width <= count:
        gram = np.zeros((width, width))
        for rows in blocks(count, width=width):
            some = features[rows].astype(np.float64) - mean
            gram += some.T @ some
    else:
        some = features.astype(np.float64) - mean
        gram = some @ some.T
    gram /= count * DISTORTION
    try:
        # positive definite, so its triangular factor has it all
        return float(np.log(np.diag(np.linalg.cholesky(gram + np.eye(len(gram))))).sum())
    except np.linalg.LinAlgError:  # features so large and collinear that the 1 is lost in rounding
        return float(np.log1p(np.linalg.eigvalsh(gram).clip(min=0.0)).sum() / 2)
