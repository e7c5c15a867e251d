"""Looking at a model without loading it: `read(path)` and `of(model)` give the same `ModelView`.

    view = graphkit.view.read("model.onnx")
    for graph in view.graphs():
        for node in graph.nodes:
            print(node.op, node.inputs, node.outputs)
    view.graph.weights()            # where each weight lies; `.read()` and `.digest()` fetch its bytes

No onnx, no numpy, no framework is imported until a weight's values are asked for.
"""

from graphkit.view.memory import of as of
from graphkit.view.reader import read as read
from graphkit.view.views import ABSENT as ABSENT
from graphkit.view.views import AttributeView as AttributeView
from graphkit.view.views import FunctionView as FunctionView
from graphkit.view.views import GraphView as GraphView
from graphkit.view.views import ModelView as ModelView
from graphkit.view.views import NodeView as NodeView
from graphkit.view.views import TypeView as TypeView
from graphkit.view.views import ValueView as ValueView
from graphkit.view.weights import SparseView as SparseView
from graphkit.view.weights import WeightView as WeightView
