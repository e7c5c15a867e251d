"""Which operators NVIDIA's ONNX parser has, and what to do about those that it has not.

Measured: `OnnxParser.supports_operator` of TensorRT-RTX 1.7.1 for every name of onnx 1.23; TensorRT's parser is made
from the same source (github.com/onnx/onnx-tensorrt), with more plugins, which `MORE_IN_TENSORRT` names.
"""

from __future__ import annotations

_TAKEN = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization
    BlackmanWindow Cast CastLike CausalConvWithState Ceil Celu Clip Concat Constant ConstantOfShape Conv
    ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand
    EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool
    GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HammingWindow HannWindow HardSigmoid
    HardSwish Hardmax Identity If ImageScaler InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization
    LeakyRelu Less LessOrEqual LinearAttention Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean
    MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad
    ParametricSoftplus Pow QuantizeLinear RMSNormalization RNN RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding
    Round STFT ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign
    SimplifiedLayerNormalization Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub
    Sum Swish Tan Tanh TensorScatter ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
    """

TAKEN = frozenset(_TAKEN.split())
"""Operators that the parser has by name, in whatever domain: it does not look at the domain."""

WITHOUT_PLUGIN = frozenset(("RoiAlign", "NonZero"))
"""Of these, the ones whose plugin TensorRT-RTX 1.7.1 does not bring along."""

_CONTRIB_TAKEN = """
    Gelu GridSample MultiHeadAttention Pad QuantizeLinear DequantizeLinear Range RotaryEmbedding Trilu
    SimplifiedLayerNormalization SkipSimplifiedLayerNormalization GatherND
    """

CONTRIB_TAKEN = frozenset(_CONTRIB_TAKEN.split())
"""Of `com.microsoft`. The parser also knows GroupQueryAttention, MatMulNBits, LinearAttention, QMoE and
CausalConvWithState by name, but their plugins are not there."""

_OPTIMISED = "save the model before ONNX Runtime's optimiser, or at its level basic: the extended level puts it there"
_STATIC_QDQ = "quantise with QuantizeLinear and DequantizeLinear around float operators (format QDQ), scales fixed"
_SEQUENCE = "write the code with torch.chunk, split or stack on tensors of fixed number, so that no list remains"
_RANDOM = "draw the random numbers outside the model, and pass them as an input"
_INTEGER = "compute it with floor division and multiplication, or outside the model"
_OUTSIDE = "compute it before or after the engine, in the program that runs it"

FIXES: dict[str, str] = {
    **dict.fromkeys(("BiasGelu", "FastGelu", "QuickGelu", "FusedMatMul", "FusedGemm", "FusedConv"), _OPTIMISED),
    **dict.fromkeys(("SkipLayerNormalization", "EmbedLayerNormalization", "NhwcConv", "GroupNorm"), _OPTIMISED),
    **dict.fromkeys(("ReorderInput", "ReorderOutput", "Attention", "FusedMatMulActivation"), _OPTIMISED),
    **dict.fromkeys(("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"), _STATIC_QDQ),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul", "QGemm"), _STATIC_QDQ),
    **dict.fromkeys(("SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase"), _SEQUENCE),
    **dict.fromkeys(("SequenceInsert", "SequenceLength", "SequenceMap"), _SEQUENCE),
    **dict.fromkeys(("SplitToSequence", "ConcatFromSequence"), _SEQUENCE),
    **dict.fromkeys(("Bernoulli", "Multinomial"), _RANDOM),
    **dict.fromkeys(("BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "BitCast"), _INTEGER),
    **dict.fromkeys(("StringNormalizer", "StringConcat", "StringSplit", "RegexFullMatch", "TfIdfVectorizer"), _OUTSIDE),
    **dict.fromkeys(("ImageDecoder", "MelWeightMatrix", "Det"), _OUTSIDE),
    "Unique": "the number of results depends on the data: compute it outside the engine",
    "Compress": "multiply by a mask, or use Where, so that the shape does not depend on the data",
    "NonZero": "use Where with the mask itself; indices of unknown number do not fit an engine of TensorRT-RTX",
    "RoiAlign": "use GridSample, or build with TensorRT, which has the plugin",
    "DFT": "use STFT, or multiply by the matrix of the transform",
    "Col2Im": "use ConvTranspose with a constant kernel",
    "AffineGrid": "compute the grid with MatMul, and keep GridSample",
    "CumProd": "sum logarithms with CumSum where the numbers are positive",
}
"""What to do instead, by operator."""

ANOTHER = "replace it in the model by operators that the target has, or keep that part outside with --partition"
