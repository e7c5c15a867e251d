"""Loops that step through a recurrent cell, written by hand, and the same in numpy: material for the tests."""

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import numpy_helper, parser

from graphkit.model import Model, Origin, SourceLine, set_provenance

STEPS = {
    "RNN": "pre = Add(xb, g)  new = Tanh(pre)",
    "GRU after": """
        gb = Add(g, rb)
        az, ar, an = Split <axis = -1, num_outputs = 3> (xb)
        gz, gr, gn = Split <axis = -1, num_outputs = 3> (gb)
        sz = Add(az, gz)  z = Sigmoid(sz)
        sr = Add(ar, gr)  r = Sigmoid(sr)
        rg = Mul(r, gn)   sn = Add(an, rg)  n = Tanh(sn)
        rest = Sub(one, z)  fresh = Mul(rest, n)  old = Mul(z, h)
        new = Add(old, fresh)""",
    "GRU before": """
        az, ar, an = Split <axis = -1, num_outputs = 3> (xb)
        gz, gr, gn = Split <axis = -1, num_outputs = 3> (g)
        sz = Add(az, gz)  z = Sigmoid(sz)
        sr = Add(ar, gr)  r = Sigmoid(sr)
        rh = Mul(r, h)    rz, rr, rn = Split <axis = -1, num_outputs = 3> (R)
        rg = MatMul(rh, rn)  sn = Add(an, rg)  n = Tanh(sn)
        difference = Sub(h, n)  some = Mul(z, difference)
        new = Add(n, some)""",
    "LSTM": """
        s = Add(xb, g)
        si, sf, sg, so = Split <axis = -1, num_outputs = 4> (s)
        a = Sigmoid(si)  f = Sigmoid(sf)  n = Tanh(sg)  o = Sigmoid(so)
        fc = Mul(f, c)   add = Mul(a, n)  newc = Add(fc, add)
        squashed = Tanh(newc)  new = Mul(o, squashed)""",
}
GATES = {"RNN": 1, "GRU after": 3, "GRU before": 3, "LSTM": 4}

HEAD = """
    xt = Gather <axis = 0> (seq, i)
    x_ = MatMul(xt, W)
    xb = Add(x_, b)
    g = MatMul(h, R)
"""


