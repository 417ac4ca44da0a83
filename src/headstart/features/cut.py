"""Where a backbone can be cut: the one tensor that all which trains is computed from, and the two parts around it.

Found by torch.fx, in the flow of data between modules: a module whose tensors all are frozen, or all are not, is
taken whole, so that it is the same object with its own mode, hooks and gradients on either side.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from timm.models._features_fx import get_notrace_functions
from torch import fx, nn
from torch.fx.node import Argument, map_arg

from headstart.features.extract import evaluating

_COUNTS = (2, 3)
"""Images that pass through to see which values follow their number."""
_CHECKED = 4
_NAME = "backbone"


class NoCut(Exception):
    """A backbone that has no such place, or none that can be found; the message says why."""


@dataclass(frozen=True)
class Cut:
    """A place in a backbone; `rest(below(images))` is what the backbone gives for them."""

    name: str
    below: nn.Module
    """Normalised images (n, channels, height, width) -> (n, *shape). Its modules are the backbone's own."""
    rest: nn.Module
    """(n, *shape) -> features (n, width). Its modules are the backbone's own."""
    shape: tuple[int, ...]
    """Of one image's activations."""

    @property
    def width(self) -> int:
        """Numbers per image."""
        return int(torch.Size(self.shape).numel())


def find_cut(backbone: nn.Module, trained: Collection[str], *, shape: tuple[int, int, int]) -> Cut:
    """The last place in `backbone` that everything passes and nothing `trained` comes before.

    `trained` names parameters and buffers of the backbone. `shape`: (channels, height, width) of an image. The
    backbone may be in any mode, and is left so. Raises NoCut.
    """
    whole, named = _OfImages(backbone), {f"{_NAME}.{name}" for name in trained}
    with evaluating(backbone), torch.no_grad():
        flow = _Flow(whole, _traced(whole, named), named, shape=shape)
        node = flow.last_frozen()
        cut = Cut(
            name=str(node.target).removeprefix(f"{_NAME}.") if node.op == "call_module" else node.name,
            below=fx.GraphModule(whole, flow.before(node)),
            rest=fx.GraphModule(whole, flow.after(node)),
            shape=tuple(flow.seen[0][node].shape[1:]),
        )
        _check(backbone, cut, shape=shape)
    return cut


def _check(backbone: nn.Module, cut: Cut, *, shape: tuple[int, int, int]) -> None:
    images = _noise(_CHECKED, shape, like=backbone)
    try:
        kept = cut.below(images).float().flatten(1).view(_CHECKED, *cut.shape)
        found = cut.rest(kept)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise NoCut(f"what lies above {cut.name} does not run by itself ({_line(error)})") from error
    whole = backbone(images)
    if found.shape != whole.shape or not torch.allclose(found, whole, rtol=1e-4, atol=1e-5):
        raise NoCut(f"what lies above {cut.name} does not give by itself what the whole gives")


def _noise(count: int, shape: tuple[int, int, int], *, like: nn.Module) -> torch.Tensor:
    device = next(iter(like.parameters())).device
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0)).to(device)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]


