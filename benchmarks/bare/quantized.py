"""graphkit's int8 lowering alone. Arguments: ONNX file, calibration data, output, method."""

import sys

from graphkit.model import load
from graphkit.precision import quantize

model, data, output, method = sys.argv[1:]
quantize.lower(load(model), "int8", data, method=method).model.save(output)
