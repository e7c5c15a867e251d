"""A signature as a TFLite file, by TensorFlow's converter."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from graphkit.errors import TargetUnsupported
from graphkit.export import saved_model
from graphkit.export.signature import KEY, Signature

_OPERATOR = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")


def write(signature: Signature, file: Path) -> None:
    """Write a TFLite file of float operators that every interpreter has.

    By way of a SavedModel: a file that is converted from a concrete function has no signature, so that the names of
    its inputs and outputs are lost (TensorFlow 2.21).

    Raises:
        TargetUnsupported: TFLite lacks an operator; all of them are listed.
    """
    import tensorflow as tf

    from graphkit.capture.tf_quiet import quiet

    with tempfile.TemporaryDirectory(prefix="graphkit-") as folder:
        saved_model.write(signature, Path(folder, "model"))
        with quiet():
            converter = tf.lite.TFLiteConverter.from_saved_model(str(Path(folder, "model")), signature_keys=[KEY])
            try:
                content = converter.convert()
            except Exception as error:  # MLIR's errors, and the converter's own, have no common class
                raise _refusal(error) from error
    file.write_bytes(content)


def _refusal(error: Any) -> TargetUnsupported:
    operators = sorted(set(_OPERATOR.findall(str(error))))
    if not operators:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return TargetUnsupported(
            f"TFLite's converter gave up: {(lines or [type(error).__name__])[0][:300]}", details=tuple(lines[1:4])
        )
    plural = "operators" if len(operators) > 1 else "operator"
    return TargetUnsupported(
        f"TFLite has no {plural} {', '.join(f'`{op}`' for op in operators)}",
        remedy="write the model without them; a file with TensorFlow's own operators (SELECT_TF_OPS) runs only where "
        "all of TensorFlow is linked in, so it is not made",
        data={"operators": operators},
    )
