"""int8 by onnxruntime.quantization.quantize_static, in the form that TensorRT takes. Arguments: ONNX file, an .npz of
samples `0/NAME`, `1/NAME`, ..., the output, the method."""

import sys

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

model, data, output, method = sys.argv[1:]


class Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self.archive = np.load(data)
        self.names = iter(self.archive.files)

    def get_next(self) -> dict[str, np.ndarray] | None:
        name = next(self.names, None)
        return None if name is None else {name.partition("/")[2]: self.archive[name]}


quantize_static(
    model,
    output,
    Reader(),
    quant_format=QuantFormat.QDQ,
    op_types_to_quantize=["Conv", "Gemm", "MatMul"],
    per_channel=True,
    activation_type=QuantType.QInt8,
    weight_type=QuantType.QInt8,
    calibrate_method={"minmax": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy}[method],
    extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
)
