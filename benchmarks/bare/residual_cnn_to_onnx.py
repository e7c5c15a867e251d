"""The residual CNN to ONNX by hand: torch.onnx.export, onnxsim, one run of ONNX Runtime. Argument: the output."""

import sys

import numpy as np
import onnx
import onnxruntime as ort
import onnxsim
import torch

from fixtures.torch_models import residual_cnn

output = sys.argv[1]
x = torch.randn(4, 3, 64, 64)
batch = torch.export.Dim("batch", min=1, max=8)
program = torch.onnx.export(
    residual_cnn(),
    (),
    kwargs={"input": x},
    dynamo=True,
    opset_version=20,
    dynamic_shapes={"input": {0: batch}},
    input_names=["input"],
    output_names=["output"],
    verbose=False,
)
assert program is not None
model, _ = onnxsim.simplify(program.model_proto)
onnx.save(model, output)
session = ort.InferenceSession(output, providers=["CPUExecutionProvider"])
(found,) = session.run(None, {"input": x.numpy()})
assert np.isfinite(found).all()