@dataclass
class Written:
    """A Loop over a cell.

    Attributes:
        cell: A key of `STEPS`.
        masked: Whether there is a mask [batch, time], and how it selects: `where` or `product`.
        zero_output: Whether a masked step puts out zero, not the last output.
        given: Whether the initial states are inputs; else they are zero.
        step: Text of the step, where it is not that of the cell.
        condition: Text that makes `go` in the body.
        trips: Text that makes `trips`.
    """

    cell: str
    batch: int = 2
    inputs: int = 3
    hidden: int = 4
    masked: str = ""
    zero_output: bool = False
    given: bool = False
    step: str = ""
    condition: str = "go = Identity(go_)"
    trips: str = "length = Shape <start = 0, end = 1> (seq)  trips = Squeeze(length)"
    output: str = "out = Identity(h2)"
    seed: int = 0
    weights: dict[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        wide = GATES[self.cell] * self.hidden
        shapes = {"W": (self.inputs, wide), "R": (self.hidden, wide), "b": (wide,), "rb": (wide,)}
        self.weights = {k: rng.normal(0, 0.7, s).astype(np.float32) for k, s in shapes.items()}

    def model(self) -> Model:
        lstm, n = self.cell == "LSTM", self.hidden
        states = (
            f"float[N,{n}] h" + (f", float[N,{n}] c" if lstm else "") + (f", float[N,{n}] p" if self.masked else "")
        )
        after = f"float[N,{n}] h2" + (f", float[N,{n}] c2" if lstm else "")
        after += f", float[N,{n}] p2" if self.masked else ""
        body = HEAD + (self.step or STEPS[self.cell]) + self._updates() + self.condition
        names = ", ".join(["h0", *(["c0"] if lstm else []), *(["zeros"] if self.masked else [])])
        finals = ", ".join(["h_end", *(["c_end"] if lstm else []), *(["p_end"] if self.masked else [])])
        outer = "float[B,T,I] x" + (", bool[B,T] mask" if self.masked else "")
        outer += f", float[B,{n}] h0" + (f", float[B,{n}] c0" if lstm else "") if self.given else ""
        text = f"""<ir_version: 9, opset_import: ["": 18]>
        g ({outer}) => (float[T,B,{n}] y, float[B,{n}] h_end{f", float[B,{n}] c_end" if lstm else ""}) {{
            seq = Transpose <perm = [1, 0, 2]> (x)
            {self.trips}
            rows = Shape <start = 1, end = 2> (seq)
            hshape = Concat <axis = 0> (rows, hsize)
            {"zeros = Expand(zero, hshape)" if self.masked else ""}
            {"" if self.given else "h0 = Expand(zero, hshape)" + ("  c0 = Expand(zero, hshape)" if lstm else "")}
            {"column = Unsqueeze(mask, last)  masks = Transpose <perm = [1, 0, 2]> (column)" if self.masked else ""}
            {finals}, y = Loop <body = step (int64 i, bool go_, {states}) => (bool go, {after}, float[N,{n}] out) {{
                {body}
            }}> (trips, yes, {names})
        }}"""
        proto = parser.parse_model(text)
        constants = {"one": np.float32(1), "zero": np.float32(0), "yes": np.array(True), "two": np.float32(2)}
        constants |= {"hsize": np.array([n]), "last": np.array([-1]), "seven": np.array(7), "half": np.float32(0.5)}
        for name, value in {**self.weights, **constants}.items():
            proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        made = ir.from_proto(proto)
        for k, node in enumerate(made.graph.all_nodes()):
            node.name = f"node{k}"
            set_provenance(node, [SourceLine("layer", "net.py", k + 1)])
        return Model(made, Origin("test"))

    def _updates(self) -> str:
        pairs = [("h2", "new", "h"), *([("c2", "newc", "c")] if self.cell == "LSTM" else [])]
        if not self.masked:
            return "".join(f"  {a} = Identity({b})" for a, b, _ in pairs) + f"  {self.output}  "
        pairs.append(("p2", "new", "zero" if self.zero_output else "p"))
        text = "  m = Gather <axis = 0> (masks, i)  nm = Not(m)  m1 = Cast <to = 1> (m)  m0 = Cast <to = 1> (nm)"
        for a, b, c in pairs:
            chosen = f"{a} = Where(m, {b}, {c})"
            product = f"{a}_1 = Mul(m1, {b})  {a}_0 = Mul({c}, m0)  {a} = Add({a}_1, {a}_0)"
            text += "  " + (chosen if self.masked == "where" else product)
        return text + "  out = Identity(p2)  "

    def reference(self, x, mask=None, h0=None, c0=None) -> list[np.ndarray]:
        """Outputs [time, batch, hidden], and the last states: the mask as Keras means it."""
        batch, time, _ = x.shape
        h = np.zeros((batch, self.hidden), np.float32) if h0 is None else h0
        c = np.zeros((batch, self.hidden), np.float32) if c0 is None else c0
        out, outputs = np.zeros_like(h), np.zeros((time, batch, self.hidden), np.float32)
        for t in range(time):
            new, newc = self._stepped(x[:, t], h, c)
            m = np.ones((batch, 1), bool) if mask is None else mask[:, t, None]
            out = np.where(m, new, 0 if self.zero_output else out)
            h, c, outputs[t] = np.where(m, new, h), np.where(m, newc, c), out
        return [outputs, h, c] if self.cell == "LSTM" else [outputs, h]

    def _stepped(self, x, h, c):
        w, r, b, rb = (self.weights[k] for k in ("W", "R", "b", "rb"))
        a, g = x @ w + b, h @ r
        if self.cell == "RNN":
            return np.tanh(a + g), c
        if self.cell == "LSTM":
            i, f, n, o = np.split(a + g, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(n)
            return sigmoid(o) * np.tanh(c), c
        n_h = self.hidden
        if self.cell == "GRU after":
            g = g + rb
        z, reset = sigmoid((a + g)[:, :n_h]), sigmoid((a + g)[:, n_h : 2 * n_h])
        inner = reset * g[:, 2 * n_h :] if self.cell == "GRU after" else (reset * h) @ r[:, 2 * n_h :]
        return z * h + (1 - z) * np.tanh(a[:, 2 * n_h :] + inner), c


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def run(model: Model, **inputs: np.ndarray) -> list[np.ndarray]:
    """Its outputs on ONNX Runtime, which changes nothing in the graph."""
    proto = model.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, inputs)
