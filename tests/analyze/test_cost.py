"""MACs against values computed by hand, and what is done where they cannot be known."""

import time

import pytest

from graphkit.analyze.cost import cost_of
from graphkit.analyze.inference import infer
from graphkit.errors import CorruptFile
from tests.analyze.graphs import cost, model, seen

BY_HAND = {
    "convolution": (
        "g (float[batch,3,32,32] x, float[8,3,5,5] w) => (y) { y = Conv<pads=[2,2,2,2], strides=[2,2]>(x, w) }",
        f"{16 * 16 * 8 * 3 * 25}*batch",
    ),
    "grouped and dilated convolution": (
        "g (float[2,8,10,10] x, float[16,2,3,3] w) => (y) { y = Conv<group=4, dilations=[2,2]>(x, w) }",
        2 * 16 * 6 * 6 * 2 * 9,
    ),
    "transposed convolution": (
        "g (float[1,4,7,7] x, float[4,6,3,3] w) => (y) { y = ConvTranspose<strides=[2,2]>(x, w) }",
        7 * 7 * 4 * 6 * 9,
    ),
    "convolution in 1-D": ("g (float[n,2,9] x, float[5,2,3] w) => (y) { y = Conv(x, w) }", f"{7 * 5 * 2 * 3}*n"),
    "Gemm with a transposed weight": (
        "g (float[n,16] x, float[4,16] w, float[4] b) => (y) { y = Gemm<transB=1>(x, w, b) }",
        "64*n",
    ),
    "Gemm with a transposed input": ("g (float[16,n] x, float[16,4] w) => (y) { y = Gemm<transA=1>(x, w) }", "64*n"),
    "MatMul of a sequence with a weight": (
        "g (float[batch,seq,8] x, float[8,32] w) => (y) { y = MatMul(x, w) }",
        "256*batch*seq",
    ),
    "attention scores": (
        "g (float[b,4,s,8] q, float[b,4,8,t] k) => (y) { y = MatMul(q, k) }",
        "32*b*s*t",
    ),
    "vector times matrix": ("g (float[8] x, float[3,8,5] w) => (y) { y = MatMul(x, w) }", 3 * 5 * 8),
    "Einsum of two": (
        'g (float[b,h,q,8] x, float[b,h,k,8] z) => (y) { y = Einsum<equation="bhqd,bhkd->bhqk">(x, z) }',
        "8*b*h*k*q",
    ),
    "Einsum with an ellipsis": (
        'g (float[2,3,4] x, float[4,5] z) => (y) { y = Einsum<equation="...i,ij->...j">(x, z) }',
        2 * 3 * 4 * 5,
    ),
    "Einsum of three, from left to right": (
        'g (float[2,3] a, float[3,4] b, float[4,5] c) => (y) { y = Einsum<equation="ij,jk,kl->il">(a, b, c) }',
        2 * 3 * 4 + 2 * 4 * 5,
    ),
    "LSTM in two directions": (
        "g (float[t,b,12] x, float[2,64,12] w, float[2,64,16] r) => (y, h, c) "
        '{ y, h, c = LSTM<hidden_size=16, direction="bidirectional">(x, w, r) }',
        f"{2 * 64 * (12 + 16)}*b*t",
    ),
    "GRU": (
        "g (float[10,1,12] x, float[1,48,12] w, float[1,48,16] r) => (y) { y = GRU<hidden_size=16>(x, w, r) }",
        10 * 48 * 28,
    ),
    "RNN with the batch first": (
        "g (float[b,10,12] x, float[1,16,12] w, float[1,16,16] r) => (y) "
        "{ y = RNN<hidden_size=16, layout=1>(x, w, r) }",
        f"{10 * 16 * 28}*b",
    ),
    "MatMulInteger": ("g (int8[n,8] x, int8[8,3] w) => (y) { y = MatMulInteger(x, w) }", "24*n"),
    "ConvInteger": ("g (uint8[1,2,4,4] x, uint8[3,2,1,1] w) => (y) { y = ConvInteger(x, w) }", 16 * 6),
    "QLinearConv": (
        "g (uint8[1,2,4,4] x, float s, uint8 z, uint8[3,2,1,1] w) => (y) { y = QLinearConv(x, s, z, w, s, z, s, z) }",
        16 * 6,
    ),
    "QLinearMatMul": (
        "g (uint8[n,8] x, float s, uint8 z, uint8[8,3] w) => (y) { y = QLinearMatMul(x, s, z, w, s, z, s, z) }",
        "24*n",
    ),
    "Attention with grouped heads": (
        "g (float[b,8,s,16] q, float[b,2,t,16] k, float[b,2,t,24] v) => (y) { y = Attention(q, k, v) }",
        f"{8 * 16 + 8 * 24}*b*s*t",
    ),
    "weights in 4 bits": (
        "g (float[b,s,64] x, uint8[32,2,16] w, float[64] c) => (y) "
        "{ y = com.microsoft.MatMulNBits<K=64, N=32, bits=4, block_size=32>(x, w, c) }",
        f"{64 * 32}*b*s",
    ),
    "only elementwise": ("g (float[n,8] x) => (y) { a = Relu(x) y = Add(a, x) }", 0),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_macs_are_those_computed_by_hand(case, tmp_path):
    text, macs = BY_HAND[case]
    found = cost(text, tmp_path)
    assert str(found.macs) == str(macs)
    assert found.complete


def test_elementwise_work_is_counted_apart(tmp_path):
    found = cost(
        "g (float[n,8] x, float[8,4] w) => (y) "
        "{ a = MatMul(x, w) b = Relu(a) t = Transpose(b) c = Softmax(t) y = ReduceMean(c) }",
        tmp_path,
    )
    assert str(found.macs) == "32*n"
    assert str(found.elementwise) == "12*n"  # Relu and Softmax: one for each element; ReduceMean: one for each it reads


def test_the_product_of_two_weights_is_not_counted(tmp_path):
    text = "g (float[n,4] x) => (y) <float[4,8] a = {%s}, float[8,4] b = {%s}> { w = MatMul(a, b) y = MatMul(x, w) }"
    numbers = ",".join(["1"] * 32)
    assert str(cost(text % (numbers, numbers), tmp_path).macs) == "16*n"


def test_what_is_unknown_is_said_and_never_guessed(tmp_path):
    found = cost("g (float x, float[8,4] w) => (y) { a = mine.Strange(x) b = MatMul(a, w) y = MatMul(b, w) }", tmp_path)
    assert found.macs == 0
    assert found.unknown == {"Strange": 1, "MatMul": 2}
    assert not found.complete


def test_shapes_follow_through_shape_arithmetic(tmp_path):
    """x.view(x.shape[0], -1, 4) as PyTorch exports it."""
    text = """g (float[batch,seq,8] x, float[4,5] w) => (y)
    <int64[1] zero = {0}, int64[1] rest = {-1}, int64[1] four = {4}>
    { s = Shape(x) first = Gather<axis=0>(s, zero) all = Concat<axis=0>(first, rest, four)
      r = Reshape(x, all) y = MatMul(r, w) }"""
    assert str(cost(text, tmp_path).macs) == "40*batch*seq"


def test_a_size_that_is_divided_is_exact_later(tmp_path):
    text = "g (float[1,1,h,w] x, float[1,1,3,3] k) => (y) { a = Conv<strides=[2,2]>(x, k) y = Relu(a) }"
    found = cost(text, tmp_path)
    assert "floor((h + 1)/(2))" in str(found.macs)
    for h, w in ((8, 9), (31, 30)):
        assert cost(text, tmp_path, {"h": h, "w": w}).macs == ((h - 3) // 2 + 1) * ((w - 3) // 2 + 1) * 9


def test_a_stale_shape_in_the_file_is_not_believed(tmp_path):
    """What onnx.shape_inference left behind when the batch became dynamic; onnxsim counts 1 row here."""
    made = model("g (float[batch,8] x, float[8,4] w) => (float[1,4] y) <float[1,4] a> { a = MatMul(x, w) y = Relu(a) }")
    table = infer(seen(made, tmp_path))
    assert str(cost_of(table).macs) == "32*batch"
    assert any("`a` is [1, 4], but its operator makes [batch, 4]" in note for note in table.shared.notes)


def test_names_of_sizes_may_have_hyphens_and_question_marks(tmp_path):
    made = model("g (float[a,b,8] x, float[8,4] w) => (y) { y = MatMul(x, w) }")
    for at, name in enumerate(("batch-size", "?")):
        made.graph.input[0].type.tensor_type.shape.dim[at].dim_param = name
    assert str(cost_of(infer(seen(made, tmp_path))).macs) == "32*batch-size*x.1"


# --- bodies ------------------------------------------------------------------------------------------------------

IF = """g (float[n,8] x, float[8,4] w, bool c) => (y) {{ y = If (c) <
    then_branch = t () => (float[n,4] a) {{ a = MatMul(x, w) }},
    else_branch = e () => (float[n,4] b) {{ {} }} > }}"""


def test_branches_that_cost_the_same_count_once(tmp_path):
    found = cost(IF.format("m = MatMul(x, w) b = Identity(m)"), tmp_path)
    assert str(found.macs) == "32*n"
    assert found.complete


def test_branches_that_cost_differently_are_told_and_not_counted(tmp_path):
    found = cost(IF.format("m = MatMul(x, w) v = Transpose(w) k = MatMul(m, v) b = MatMul(k, w)"), tmp_path)
    assert found.macs == 0
    assert found.notes == ["If ``: its branches cost 32*n and 96*n MACs; neither is counted"]


LOOP = """g (float[4,8] x, float[8,8] w, int64 count) => (y) <int64 five = {{5}}, bool yes = {{1}}>
    {{ y = Loop ({}, yes, x) <body = b (int64 i, bool c, float[4,8] s) => (bool d, float[4,8] r)
        {{ d = Identity(c) r = MatMul(s, w) }}> }}"""


def test_a_loop_of_known_length_counts_every_run(tmp_path):
    found = cost(LOOP.format("five"), tmp_path)
    assert (found.macs, found.complete) == (5 * 4 * 8 * 8, True)


def test_a_loop_that_depends_on_data_is_told_and_not_counted(tmp_path):
    found = cost(LOOP.format("count"), tmp_path)
    assert (found.macs, found.complete) == (0, False)
    assert "256 MACs a run, and how often it runs depends on data" in found.notes[0]


def test_a_scan_runs_once_for_each_slice(tmp_path):
    text = """g (float[2,8] s, float[t,2,8] x, float[8,8] w) => (e, o) { e, o = Scan (s, x) <num_scan_inputs = 1,
        body = b (float[2,8] h, float[2,8] i) => (k, j) { a = Add(h, i) k = MatMul(a, w) j = Identity(k) }> }"""
    assert str(cost(text, tmp_path).macs) == "128*t"


def test_functions_count_at_every_call_with_the_types_of_the_call(tmp_path):
    functions = '<domain: "mine", opset_import: ["" : 21]> Twice (x, w) => (y) { a = MatMul(x, w) y = MatMul(a, w) }'
    text = "g (float[n,8] x, float[3,8] z, float[8,8] w) => (a, b) { a = mine.Twice(x, w) b = mine.Twice(z, w) }"
    assert str(cost(text, tmp_path, functions=functions).macs) == "128*n + 384"


def test_functions_that_expand_to_two_to_the_thirty_calls_are_counted_at_once(tmp_path):
    rows = ['<domain: "mine", opset_import: ["" : 21]> F0 (x, w) => (y) { y = MatMul(x, w) }']
    for depth in range(1, 31):
        call = f"mine.F{depth - 1}"
        head = '<domain: "mine", opset_import: ["" : 21, "mine" : 1]>'
        rows.append(f"{head} F{depth} (x, w) => (y) {{ a = {call}(x, w) y = {call}(a, w) }}")
    started = time.process_time()
    found = cost("g (float[1,2] x, float[2,2] w) => (y) { y = mine.F30(x, w) }", tmp_path, functions="\n".join(rows))
    assert found.macs == 4 * 2**30
    assert time.process_time() - started < 5


def test_a_function_that_calls_itself_is_an_error(tmp_path):
    functions = '<domain: "mine", opset_import: ["" : 21, "mine" : 1]> F (x) => (y) { y = mine.F(x) }'
    with pytest.raises(CorruptFile, match="calls itself"):
        cost("g (float[1] x) => (y) { y = mine.F(x) }", tmp_path, functions=functions)


def test_an_attribute_that_a_function_is_given_counts(tmp_path):
    functions = (
        '<domain: "mine", opset_import: ["" : 21]> F <swap> (x, w) => (y) { y = Gemm<transB: int = @swap>(x, w) }'
    )
    text = "g (float[n,8] x, float[4,8] w) => (y) { y = mine.F<swap=1>(x, w) }"
    assert str(cost(text, tmp_path, functions=functions).macs) == "32*n"
