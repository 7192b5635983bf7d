"""ONNX files, as modules that onnx2torch makes of them: "onnx:network.onnx"."""

from pathlib import Path

from seewhy.types import ModelError
from seewhy.zoo.loaded import Loaded, Request
from seewhy.zoo.optional import optional


def load_onnx(request: Request) -> Loaded:
    """The network of an ONNX file, operation by operation a module, with the weights of the file.

    Raises:
        ModelError: no such file, other weights, or an operation that onnx2torch does not know.
    """
    library = optional("onnx2torch", "onnx", request.full_name)
    path = Path(request.name)
    if request.weights is not None:
        raise ModelError(f"{request.full_name} brings its own weights; leave weights= out")
    if not path.is_file():
        raise ModelError(f"no file {request.name!r}; give onnx:PATH of an existing .onnx file")
    try:
        module = library.convert(path)
    except Exception as error:  # a damaged file, or whatever an operation's converter raises
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ModelError(
            f"{path.name} cannot be converted by onnx2torch ({reason}); "
            "export it anew with opset 13 to 16, or pass the module that it was exported from"
        ) from error
    notes = (f"converted from {path.name} by onnx2torch; what it computes may differ in the last digits",)
    unknown = ("no preprocessing: an ONNX file says nothing of it; give one, or tensors",)
    label_notes = () if request.labels else ("no labels: an ONNX file has none; give labels=",)
    return Loaded(module.eval(), None, request.labels, request.full_name, notes, unknown, label_notes)
