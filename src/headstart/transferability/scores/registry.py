"""The scores by name, and whether they fit a task."""

from __future__ import annotations

from collections.abc import Iterable

from headstart.errors import ConfigError, did_you_mean
from headstart.transferability.scores.centroids import centroids
from headstart.transferability.scores.examples import CLASSES, TASKS, Score
from headstart.transferability.scores.logme import logme
from headstart.transferability.scores.neighbours import knn
from headstart.transferability.scores.probe import linear_probe
from headstart.transferability.scores.rates import transrate
from headstart.transferability.scores.separation import hscore, hscore_shrunk
from headstart.transferability.scores.source import leep, nce

MOST = 5_000
"""Images that show how well a probe or neighbours do: an accuracy is then known to 0.7 % (standard error)."""
_ALL = (
    Score(
        "logme",
        "LogME",
        "You, Liu, Wang and Long 2021, LogME: Practical Assessment of Pre-trained Models for Transfer Learning, "
        "equation 2 and algorithm 1",
        TASKS,
        needs_source=False,
        compute=logme,
    ),
    Score(
        "leep",
        "LEEP",
        "Nguyen, Hassner, Seeger and Archambeau 2020, LEEP: A New Measure to Evaluate Transferability of Learned "
        "Representations, equation 2",
        CLASSES,
        needs_source=True,
        compute=leep,
    ),
    Score(
        "nce",
        "NCE",
        "Tran, Nguyen and Hassner 2019, Transferability and Hardness of Supervised Classification Tasks, "
        "negative conditional entropy",
        CLASSES,
        needs_source=True,
        compute=nce,
    ),
    Score(
        "hscore",
        "H-score",
        "Bao, Li, Huang, Zhang, Zheng, Zamir and Guibas 2019, An Information-Theoretic Approach to Transferability "
        "in Task Transfer Learning, definition 2",
        CLASSES,
        needs_source=False,
        compute=hscore,
    ),
    Score(
        "hscore_shrunk",
        "H-score, shrunk",
        "Ibrahim, Ponomareva and Mazumder 2022, Newer is not always better: Rethinking transferability metrics, "
        "their peculiarities, stability and performance, H-score with shrinkage",
        CLASSES,
        needs_source=False,
        compute=hscore_shrunk,
    ),
    Score(
        "transrate",
        "TransRate",
        "Huang, Huang, Rong, Yang and Wei 2022, Frustratingly Easy Transferability Estimation, TrR",
        CLASSES,
        needs_source=False,
        compute=transrate,
    ),
    Score(
        "linear_probe",
        "linear probe",
        "Kornblith, Shlens and Le 2019, Do Better ImageNet Models Transfer Better?, logistic regression",
        TASKS,
        needs_source=False,
        compute=linear_probe,
        most=MOST,
    ),
    Score(
        "knn",
        "nearest neighbours",
        "Wu, Xiong, Yu and Lin 2018, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, "
        "section 3.4",
        TASKS,
        needs_source=False,
        compute=knn,
        most=MOST,
    ),
    Score(
        "centroids",
        "centroid separation",
        "Hruschka, de Castro and Campello 2004, Evolutionary Algorithms for Clustering Gene-Expression Data "
        "(simplified silhouette)",
        CLASSES,
        needs_source=False,
        compute=centroids,
    ),
)
SCORES: dict[str, Score] = {score.name: score for score in _ALL}


def default_scores(task: str) -> list[str]:
    """Names of all scores for such targets that need no classifier of the source."""
    return [name for name, score in SCORES.items() if task in score.tasks and not score.needs_source]


def check_scores(names: Iterable[str], *, task: str, outputs: int, classes_present: int) -> list[Score]:
    """The scores of those names, each once; raises ConfigError for one that is none or does not fit the targets.

    `classes_present` is how many classes there are examples of, for tasks multiclass and binary.
    """
    found = []
    for name in dict.fromkeys(names):
        if name not in SCORES:
            hint = did_you_mean(name, SCORES) or f" There are {', '.join(SCORES)}."
            raise ConfigError(f"scores: {name!r}: there is no such score.{hint}")
        score = SCORES[name]
        if task not in score.tasks:
            fitting = ", ".join(default_scores(task))
            what = {
                "regression": "needs classes, and the targets are continuous (data.task=regression)",
                "multilabel": "needs one class per image, and images have several (data.task=multilabel)",
            }.get(task, f"is not for data.task={task}")
            raise ConfigError(f"scores: {name} {what}; there are {fitting}.")
        found.append(score)
    if found and task in CLASSES and classes_present < 2:
        raise ConfigError(
            f"data: {classes_present} of {outputs} classes has training images; scores need two classes or more."
        )
    return found
