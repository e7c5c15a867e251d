"""Writes a TensorFlow source by TensorFlow's own exporters; where the source lives, in a child or here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphkit.capture.request import CaptureRequest
from graphkit.errors import UnknownTarget


def write(source: Any, request: dict[str, Any], to: str, path: str) -> dict[str, dict[str, str]]:
    """Write a source, which is prepared, to a path.

    Args:
        source: The source.
        request: As `CaptureRequest.to_json`.
        to: `saved_model` (a folder that does not exist yet) or `tflite` (a file).
        path: Where to.

    Returns:
        `inputs` and `outputs`: names of the source's tensors that are spelt otherwise in what was written.

    Raises:
        UnknownTarget: the source is none of TensorFlow's. `StateMutated`: it assigns variables.
        TargetUnsupported: TensorFlow cannot write it.
    """
    from graphkit.capture.tf_source import TfSource

    if not isinstance(source, TfSource):
        raise UnknownTarget(
            f"--to {to}: {source.name} runs on {source.label.partition(' ')[0]}; TensorFlow's exporters write what "
            "TensorFlow runs",
            remedy="--to onnx or --to trt; or name a Keras model, a tf.function, a SavedModel or a GraphDef",
        )
    from graphkit.export.signature import signature_of

    signature = signature_of(source, CaptureRequest.from_json(request))
    if to == "saved_model":
        from graphkit.export import saved_model

        saved_model.write(signature, Path(path))
    else:
        from graphkit.export import tflite

        tflite.write(signature, Path(path))
    return {"inputs": signature.renamed_inputs, "outputs": signature.renamed_outputs}
