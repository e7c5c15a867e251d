"""Which node of one graph is which of another, and what differs.

    delta = graphkit.diff("before.onnx", "after.onnx")
    delta.empty, delta.signature, delta.graphs[0].hunks

The room is not called `diff`, for importing it would hide the function of that name.
"""

from graphkit.delta.difference import IGNORABLE as IGNORABLE
from graphkit.delta.difference import diff as diff
from graphkit.delta.difference import view_of as view_of
from graphkit.delta.result import Delta as Delta
from graphkit.delta.result import GraphDelta as GraphDelta
from graphkit.delta.result import Hunk as Hunk
from graphkit.delta.result import NodeChange as NodeChange
from graphkit.delta.result import PortChange as PortChange
from graphkit.delta.result import Rewire as Rewire
from graphkit.delta.result import WeightChange as WeightChange
