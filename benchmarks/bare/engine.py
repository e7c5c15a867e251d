"""A TensorRT-RTX engine by hand. Arguments: ONNX file, engine file, `8.6,8.9`, and of each input `name=min:opt:max`
with sizes as `1x3x64x64`.

Prints the seconds that parsing and building took, so that they can be told from starting Python and importing.
"""

import sys
import time
from pathlib import Path

import tensorrt_rtx as trt

model, output, capabilities, *profiles = sys.argv[1:]
started = time.perf_counter()
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
assert parser.parse_from_file(model)
config = builder.create_builder_config()
profile = builder.create_optimization_profile()
for text in profiles:
    name, _, triple = text.partition("=")
    low, opt, high = (tuple(map(int, sizes.split("x"))) for sizes in triple.split(":"))
    profile.set_shape(name, low, opt, high)
config.add_optimization_profile(profile)
targets = capabilities.split(",")
config.num_compute_capabilities = len(targets)
for index, target in enumerate(targets):
    config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{target.replace('.', '')}"), index)
engine = builder.build_serialized_network(network, config)
assert engine is not None
Path(output).write_bytes(memoryview(engine))
print(f"{time.perf_counter() - started:.4f}")
