"""Single training steps of a prepared run, outside of a training: for timing them and weighing what they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from headstart.assembly import module_of
from headstart.preparation import Prepared
from headstart.strategies.plan import Phase


class Steps:
    """A prepared run's module and optimiser on their device, in one phase of its plan, at a rate of 0.

    Batches go through the model whole. With `plain` nothing is compiled.
    """

    def __init__(self, prepared: Prepared, *, plain: bool = False) -> None:
        self.config, self.facts = prepared.config, prepared.facts
        self.device = torch.device("cuda" if self.config.trainer.accelerator == "gpu" else "cpu")
        if plain:
            trainer = replace(self.config.trainer, compile="none")
            prepared = replace(prepared, config=replace(self.config, trainer=trainer))
        self.module = module_of(prepared).to(self.device).train()
        self.module.shortcut = None
        self._entered = False
        self.module.computation = replace(self.module.computation, micro_batch_size=None)

    def enter(self, phase: Phase) -> None:
        """Freeze as `phase` says, and make the state that the optimiser keeps of what trains."""
        self.module.enter(phase)
        with torch.random.fork_rng(devices=[]):
            self.optimizer: torch.optim.Optimizer = self.module.configure_optimizers()["optimizer"]
        self._entered = True
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0  # the weights stay what they are
        for parameter in self.trained:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad()

    @property
    def trained(self) -> list[torch.Tensor]:
        """Parameters that train in the phase."""
        listed = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        return [parameter for parameter in listed if parameter.requires_grad]

    def held(self) -> Iterator[torch.Tensor]:
        """What is there before and after each step: weights, buffers, and the optimiser's state."""
        yield from self.weights()
        yield from self.state()

    def weights(self) -> Iterator[torch.Tensor]:
        """Parameters and buffers of the model and of its penalties."""
        yield from self.module.parameters()
        yield from self.module.buffers()

    def state(self) -> Iterator[torch.Tensor]:
        """What the optimiser keeps of what it trains, once a phase has begun."""
        for state in self.optimizer.state.values() if self._entered else ():
            yield from (value for value in state.values() if isinstance(value, torch.Tensor))

    def batch(self, count: int) -> dict[str, Any]:
        """Random images and targets of the run's kind, on the device."""
        facts = self.facts
        images = torch.randn(count, facts.channels, *facts.image_size, device=self.device)
        targets = torch.zeros(count, dtype=torch.long, device=self.device)
        if facts.task in ("multilabel", "regression"):
            targets = torch.zeros(count, facts.num_outputs, device=self.device)
        return {"image": images, "target": targets, "index": targets}

    def __call__(self, batch: dict[str, Any], *, forward: Callable[[], None] = lambda: None) -> None:
        """One step: forward (then `forward` is called), backward, update."""
        with self.precision():
            loss = self.module.training_step(batch, 0)
        forward()
        self.module.backward(loss)
        del loss
        # what overflowed would not be nothing at a rate of 0
        torch._foreach_zero_([p.grad for p in self.trained if p.grad is not None])
        self.optimizer.step()
        self.optimizer.zero_grad()

    def precision(self) -> AbstractContextManager[Any]:
        """The run's precision, for what is computed inside a `with`."""
        kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
        kind = kinds.get(self.config.trainer.precision)
        return torch.autocast(self.device.type, dtype=kind) if kind else nullcontext()

    def wait(self) -> None:
        """Until the device has done all of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Leave the buffers (running statistics), normalisations and random states as they were."""
        buffers = [(buffer, buffer.detach().clone()) for buffer in self.module.buffers()]
        devices = [torch.cuda.current_device()] if self.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=devices):
                yield
        finally:
            self.module._policies.remove()
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
