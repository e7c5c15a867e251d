"""Looks at models and changes nothing: what they hold, what they cost, how they are built.

    found = inspection.inspect("model.onnx", {"batch": 8})
    found.graph.macs.value          # exact, or a polynomial in the dimensions that are left

No framework, no numpy and no onnx is imported; only the statistics of weights need numpy.
"""
