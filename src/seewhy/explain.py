"""The verbs: explain one question, compare several. One forward pass, shared evidence."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from seewhy import given
from seewhy.answer import answer
from seewhy.comparison import Comparison
from seewhy.data.preprocess import Preprocess
from seewhy.ensemble import Change
from seewhy.explanation import Explanation
from seewhy.labels import Labels
from seewhy.maps import Asked, asked, has_form
from seewhy.model.layers import Candidate
from seewhy.model.locate import listed
from seewhy.model.places import LayerName
from seewhy.model.run import Run
from seewhy.subject import subject
from seewhy.types import MethodError, Path
from seewhy.zoo import Loaded

_Method = str | Callable[..., Tensor]


def explain(
    model: nn.Module | Loaded,
    images: Any,
    target: Any = None,
    method: _Method | None = None,
    layer: LayerName | Sequence[LayerName] | None = None,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    rectify: bool | None = None,
    align: str = "measured",
    layout: str | None = None,
    ensemble: Change | Sequence[Change] = (),
    combine: str = "mean",
    output: str | int | Path | None = None,
    labels: Labels | None = None,
    preprocess: Preprocess | None = None,
    differentiable: bool = False,
) -> Explanation:
    """Why did the model say that? A heat map for each image, from one forward pass.

    Args:
        model: any module in memory, or what `seewhy.load` returned. It is explained in eval mode, whatever mode it is
            in, and left exactly as it was.
        images: a batch as the model takes it, `(b c h w)`, `(b c l)` or `(b c d h w)`; or, where the preprocessing is
            known, one or several photos: paths, PIL images, arrays, uint8 tensors.
        target: the question: a class by index or label, one for all or a list with one per image; a target such as
            `Logit(1) - Logit(2)`; any function of (output, rows). None: the class that the model predicts.
        method: a method's name (`seewhy.METHODS`), or a function of facts. None: `grad_cam`; for a box `hires_cam`,
            since Grad-CAM spreads what is read at few places.
        layer: a layer's name (`name@2` for its second call) or the module itself, or several, whose maps are fused.
            None: found by itself, and said in the notes.
        args: further positional arguments of the model, after the images.
        kwargs: keyword arguments of the model.
        options: the method's options.
        rectify: False for the signed form of a method whose paper rectifies, True for the positive part of one whose
            paper does not. None: as in the paper.
        align: where a cell of the layer looks: `measured` once for each model and layer, `analytic` from the receptive
            fields, or the usual `tile`.
        layout: the axes of the layer's tensor, such as `b h w c`, where they cannot be inferred.
        ensemble: changes of the images that the map is taken over: `Noise()`, `Flips()`, `Scales()`, one or several.
        combine: how their maps become one: the `mean`, as SmoothGrad has it, the mean of squares (`mean_squares`), or
            the `variance` (VarGrad).
        output: keys or indices that lead to the scores in the model's output, where that holds several tensors.
        labels: names of the classes, in the order of the scores, or by index: `{0: "cat", 1: "dog"}`.
        preprocess: how photos become inputs.
        differentiable: keep the graph, so that the map can be part of a loss.

    Returns:
        The maps with all that was asked, chosen and guessed.

    Raises:
        SeewhyError: one of its kinds, each one sentence: what was got, the rule, the way out.
    """
    manner = given.manner_of(align, layout, ensemble, combine, output, differentiable)
    chosen, said = given.usual([target]) if method is None else (given.method_of(method), ())
    way, group = asked(chosen, given.options_of(options), rectify), given.layers_of(layer)
    keywords, names = given.keywords_of(kwargs), given.labels_of(labels)
    ready = subject(model, images, args=args, kwargs=keywords, labels=names, preprocess=preprocess)
    return answer(ready.noted(*said), [target], [way], [group], manner)[0]


def compare(
    model: nn.Module | Loaded,
    images: Any,
    targets: Sequence[Any] = (None,),
    methods: Sequence[_Method | tuple[_Method, Mapping[str, Any]]] | None = None,
    layers: Sequence[LayerName | Sequence[LayerName] | None] = (None,),
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[Any, Mapping[str, Any]] | None = None,
    rectify: bool | None = None,
    align: str = "measured",
    layout: str | None = None,
    ensemble: Change | Sequence[Change] = (),
    combine: str = "mean",
    output: str | int | Path | None = None,
    labels: Labels | None = None,
    preprocess: Preprocess | None = None,
) -> Comparison:
    """Several questions, methods or layers side by side, from one forward pass and one batched backward pass.

    Args:
        model: as in `explain`.
        images: as in `explain`.
        targets: the questions; each may be anything that `explain` takes as its target.
        methods: the methods, by name; with options of its own as a pair, so that one can stand beside itself:
            `[("dff", {"concept": 0}), ("dff", {"concept": 1})]`. None: as in `explain`, one for all.
        layers: the layers; a sequence inside it is fused to one map.
        args: as in `explain`.
        kwargs: as in `explain`.
        options: for methods, as they are named in `methods`, their options.
        rectify: as in `explain`, for all methods that have this form.
        align: as in `explain`.
        layout: as in `explain`.
        ensemble: as in `explain`.
        combine: as in `explain`.
        output: as in `explain`.
        labels: as in `explain`.
        preprocess: as in `explain`.

    Returns:
        One explanation for each, in the order targets x methods x layers.

    Raises:
        SeewhyError: as `explain`.
    """
    targets = given.several("targets", targets)
    usual, said = given.usual(targets) if methods is None else ("", ())
    methods = given.several("methods", usual if methods is None else methods)
    groups = [given.layers_of(each) for each in given.several("layers", layers)]
    manner = given.manner_of(align, layout, ensemble, combine, output)
    ways = _ways([given.way_of(each) for each in methods], given.options_of(options), rectify)
    keywords, names = given.keywords_of(kwargs), given.labels_of(labels)
    ready = subject(model, images, args=args, kwargs=keywords, labels=names, preprocess=preprocess)
    return Comparison(
        tuple(answer(ready.noted(*said), targets, ways, groups, manner)), (len(targets), len(ways), len(groups))
    )


def _ways(
    methods: Sequence[tuple[_Method, Mapping[str, Any]]],
    options: Mapping[Any, Any],
    rectify: bool | None,
) -> list[Asked]:
    """The methods, each with its own options and with what is chosen for all."""
    names = [method for method, _ in methods]
    for name in options:
        if name not in names:
            raise MethodError(f"got options of {name!r}, which is none of the methods; name them as in methods=")
    own = [{**given.options_of(options.get(method)), **more} for method, more in methods]
    every = rectify is None or not any(has_form(method, rectify) for method in names)  # then each says that it has none
    forms = [rectify if every or has_form(method, bool(rectify)) else None for method in names]
    return [asked(method, chosen, form) for method, chosen, form in zip(names, own, forms, strict=True)]


def layers(
    model: nn.Module | Loaded,
    images: Any,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    output: str | int | Path | None = None,
    preprocess: Preprocess | None = None,
) -> list[Candidate]:
    """The layers that a map can be made of, with grid and share of the gradient, and which one would be chosen.

    Args:
        model: as in `explain`.
        images: as in `explain`; their content does not matter.
        args: as in `explain`.
        kwargs: as in `explain`.
        output: as in `explain`.
        preprocess: as in `explain`.

    Returns:
        One candidate for each layer, in the order in which they run.

    Raises:
        LayerError: the scores do not depend on the images.
    """
    path, keywords = given.path_of(output), given.keywords_of(kwargs)
    ready = subject(model, images, args=args, kwargs=keywords, labels=None, preprocess=preprocess)
    return listed(Run(ready.module, ready.batch, path))
