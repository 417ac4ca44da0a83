"""What processes that train together owe each other: gradients of what trains, statistics, and equal weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from headstart.errors import RunFailed


class PhasedDDP(DDPStrategy):
    """Lightning's DDP, which wraps the module anew in each phase, so that only what trains is synchronised.

    The processes build their weights from the same seed and files and are held to it by `require_equal`: nothing
    is sent at a wrapping, and no buffers in a step.
    """

    def configure_ddp(self) -> None:
        """Leave the module as it is: its first phase wraps it."""

    def begin_phase(self) -> None:
        """Wrap the module, whose parameters say now whether they train, in place of the last phase's wrapping."""
        if isinstance(self.model, DistributedDataParallel):
            self.model._remove_autograd_hooks()
        assert self.lightning_module is not None
        self.model = self._setup_model(self.lightning_module)
        # its argument has another name from one PyTorch to the next
        self.model.broadcast_buffers = False
        self._register_ddp_hooks()


@torch.no_grad()
def average(tensors: Sequence[torch.Tensor]) -> None:
    """Put the mean over all processes in the place of running statistics, which each has of its own images.

    Equal shares of a batch: the running mean becomes that of one process with the whole batch.
    """
    if not tensors:
        return
    # in float64, where the mean of equal numbers is that number
    flat = torch.cat([tensor.flatten().double() for tensor in tensors])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


@torch.no_grad()
def require_equal(tensors: Mapping[str, torch.Tensor], *, step: int) -> None:
    """Raise RunFailed, in every process, where one holds other bits than the first."""
    sums = torch.stack([_sum_of_bits(tensor) for tensor in tensors.values()])
    gathered = [torch.empty_like(sums) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, sums)
    everyone = torch.stack(gathered).cpu()
    for rank, differs in enumerate((everyone != everyone[0]).tolist()):
        names = [name for name, other in zip(tensors, differs, strict=True) if other]
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise RunFailed(
                f"the processes have drifted apart: at step {step}, process {rank} of {len(everyone)} holds other "
                f"values of {names[0]}{more} than process 0."
            )


_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _sum_of_bits(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor's elements as whole numbers, modulo 2^64."""
    whole = tensor.detach().to(torch.uint8) if tensor.dtype == torch.bool else tensor.detach()
    return whole.view(_WHOLE[whole.element_size()]).sum(dtype=torch.int64)


def moving_statistics(model: nn.Module, *, frozen: Sequence[nn.Module]) -> list[torch.Tensor]:
    """The running statistics of a model's modules, but for those that are `frozen`."""
    left_alone = set(frozen)
    return [
        buffer
        for module in model.modules()
        if module not in left_alone
        for buffer in module.buffers(recurse=False)
        if buffer.is_floating_point()
    ]
