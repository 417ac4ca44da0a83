"""LEEP and NCE: what the source's own classifier knows of the target's classes."""

from __future__ import annotations

import numpy as np

from headstart.errors import DataError
from headstart.transferability.scores.examples import Array, Examples, Places, Scored, checked, indicators, present


def leep(examples: Examples) -> Scored:
    """Mean log of sum_z P(y|z) theta(x)_z (Nguyen et al. 2020, equation 2); at most 0."""
    checked(examples)
    count, places = present(examples.targets)
    source = _source(examples)
    joint = indicators(places, count).T @ source / len(places)
    said = joint.sum(axis=0)
    given = joint / np.where(said > 0, said, 1.0)
    likelihoods = (given[places] * source).sum(axis=1)
    return Scored(float(np.log(likelihoods).mean()))


def nce(examples: Examples) -> Scored:
    """Minus the entropy of the class given what the source's classifier takes it for (Tran et al. 2019).

    sum_yz P(y, z) ln P(y|z) in nats, at most 0; of several source classes that are likeliest the first.
    """
    checked(examples)
    count, places = present(examples.targets)
    taken: Places = _source(examples).argmax(axis=1)
    classes, taken = np.unique(taken, return_inverse=True)
    joint = np.zeros((count, len(classes)))
    np.add.at(joint, (places, taken.reshape(-1)), 1.0 / len(places))
    given = joint / joint.sum(axis=0)
    some = joint > 0
    return Scored(float((joint[some] * np.log(given[some])).sum()))


def _source(examples: Examples) -> Array:
    if examples.source is None:
        raise DataError("LEEP and NCE need the source's classifier, and this candidate has none.")
    source = np.asarray(examples.source, dtype=np.float64)
    if source.ndim != 2 or len(source) != len(examples):
        raise DataError(f"source probabilities of shape {source.shape} for {len(examples)} images.")
    sums = source.sum(axis=1)
    # float16 sums to 1 within this; NaN fails as well
    if not (source.min() >= 0 and np.abs(sums - 1).max() <= 1e-2):
        raise DataError("source probabilities must be 0 or more and sum to 1 for each image.")
    return source / sums[:, None]
