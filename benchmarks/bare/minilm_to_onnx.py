"""MiniLM to ONNX by hand: torch.onnx.export, onnxsim, one run of ONNX Runtime. Argument: the output."""

import sys

import numpy as np
import onnx
import onnxruntime as ort
import onnxsim
import torch

from fixtures.minilm import VOCABULARY, minilm

output = sys.argv[1]
ids = torch.randint(0, VOCABULARY, (2, 16))
mask = torch.ones(2, 16, dtype=torch.int64)
free = {0: torch.export.Dim("batch", min=1, max=8), 1: torch.export.Dim("sequence", min=2, max=128)}
program = torch.onnx.export(
    minilm(),
    (),
    kwargs={"input_ids": ids, "attention_mask": mask},
    dynamo=True,
    opset_version=20,
    dynamic_shapes={"input_ids": free, "attention_mask": free},
    input_names=["input_ids", "attention_mask"],
    output_names=["last_hidden_state", "sentence_embedding"],
    verbose=False,
)
assert program is not None
model, _ = onnxsim.simplify(program.model_proto)
onnx.save(model, output)
session = ort.InferenceSession(output, providers=["CPUExecutionProvider"])
found = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
assert all(np.isfinite(value).all() for value in found)