class _OfImages(nn.Module):
    """A backbone that takes images and nothing else: what timm's models take beside has its default."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.add_module(_NAME, backbone)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.get_submodule(_NAME)(images)
        return features


class _Tracer(fx.Tracer):
    """Enters the modules that hold something frozen beside something that is not, and no others."""

    def __init__(self, entered: Collection[str]) -> None:
        super().__init__(autowrap_functions=tuple(get_notrace_functions()), param_shapes_constant=True)
        self.entered = entered

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.entered


def _traced(backbone: nn.Module, trained: Collection[str]) -> fx.Graph:
    names = [name for name, _ in (*backbone.named_parameters(), *backbone.named_buffers())]
    below = [set(_around(name)) for name in names if name not in trained]
    above = [set(_around(name)) for name in names if name in trained]
    try:
        graph = _Tracer(set().union(*below) & set().union(*above)).trace(backbone)
    except Exception as error:  # whatever the model's own code raises when it meets what is no tensor
        raise NoCut(f"torch.fx cannot follow it ({_line(error)})") from error
    return graph


def _around(name: str) -> Iterable[str]:
    """The modules that a tensor lies in, the outermost called ``."""
    path = name.split(".")
    return (".".join(path[:depth]) for depth in range(len(path)))


class _Recorder(fx.Interpreter):
    """Keeps what every node gives."""

    def __init__(self, backbone: nn.Module, graph: fx.Graph) -> None:
        super().__init__(backbone, garbage_collect_values=False, graph=graph)
        self.seen: dict[fx.Node, Any] = {}

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return super().call_module(target, _with_lists(args), _with_lists(kwargs))

    def run_node(self, n: fx.Node) -> Any:
        self.seen[n] = super().run_node(n)
        return self.seen[n]


class _Flow:
    """What flows through a backbone's graph."""

    def __init__(
        self, backbone: nn.Module, graph: fx.Graph, trained: Collection[str], *, shape: tuple[int, int, int]
    ) -> None:
        self.nodes = list(graph.nodes)
        self.trained = trained
        self.seen: list[dict[fx.Node, Any]] = []
        """What each node gives, for so many images and for so many."""
        for count in _COUNTS:
            recorder = _Recorder(backbone, graph)
            try:
                recorder.run(_noise(count, shape, like=backbone))
            except Exception as error:
                raise NoCut(f"what torch.fx has found does not run ({_line(error)})") from error
            self.seen.append(recorder.seen)

    def last_frozen(self) -> fx.Node:
        """The last node that all data passes and that nothing trained reaches; raises NoCut."""
        passed: dict[fx.Node, list[fx.Node]] = {}
        tainted: set[fx.Node] = set()
        for node in self.nodes:
            if self._is_trained(node) or any(one in tainted for one in node.all_input_nodes):
                tainted.add(node)
            ways = [passed[one] for one in node.all_input_nodes if one in passed]
            if node.op == "placeholder":
                passed[node] = [node]
            elif ways and not self._is_plain(node):
                shortest = min(ways, key=len)
                passed[node] = [one for one in shortest if all(one in way for way in ways)] + [node]
        last = passed.get(self.nodes[-1], [])
        for node in reversed(last[1:-1]):
            if node not in tainted and self._is_batch(node):
                return node
        raise NoCut("no single tensor lies between what is frozen and what trains")

    def before(self, cut: fx.Node) -> fx.Graph:
        """From the images to the cut."""
        graph, made = fx.Graph(), dict[fx.Node, fx.Node]()
        for node in self._needed(cut, stop=()):
            made[node] = graph.node_copy(node, lambda one: made[one])
        graph.output(made[cut])
        return graph

    def after(self, cut: fx.Node) -> fx.Graph:
        """From the cut to the features."""
        graph = fx.Graph()
        kept = graph.placeholder("kept")
        made: dict[fx.Node, Argument] = {cut: kept}
        needed = self._needed(self.nodes[-1], stop=(cut,))
        sizes = [node for node in needed if node is not cut and self._is_plain(node)]
        count = graph.call_method("size", (kept, 0)) if any(self._follows(node) for node in sizes) else None
        for node in needed:
            if node is cut:
                continue
            if node in sizes:
                made[node] = self._as_argument(graph, node, count)
            elif node.op == "output":
                graph.output(map_arg(node.args[0], lambda one: made[one]))
            else:
                made[node] = graph.node_copy(node, lambda one: made[one])
        return graph

    def _needed(self, end: fx.Node, *, stop: Collection[fx.Node]) -> list[fx.Node]:
        """All that `end` is computed from, in order; what comes before `stop`, or before mere numbers, is not."""
        found, left = set(stop), [end]
        while left:
            node = left.pop()
            if node not in found:
                found.add(node)
                if not stop or not self._is_plain(node):
                    left += node.all_input_nodes
        return [node for node in self.nodes if node in found]

    def _is_trained(self, node: fx.Node) -> bool:
        if node.op == "get_attr":
            return node.target in self.trained
        return node.op == "call_module" and any(name.startswith(f"{node.target}.") for name in self.trained)

    def _is_batch(self, node: fx.Node) -> bool:
        values = [seen[node] for seen in self.seen]
        return all(isinstance(value, torch.Tensor) for value in values) and all(
            value.ndim > 1 and len(value) == count and value.is_floating_point()
            for value, count in zip(values, _COUNTS, strict=True)
        )

    def _is_plain(self, node: fx.Node) -> bool:
        """Whether it gives numbers that follow from the images' size and number, and no tensor."""
        return node.op not in ("placeholder", "output", "get_attr") and _is_plain(self.seen[0][node])

    def _follows(self, node: fx.Node) -> bool:
        return bool(self.seen[0][node] != self.seen[1][node])

    def _as_argument(self, graph: fx.Graph, node: fx.Node, count: fx.Node | None) -> Argument:
        return _with_count(graph, self.seen[0][node], self.seen[1][node], count)


def _with_lists(value: Any) -> Any:
    """Lists that may be changed, as some modules do with theirs, in the place of fx's own."""
    if isinstance(value, list):
        return [_with_lists(one) for one in value]
    if isinstance(value, dict):
        return {key: _with_lists(one) for key, one in value.items()}
    return tuple(map(_with_lists, value)) if type(value) is tuple else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(one) for one in value)
    return value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.device)


def _with_count(graph: fx.Graph, first: Any, second: Any, count: fx.Node | None) -> Any:
    """A value that is the same for all batches, or follows the number of images; raises NoCut for others."""
    if isinstance(first, tuple | list):
        if len(first) != len(second):
            raise NoCut("a value follows the number of images in an unknown way")
        return tuple(_with_count(graph, a, b, count) for a, b in zip(first, second, strict=True))
    if first == second:
        return first
    times, left = divmod(first, _COUNTS[0]) if type(first) is int else (0, 1)
    if left or second != times * _COUNTS[1]:
        raise NoCut("a value follows the number of images in an unknown way")
    return graph.call_function(operator.mul, (count, times)) if times > 1 else count
