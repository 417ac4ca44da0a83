"""How far training has moved a backbone's features from where they began."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from headstart.data.datamodule import ImageDataModule
from headstart.models.classifier import Classifier

IMAGES = 128
"""Validation images that the features are compared on."""
_BATCH = 32


@dataclass(frozen=True)
class Start:
    """Features before training, and what they are features of."""

    images: torch.Tensor
    features: torch.Tensor
    device: str
    seconds: float


def start_of(model: Classifier, data: ImageDataModule, *, gpu: bool) -> Start:
    """Features of at most `IMAGES` validation images, from all over the split, before anything is trained."""
    began = time.monotonic()
    images, device = data.sample("val", IMAGES), "cuda" if gpu else "cpu"
    features = features_of(model, images, device=device)
    return Start(images, features, device, time.monotonic() - began)


def moved_since(start: Start, model: Classifier) -> dict[str, Any]:
    """What the record says: `linear_cka`, and `linear_cka_debiased`, which does not grow with width over images."""
    began = time.monotonic()
    features = features_of(model, start.images, device=start.device)
    return {
        "linear_cka": linear_cka(start.features, features),
        "linear_cka_debiased": debiased_linear_cka(start.features, features),
        "images": len(features),
        "split": "val",
        "seconds": round(start.seconds + time.monotonic() - began, 3),
    }


def unmoved(features: torch.Tensor) -> dict[str, Any]:
    """What the record says where nothing has moved: of the features (n, width) of validation images at any time."""
    began = time.monotonic()
    same = features.double().cpu()
    return {
        "linear_cka": linear_cka(same, same),
        "linear_cka_debiased": debiased_linear_cka(same, same),
        "images": len(same),
        "split": "val",
        "seconds": round(time.monotonic() - began, 3),
    }


@torch.no_grad()
def features_of(model: Classifier, images: torch.Tensor, *, device: str) -> torch.Tensor:
    """Features (n, width) that the head sees, in float64 on the CPU; the model's mode is left as it was.

    In evaluation mode nothing is random and no statistic is updated, so that a run has the same bits with it.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.to(device).eval()
    try:
        parts = [model.backbone(part.to(device)).double().cpu() for part in images.split(_BATCH)]
    finally:
        for module, mode in modes:
            module.training = mode
    return torch.cat(parts)


def linear_cka(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """||Y'X||^2 / (||X'X|| ||Y'Y||) of centred features (n, p), (n, q) (Kornblith et al. 2019, section 3).

    Computed from the (n, n) Gram matrices, as the trace of their product. None where either is constant.
    """
    k, m = (_centred(one @ one.T) for one in (a - a.mean(dim=0), b - b.mean(dim=0)))
    scale = float(torch.linalg.norm(k) * torch.linalg.norm(m))
    return float((k * m).sum()) / scale if scale > 0 else None


def debiased_linear_cka(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """The same with the unbiased estimator of HSIC (Song et al. 2012, eq. 5; Nguyen et al. 2021, eq. 3).

    0 in the mean for independent features, whatever their width; None for fewer than 4 images, or where either
    estimate of a feature with itself is not above zero.
    """
    if len(a) < 4:
        return None
    k, m = (one @ one.T for one in (a - a.mean(dim=0), b - b.mean(dim=0)))
    own_k, own_m = _unbiased(k, k), _unbiased(m, m)
    return _unbiased(k, m) / (own_k * own_m) ** 0.5 if own_k > 0 and own_m > 0 else None


def _centred(gram: torch.Tensor) -> torch.Tensor:
    return gram - gram.mean(dim=0) - gram.mean(dim=1, keepdim=True) + gram.mean()


def _unbiased(k: torch.Tensor, m: torch.Tensor) -> float:
    n = len(k)
    k, m = k - torch.diag(k.diagonal()), m - torch.diag(m.diagonal())
    first = (k * m).sum()
    second = k.sum() * m.sum() / ((n - 1) * (n - 2))
    third = 2 * (k.sum(dim=0) * m.sum(dim=0)).sum() / (n - 2)
    return float((first + second - third) / (n * (n - 3)))
