"""Heads side by side on the same batches: their scores, losses and gradients.

A head has the same bits however many stand beside it and wherever it stands. So its products with the features are
calls of its own: one batched product picks its way of adding up by how many matrices it is given. What is done to
single rows of scores (softmax, the loss, its slope) is done for all heads at once, on rows that are padded so that
each row meets the same instructions wherever it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from headstart.models.heads import InUnits
from headstart.seeds import derive
from headstart.training.losses import Terms

_ROWS = 32
"""Rows of a head's scores are a multiple of it: vectorised loops then have no rest, which is computed otherwise."""
_SERIAL = 32_768
"""Numbers from which on PyTorch divides an elementwise operation among threads, wherever that falls."""


@dataclass(frozen=True)
class Standing:
    """One head of a stack."""

    head: nn.Sequential
    terms: Terms
    loss: str
    """What names the loss: heads that share it are scored together."""
    seed: int
    feed: int
    """Which of the batches of a step is its own."""


class Stack:
    """Heads of one number of outputs, for batches of at most `batch_size` examples."""

    def __init__(
        self, standing: Sequence[Standing], *, outputs: int, batch_size: int, device: torch.device
    ) -> None:
        """`standing` must be ordered by loss."""
        self.standing = list(standing)
        self.outputs, self.batch_size, self.device = outputs, batch_size, device
        self.rows = -(-batch_size // _ROWS) * _ROWS
        self.parameters = [list(one.head.parameters()) for one in self.standing]
        self.gradients = [[torch.zeros_like(p) for p in own] for own in self.parameters]
        self._plain = [_plain_linear(one.head) for one in self.standing]
        self._units = [next((m for m in one.head if isinstance(m, InUnits)), None) for one in self.standing]
        self._scores = torch.zeros(len(self.standing), self.rows, outputs, device=device)
        self._columns = torch.zeros(len(self.standing), outputs * self.rows, device=device)
        self._views: dict[int, torch.Tensor] = {}
        self._feeds = torch.tensor([one.feed for one in self.standing], device=device)
        self._chunks = self._chunked()
        self._shares: dict[tuple[int, int], torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.standing)

    def _chunked(self) -> list[tuple[int, int]]:
        """From where to where heads of one loss are scored together; a CPU takes few enough for one thread."""
        most = len(self) if self.device.type != "cpu" else max(1, (_SERIAL - 1) // (self.rows * self.outputs))
        found: list[tuple[int, int]] = []
        for i, one in enumerate(self.standing):
            start = found[-1][0] if found else 0
            if found and self.standing[start].loss == one.loss and i - start < most:
                found[-1] = (start, i + 1)
            else:
                found.append((i, i + 1))
        return found

    @torch.no_grad()
    def step(self, features: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], *, step: int) -> torch.Tensor:
        """(heads,) the mean losses of a step; `gradients` are those of these.

        `features` (n, width) and `targets` (n,) or (n, numbers) are those of each feed, all of one size n. Draws
        inside a head come from (its seed, `step`).
        """
        count = len(features[0])
        padded = [_padded(one, self.rows) for one in targets]
        own = (
            padded[0].expand(len(self), *padded[0].shape) if len(padded) == 1 else torch.stack(padded)[self._feeds]
        )
        columns = self._columns_of(count)
        kept = [self._score(i, columns[i], features[one.feed], step) for i, one in enumerate(self.standing)]
        self._scores[:, :count] = columns.transpose(1, 2)
        losses = torch.empty(len(self), device=self.device)
        for start, end in self._chunks:
            slopes, losses[start:end] = self._slopes(start, end, own[start:end], count)
            for i in range(start, end):
                self._differentiate(i, slopes[i - start, :count], features[self.standing[i].feed], kept[i])
        return losses

    def _columns_of(self, count: int) -> torch.Tensor:
        """(heads, outputs, count) where scores are written first: products with features behind are the faster."""
        if count not in self._views:
            self._views[count] = self._columns[:, : self.outputs * count].view(-1, self.outputs, count)
        return self._views[count]

    def _score(self, i: int, out: torch.Tensor, features: torch.Tensor, step: int) -> torch.Tensor | None:
        """Write a head's scores, a column per example; where its gradient needs more, what leads back to it."""
        plain = self._plain[i]
        if plain is not None:
            torch.addmm(plain.bias[:, None], plain.weight, features.t(), out=out)
            return None
        one = self.standing[i]
        if any(isinstance(module, nn.Dropout) for module in one.head):
            torch.manual_seed(derive(one.seed, "step", step))
        with torch.enable_grad():
            scores = features
            for module in one.head.train():
                scores = scores if isinstance(module, InUnits) else module(scores)
        out.copy_(scores.t())
        return scores

    def _slopes(self, start: int, end: int, targets: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """d(mean loss) / d(score), (heads, rows, outputs), and the losses of heads that share theirs."""
        heads, terms, units = end - start, self.standing[start].terms, self._units[start]
        flat = targets.flatten(0, 1)
        leaf = self._scores[start:end].view(-1, self.outputs).detach().requires_grad_()
        with torch.enable_grad():
            each = terms.each(leaf if units is None else units(leaf), flat)
        total: torch.Tensor | int = count
        if terms.weight is not None:
            total = terms.weight(flat).view(heads, -1)[:, :count].sum(dim=1)
        share = self._share(heads, count, total)
        (slopes,) = torch.autograd.grad(each, leaf, share)
        losses = each.detach().view(heads, -1)[:, :count].sum(dim=1) / total
        return slopes.contiguous().view(heads, self.rows, -1), losses

    def _share(self, heads: int, count: int, total: torch.Tensor | int) -> torch.Tensor:
        """(heads * rows,) what each row has of the mean: nothing where it only fills up."""
        if isinstance(total, int) and (heads, count) in self._shares:
            return self._shares[heads, count]
        share = torch.zeros(heads, self.rows, device=self.device)
        share[:, :count] = 1 / total if isinstance(total, int) else (1 / total)[:, None]
        if isinstance(total, int):
            self._shares[heads, count] = share.view(-1)
        return share.view(-1)

    def _differentiate(
        self, i: int, slopes: torch.Tensor, features: torch.Tensor, scores: torch.Tensor | None
    ) -> None:
        """Put a head's gradient in its place."""
        if scores is None:
            weight, bias = self.gradients[i]
            torch.mm(slopes.t(), features, out=weight)
            torch.sum(slopes, 0, out=bias)
        else:
            self.gradients[i] = list(torch.autograd.grad(scores, self.parameters[i], slopes))

    def clip(self, i: int, largest: float) -> None:
        """Shorten a head's gradient to a norm of `largest`, as torch.nn.utils.clip_grad_norm_ does."""
        own = self.gradients[i]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one) for one in own]))
        share = (largest / (norm + 1e-6)).clamp(max=1.0)
        for one in own:
            one.mul_(share)

    def without(self, leaving: set[int]) -> Stack:
        """The heads that stay; they go on as if nobody had left."""
        stay = [one for i, one in enumerate(self.standing) if i not in leaving]
        return Stack(stay, outputs=self.outputs, batch_size=self.batch_size, device=self.device)


def _plain_linear(head: nn.Sequential) -> nn.Linear | None:
    """The layer of a head that is one linear layer and nothing else that learns or draws."""
    learning = [module for module in head if not isinstance(module, InUnits)]
    first = learning[0]
    return first if len(learning) == 1 and isinstance(first, nn.Linear) and first.bias is not None else None


@torch.no_grad()
def scores_of(head: nn.Sequential, features: torch.Tensor) -> torch.Tensor:
    """(n, outputs) of a head in evaluation mode, in the data's own units where these are numbers."""
    plain = _plain_linear(head)
    if plain is None:
        found: torch.Tensor = head.eval()(features)
        return found
    linear = torch.addmm(plain.bias[:, None], plain.weight, features.t()).t()
    units = next((module for module in head if isinstance(module, InUnits)), None)
    return linear if units is None else units(linear)


def _padded(targets: torch.Tensor, rows: int) -> torch.Tensor:
    if len(targets) == rows:
        return targets
    out = targets.new_zeros(rows, *targets.shape[1:])
    out[: len(targets)] = targets
    return out
