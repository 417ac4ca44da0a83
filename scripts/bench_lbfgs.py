"""A path of logistic regressions by head.solver=lbfgs, beside as many fits of scikit-learn on the same features.

The features are those of a frozen backbone, of photographs where there are some beside the project, else drawn with
a spectrum like theirs. Ours is the whole path from features to weights, its decomposition included. scikit-learn's
fits are its LogisticRegression(solver="lbfgs") in float32 or float64, whichever is faster here, with as many
threads: once with its default of at most 100 iterations, as the published protocol has it, with which weak
penalties do not come to their lowest, and once until they do, by `--tolerance`. Beside it, how far ours are from
these in their objective: loss and penalty per image, in float64.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench_heads import CIFAR
from bench_rows import Row, compared, scratch, show

if TYPE_CHECKING:
    from torch import Tensor

BAR = 10.0
LOWEST, HIGHEST = 1e-6, 1e5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is fitted, and how often."""
    parser.add_argument("--images", type=int, default=3000, help="training images")
    parser.add_argument("--width", type=int, default=1280, help="of drawn features")
    parser.add_argument("--classes", type=int, default=10, help="of drawn features")
    parser.add_argument("--drawn", action="store_true", help="draw features even where there are photographs")
    parser.add_argument("--penalties", type=int, default=45, help="from 1e-6 to 1e5")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="scikit-learn's, where it is to converge")
    parser.add_argument("--threads", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--converged-rounds", type=int, default=1, help="of the fits until they converge; 0: none")


def run(words: argparse.Namespace) -> int:
    """Measure and print."""
    with scratch():
        return show(measure(words), device="cpu", path=words.json)


def measure(words: argparse.Namespace) -> list[Row]:
    """Both ways in turn, round after round."""
    import numpy as np
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(words.threads)
    if CIFAR.is_dir() and not words.drawn:
        features, targets = _of_photographs(words.images, words.threads)
    else:
        features, targets = _drawn(words.images, words.width, words.classes)
    classes = int(targets.max()) + 1
    penalties = np.logspace(np.log10(HIGHEST), np.log10(LOWEST), words.penalties).tolist()
    with threadpool_limits(words.threads):
        kind = _faster_kind(features, targets, penalties[len(penalties) // 2])
        print(f"scikit-learn is faster in {kind}", flush=True)
        for way in (_ours, _sklearn):  # what is done once is not timed
            way(features[:100, :20].contiguous(), targets[:100], [1.0])
        found: dict[str, list[float]] = {"ours": [], "default": [], "converged": []}
        objectives: dict[str, list[float]] = {}
        for turn in range(words.rounds):
            for name in found:
                if name == "converged" and turn >= words.converged_rounds:
                    continue
                began = time.perf_counter()
                if name == "ours":
                    layers = _ours(features, targets, penalties)
                else:
                    tolerance, most = (1e-4, 100) if name == "default" else (words.tolerance, 100_000)
                    layers = _sklearn(features, targets, penalties, kind, tolerance=tolerance, most=most)
                found[name].append(time.perf_counter() - began)
                objectives[name] = [
                    _objective(features, targets, *layer, penalty)
                    for layer, penalty in zip(layers, penalties, strict=True)
                ]
            said = "  ".join(f"{name} {values[-1]:.2f} s" for name, values in found.items() if values)
            print(f"round {turn + 1}/{words.rounds}  {said}", flush=True)
    size = f"{len(features):,} x {features.shape[1]:,} features, {classes} classes"
    rows = []
    for name, bar, what in (
        ("default", BAR, "against 100 iterations each"),
        ("converged", BAR, f"against fits to a tolerance of {words.tolerance:g}"),
    ):
        if not found[name]:
            continue
        apart = [a - b for a, b in zip(objectives["ours"], objectives[name], strict=True)]
        rows.append(
            compared(
                f"{words.penalties} logistic regressions, {size}: {what}",
                found["ours"][: len(found[name])],
                found[name],
                unit="s",
                bar=bar,
                faster=True,
                note=f"objective per image {min(apart):+.1e} to {max(apart):+.1e} from scikit-learn's",
            )
        )
    return rows


def _of_photographs(images: int, threads: int) -> tuple[Tensor, Tensor]:
    """Features and classes of CIFAR-10 photographs by the default backbone at 96 pixels."""
    import torch

    from headstart.config.compose import compose
    from headstart.preparation import prepare

    overrides = [
        "data=hf", f"data.path={CIFAR}", "data.image_size=96", f"data.train_size={images}", "data.val_size=20",
        "data.test_size=20", "strategy=linear_probe", "logger=none", f"trainer.threads={threads}",
        "trainer.accelerator=cpu", "data.cache=false",
    ]  # fmt: skip
    prepared = prepare(compose(overrides))
    backbone = prepared.built.model.backbone.eval()
    features, targets = [], []
    with torch.no_grad():
        for batch in prepared.data.plain_train_dataloader():
            features.append(backbone(prepared.data.on_after_batch_transfer(batch, 0)["image"]))
            targets.append(batch["target"])
    return torch.cat(features), torch.cat(targets)


def _drawn(images: int, width: int, classes: int) -> tuple[Tensor, Tensor]:
    """Features whose spread falls from direction to direction as a backbone's does, with classes that overlap."""
    import torch

    draw = torch.Generator().manual_seed(0)
    targets = torch.arange(images) % classes
    spread = torch.arange(1, width + 1).float().pow(-0.5)
    apart = torch.randn(classes, width, generator=draw)[targets] * 0.5
    turn = torch.linalg.qr(torch.randn(width, width, generator=draw)).Q
    features = (apart + torch.randn(images, width, generator=draw)) * spread @ turn * width**0.5 / 10
    return features + 0.5, targets


def _ours(features: Tensor, targets: Tensor, penalties: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
    from headstart.features.solvers.likelihood import of_classes
    from headstart.features.solvers.logistic import logistic_path

    likelihood = of_classes(targets, int(targets.max()) + 1, weights=None, smoothing=0.0)
    return [(fit.weight, fit.bias) for fit in logistic_path(features, likelihood, penalties)]


def _sklearn(
    features: Tensor,
    targets: Tensor,
    penalties: Sequence[float],
    kind: str = "float32",
    *,
    tolerance: float = 1e-4,
    most: int = 100,
) -> list[tuple[Tensor, Tensor]]:
    import torch
    from sklearn.linear_model import LogisticRegression

    matrix, classes = features.numpy().astype(kind), targets.numpy()
    layers: list[tuple[Tensor, Tensor]] = []
    for penalty in penalties:
        model = LogisticRegression(C=1 / (2 * penalty), solver="lbfgs", tol=tolerance, max_iter=most)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that 100 iterations do not do
            model.fit(matrix, classes)
        layers.append((torch.from_numpy(model.coef_).double(), torch.from_numpy(model.intercept_).double()))
    return layers


def _faster_kind(features: Tensor, targets: Tensor, penalty: float) -> str:
    """Of two fits in turn, twice."""
    seconds: dict[str, float] = {}
    for kind in ("float32", "float64") * 2:
        began = time.perf_counter()
        _sklearn(features, targets, [penalty], kind)
        seconds[kind] = min(seconds.get(kind, float("inf")), time.perf_counter() - began)
    return min(seconds, key=lambda kind: seconds[kind])


def _objective(features: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, penalty: float) -> float:
    """Loss and penalty per image, in float64."""
    from torch.nn import functional as F

    scores = features.double() @ weight.T + bias
    total = F.cross_entropy(scores, targets, reduction="sum") + penalty * (weight**2).sum()
    return float(total) / len(features)
