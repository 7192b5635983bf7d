"""The autograd graph of a recorded forward pass: its nodes, edges, and the tensors that every path crosses."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from seewhy.model.kinds import CHANNELS_FIRST, PICKS, PRODUCTS, WEIGHTED

Edge = tuple[Node, int]
"""A tensor, known by the operation that made it and the number of the output: no activation is held."""


def kind(node: Node) -> str:
    """What a graph node differentiates: `Convolution`, `Relu`, `Cat`, ..."""
    return node.name().rpartition("::")[2].split("Backward")[0]


def weighted(node: Node) -> bool:
    """Whether the operation mixes values with weights."""
    return WEIGHTED.match(kind(node)) is not None


def shape_of(edge: Edge) -> tuple[int, ...]:
    """The shape of the tensor at an edge."""
    node, number = edge
    return tuple(int(length) for length in node._input_metadata[number].shape)  # pyright: ignore[reportPrivateUsage]


def producers(node: Node) -> list[Edge]:
    """The edges of the tensors that a node's operation read, as far as they are on the graph."""
    return [(producer, number) for producer, number in node.next_functions if producer is not None]


def edge_of(tensor: Tensor) -> Edge | None:
    """The edge that a tensor is known by; None where it is a leaf or has no graph."""
    return None if tensor.grad_fn is None else (tensor.grad_fn, tensor.output_nr)


def saved(node: Node, name: str) -> Any:
    """An argument of the operation, as autograd saved it."""
    value = getattr(node, f"_saved_{name}")
    return tuple(map(_signed, value)) if isinstance(value, tuple) else _signed(value)


def readers_of(nodes: Sequence[Node]) -> dict[Node, tuple[Node, ...]]:
    """For each node, those among these whose operations read what it put out."""
    found: dict[Node, tuple[Node, ...]] = {}
    for node in nodes:
        for producer, _ in producers(node):
            found[producer] = (*found.get(producer, ()), node)
    return found


def between(root: Node, leaf: Node) -> tuple[Node, ...]:
    """The nodes on a path from the root to the leaf, every one ahead of those that it was computed from."""
    reaches, finished, stack = {leaf: True}, [leaf], [root]
    while stack:
        before = [producer for producer, _ in producers(stack[-1])]
        waiting = [producer for producer in before if producer not in reaches]
        if waiting:
            stack.extend(waiting)
            continue
        node = stack.pop()
        if node not in reaches:
            reaches[node] = any(reaches[producer] for producer in before)
            if reaches[node]:
                finished.append(node)
    return tuple(reversed(finished))


def cuts_between(nodes: Sequence[Node], root: Edge) -> tuple[Edge, ...]:
    """The tensors that every path from the root to the leaf crosses, from the root on.

    In a topological order, a node is on every path exactly if no edge jumps over it; its tensor is, if it is the only
    one of the node's that is used.
    """
    position = {node: index for index, node in enumerate(nodes)}
    used: dict[Node, set[int]] = {root[0]: {root[1]}}
    cuts: list[Edge] = []
    furthest = 0
    for index, node in enumerate(nodes[:-1]):
        if furthest <= index and len(used[node]) == 1:
            cuts.append((node, next(iter(used[node]))))
        for producer, number in producers(node):
            if producer in position:
                furthest = max(furthest, position[producer])
                used.setdefault(producer, set()).add(number)
    return tuple(cuts)


def displaced_among(nodes: Sequence[Node]) -> frozenset[Node]:
    """Those of these nodes whose rows are not places of the image in their order, whatever their number is.

    An attention answers in the rows of its queries, which the image may have no part in: the words of a decoder, learnt
    queries. What was picked by an index stands in any order.
    """
    on_path, found = set(nodes), set[Node]()
    for node in reversed(nodes):
        made = [producer for producer, _ in producers(node) if producer in on_path]
        if kind(node) in PRODUCTS or "Attention" in kind(node):
            asking = node.next_functions[kind(node) == "Baddbmm"][0]
            lost = asking not in on_path or asking in found
        elif kind(node) in PICKS and len(shape_of((node, 0))) < 4:  # of four axes, it is channels that are picked
            lost = True
        else:  # what convolves has places in their order
            lost = bool(made) and found.issuperset(made) and not CHANNELS_FIRST.search(kind(node))
        if lost:
            found.add(node)
    return frozenset(found)


def _signed(value: Any) -> Any:
    # autograd shows saved negative integers as unsigned ones of 64 bits
    return value - 2**64 if isinstance(value, int) and value >= 2**63 else value
