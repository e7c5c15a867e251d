"""A signature as a SavedModel, by `tf.saved_model.save`."""

from __future__ import annotations

import warnings
from pathlib import Path

from graphkit.errors import TargetUnsupported
from graphkit.export.signature import KEY, Signature


def write(signature: Signature, folder: Path) -> None:
    """Write a SavedModel with one signature, `serving_default`.

    Raises:
        TargetUnsupported: it holds something that TensorFlow cannot save, such as a Python function.
    """
    import tensorflow as tf

    from graphkit.capture.tf_quiet import quiet

    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tf.saved_model.save(signature.holder, str(folder), signatures={KEY: signature.concrete})
    except (AssertionError, ValueError, TypeError, KeyError, NotImplementedError, tf.errors.OpError) as error:
        raise TargetUnsupported(
            f"TensorFlow cannot save it: {(str(error).strip().splitlines() or [type(error).__name__])[0][:300]}",
            remedy="make every variable and table an attribute of the model",
        ) from error
