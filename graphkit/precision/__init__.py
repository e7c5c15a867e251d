"""Lower precision, written into the graph: fp16, bf16, int8, fp8, int4. TensorRT 11 and TensorRT-RTX are strongly
typed, so that a precision is in the ONNX graph or nowhere. Nothing is imported here: take what you need by module."""
