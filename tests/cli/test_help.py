"""The help of every command, as it is printed on a terminal of 80 columns."""

import subprocess
import sys

import pytest

from graphkit_cli.main import COMMANDS

HELP = {
    "graphkit --help": """\
Usage: graphkit [OPTIONS] COMMAND [ARGS]...

  Convert trained models to ONNX and TensorRT, with proof that they still
  compute the same thing.

  Exit codes: 0 done, 1 the answer is no, 2 a bad request or file, 3 this
  machine lacks something, 4 a bug or a crash in native code.

Options:
  --version  Print the version.
  --help     Show this message and exit.

Commands:
  convert   Convert a model to ONNX or a TensorRT engine, and prove it equal.
  validate  Compare models on the same inputs, and say whether they agree.
  locate    Find the first tensor at which two models part.
  reduce    Find a smallest part of a model that still fails.
  optimize  Rewrite an ONNX graph with fewer nodes, and prove it the same.
  quantize  Bring an ONNX model to fp16, bf16, int8, fp8 or int4, and compare.
  edit      Change what an ONNX model takes and gives; cut, join, mark.
  build     Build an engine from an ONNX file, as it is.
  refit     Put new weights into a TensorRT engine, and compare.
  cache     Look at the engines that were built before, or remove them.
  bench     Time models side by side, on the same inputs.
  inspect   Say what a model file is, what it holds and what it costs.
  check     Say whether a target will build a model, or why not.
  hash      Print digests that renaming and reordering do not change.
  diff      Say how two models differ, whatever their values are called.
  textconv  Print a model as text that renaming does not change, for git.
  git-diff  Show a changed model, as git's external diff.
  git       Let git show changes of models.
  doctor    Say what this machine can build and run, and what it lacks.
  explain   Explain an error code, such as GK104.
""",
    "graphkit convert --help": """\
Usage: graphkit convert [OPTIONS] SRC

  Convert the model SRC and compare the result with it.

  SRC is a PyTorch file (TorchScript, .pt2, pickled module, weights with
  --model), a TensorFlow one (SavedModel, .keras, .h5, GraphDef, .tflite), an
  ONNX file, or package.module:callable.

Options:
  --to TARGET                     onnx; trt: an engine; of TensorFlow models
                                  also saved_model, tflite.  [default: onnx]
  -o, --output PATH               File to write.  [default: SRC.onnx/.engine
                                  here]
  --shape X=DIMS                  An input's shape:
                                  x=batch,3,224,224[:float32].
  --dim D=RANGE                   A dimension's range, min:opt:max:
                                  batch=1:4:8.
  --input X=VALUE                 An input's value: x=file.npy, or sr=16000.
  --opset N                       ONNX operator set.  [default: graphkit
                                  chooses]  [x>=1]
  --via [export|script|trace]     Way of capture.  [default: the safest]
  --submodule PATH                Convert a part of the model: decoder.layers.
  --model PKG.MOD:FUNC            The code that builds the model, for a file
                                  of weights.
  --signature NAME                Which signature of a SavedModel or TFLite
                                  file.
  --output-name T                 An output of a GraphDef: scores, split:1.
  --state [inputs]                TensorFlow variables as inputs and outputs.
  --layout nchw[:X]               TensorFlow's images as NCHW; X: that one
                                  only.
  --trust                         Allow SRC to run the code that it names.
  --precision [fp16|bf16|int8|fp8|int4]
                                  Precision of the layers that multiply.
  --data D                        Calibration data: a folder, FILE.npz, or
                                  package.module:function.
  --method [minmax|entropy|percentile]
                                  int8, fp8: how scales follow from the data.
                                  [default: minmax]
  --uncalibrated                  int8, fp8: guess the scales, without data.
  --keep LIST                     Nodes that stay in float32.
  --block N                       int4: weights to a scale.  [default: 32]
                                  [x>=1]
  --io-types                      fp16, bf16: inputs and outputs too.
  --max-drop X                    Error allowed; what has to stay in float32
                                  is searched.
  --metric [cosine|l2]            Error of --max-drop: 1 - cosine, or
                                  relative.  [default: cosine]
  --freeze X=VALUE                Make an input a constant: sr=16000,
                                  mask=file.npy.
  --optimize / --no-optimize      Simplify the graph.  [default: optimize]
  --backend [rtx|tensorrt]        Engine builder.  [default: what is there]
  --cc LIST                       Compute capabilities: 8.6,8.9,12.0; all.
                                  [default: portable]
  --tf32 / --no-tf32              Let float32 layers use TF32.  [default:
                                  tf32]
  --profile RANGES                An optimization profile:
                                  batch=1:4:8,n=2*batch; again for more; auto:
                                  found in the graph.
  --cache / --no-cache            Take an engine that was built before.
                                  [default: cache]
  --workspace MIB                 Memory that kernels may take.  [x>=1]
  --level N                       TensorRT's optimisation level, 0 to 5.
                                  [0<=x<=5]
  --timing-cache F                TensorRT's measured kernels, read and
                                  written.
  --version-compatible            Later releases of TensorRT may run the
                                  engine.
  --hardware LEVEL                Other GPUs may run it: ampere-plus, same-
                                  compute-capability.
  --refittable                    The engine takes new weights; see refit.
  --strip-weights                 Leave out the weights that refit puts back.
  --seed N                        Seed of the sample inputs.  [default: 0;
                                  x>=0]
  --json                          Print the result as JSON (schema
                                  graphkit.convert/1).
  -q, --quiet                     No progress on stderr.
  -v, --verbose                   More in the summary, and libraries'
                                  warnings; -vv: tracebacks.
  --help                          Show this message and exit.
""",
    "graphkit validate --help": """\
Usage: graphkit validate [OPTIONS] REF CAND...

  Compare every CAND with REF on the same inputs.

  Each is an ONNX file, a model as for convert, or an engine. Exits with 0 if
  all are equal, 1 if one differs, 3 if none differs but one could not be run
  here.

Options:
  --shape X=DIMS         An input's shape: x=batch,3,224,224[:float32].
  --dim D=RANGE          A dimension's range, min:opt:max: batch=1:4:8.
  --input X=VALUE        An input's value: x=file.npy; or all: FILE.npz,
                         FOLDER.
  --data PKG.MOD:FUNC    Your generator of inputs: dicts of arrays.
  --save-inputs F.npz    Keep the inputs that were compared on.
  --seed N               Seed of drawn inputs.  [default: 0; x>=0]
  --ort-level [off|all]  ONNX Runtime's optimisations for CAND; REF runs
                         without.  [default: all]
  --rtol [OUT=]R         Relative tolerance.  [default: by dtype]
  --atol [OUT=]A         Absolute tolerance.  [default: by dtype and
                         magnitude]
  --metric [OUT:]COND    What has to hold too: 'snr>=40', 'top5>=0.99'.
  --submodule PATH       Use a part of PyTorch models: decoder.layers.
  --model PKG.MOD:FUNC   The code that builds the model, for a file of
                         weights.
  --signature NAME       Which signature of a SavedModel or TFLite file.
  --output-name T        An output of a GraphDef: scores, split:1.
  --state [inputs]       TensorFlow variables as inputs and outputs.
  --layout nchw[:X]      TensorFlow's images as NCHW; X: that one only.
  --trust                Allow files to run the code that they name.
  --save-certificate F   Keep the report: CAND.parity.json, beside CAND.
  --certificate F        Hash again the files that a .parity.json speaks of.
  --junit F              Write JUnit XML.
  --markdown F           Write Markdown, for a comment on a pull request.
  --github               Print annotations for GitHub on stderr.
  --json                 Print the result as JSON (schema
                         graphkit.validate/1).
  -q, --quiet            No progress on stderr.
  -v, --verbose          More in the summary, and libraries' warnings; -vv:
                         tracebacks.
  --help                 Show this message and exit.
""",
    "graphkit locate --help": """\
Usage: graphkit locate [OPTIONS] REF CAND

  Find the first tensor at which CAND parts from REF.

  CAND is an ONNX file, or an engine that convert wrote (with a GPU); REF is
  an ONNX file, or a model as for convert. Exits with 0 if they are equal, 1
  if the place is found, 2 if they cannot be compared.

Options:
  --shape X=DIMS        An input's shape: x=batch,3,224,224[:float32].
  --dim D=RANGE         A dimension's range, min:opt:max: batch=1:4:8.
  --input X=VALUE       An input's value: x=file.npy, or sr=16000.
  --submodule PATH      Use a part of REF: decoder.layers.
  --model PKG.MOD:FUNC  The code that builds REF, for a file of weights.
  --signature NAME      Which signature of a SavedModel or TFLite file.
  --output-name T       An output of a GraphDef: scores, split:1.
  --state [inputs]      TensorFlow variables as inputs and outputs.
  --layout nchw[:X]     TensorFlow's images as NCHW; X: that one only.
  --trust               Allow REF to run the code that it names.
  --seed N              Seed of the sample inputs.  [default: 0; x>=0]
  --plot F.svg          Draw the error along depth.
  --json                Print the result as JSON (schema graphkit.locate/1).
  -q, --quiet           No progress on stderr.
  -v, --verbose         Every tensor that was compared; -vv: tracebacks.
  --help                Show this message and exit.
""",
    "graphkit reduce --help": """\
Usage: graphkit reduce [OPTIONS] MODEL

  Find a smallest part of MODEL that fails as it does.

  MODEL is an ONNX file. The part, its inputs and how to see the failure are
  written to a folder, ready to attach to a bug report. Exits with 1 if MODEL
  does not fail, or not always.

Options:
  --check CMD                 Command that fails on the model: 'python
                              check.py {model} {inputs}'.
  --until [parity|build|ort]  What fails, instead of a command.
  --against RIGHT             ONNX file that is right.  [default: MODEL, not
                              optimised]
  -o, --output PATH           Folder to write.  [default: MODEL-reduced here]
  --anonymize                 Random weights and inputs, neutral names.
  --shape X=DIMS              An input's shape: x=batch,3,224,224[:float32].
  --dim D=RANGE               A dimension's range, min:opt:max: batch=1:4:8.
  --input X=VALUE             An input's value: x=file.npy; or all: FILE.npz,
                              FOLDER.
  --seed N                    Seed of values.  [default: 0; x>=0]
  --backend [rtx|tensorrt]    Engine builder.  [default: what is there]
  --cc LIST                   Compute capabilities of the engine:
                              8.6,8.9,12.0.
  --timeout S                 Seconds that one trial may take; not for builds.
                              [default: 300]  [x>0]
  --max-trials N              Most trials.  [default: 500; x>=1]
  --max-seconds S             Most time.  [default: any]  [x>0]
  --json                      Print the result as JSON (schema
                              graphkit.reduce/1).
  -q, --quiet                 No progress on stderr.
  -v, --verbose               Libraries' warnings; -vv: tracebacks.
  --help                      Show this message and exit.
""",
    "graphkit optimize --help": """\
Usage: graphkit optimize [OPTIONS] [MODEL]

  Rewrite MODEL, an ONNX file, with fewer nodes, and prove that it computes
  the same.

  A rule that breaks the result is left out and named. Exits with 1 if it
  cannot be proved.

Options:
  -o, --output PATH            File to write.  [default: MODEL.opt.onnx here]
  --level N                    0: for the target; 1: the same arithmetic; 2:
                               fusions.  [default: 2; 0<=x<=2]
  --target [onnx|trt|rtx|ort]  What takes the result; onnx: anything.
                               [default: onnx]
  --opset N                    Opset of the result.  [default: the newest]
                               [x>=1]
  --only LIST                  These rules or groups alone.
  --skip LIST                  All but these rules or groups.
  --onnxsim                    Let onnxsim go first; it is kept where it
                               leaves fewer nodes.
  --explain                    Say which rule fired where, and where one
                               nearly did.
  --verify [none|final|each]   Prove the result, every rule, or nothing.
                               [default: final]
  --shape X=DIMS               Names for an input's dimensions: x=batch,3,h,w.
  --dim D=RANGE                Range of a dimension, to prove in: batch=1:4:8.
  --input X=VALUE              An input's value, to prove on: x=file.npy,
                               sr=16000.
  --seed N                     Seed of values.  [default: 0; x>=0]
  --rules                      List the rules, and do nothing.
  --json                       Print the answer as JSON (schema
                               graphkit.optimize/1).
  -q, --quiet                  No progress on stderr.
  -v, --verbose                Libraries' warnings; -vv: tracebacks.
  --help                       Show this message and exit.
""",
    "graphkit quantize --help": """\
Usage: graphkit quantize [OPTIONS] MODEL

  Bring MODEL, an ONNX file, to a lower precision, and compare it with what it
  was.

  Says which layers stay in float32 and why. Exits with 1 if nothing would run
  in that precision, or if the result differs by more than it may; nothing is
  written then.

Options:
  -o, --output PATH               File to write.  [default:
                                  MODEL.PRECISION.onnx here]
  --precision [fp16|bf16|int8|fp8|int4]
                                  Precision of the layers that multiply.
                                  [required]
  --data D                        Calibration data: a folder, FILE.npz, or
                                  package.module:function.
  --method [minmax|entropy|percentile]
                                  int8, fp8: how scales follow from the data.
                                  [default: minmax]
  --uncalibrated                  int8, fp8: guess the scales, without data.
  --keep LIST                     Nodes that stay in float32.
  --block N                       int4: weights to a scale.  [default: 32]
                                  [x>=1]
  --io-types                      fp16, bf16: inputs and outputs too.
  --max-drop X                    Error allowed; what has to stay in float32
                                  is searched.
  --metric [cosine|l2]            Error of --max-drop: 1 - cosine, or
                                  relative.  [default: cosine]
  --plot F.svg                    Draw the search.
  --shape X=DIMS                  Names for an input's dimensions:
                                  x=batch,3,h,w.
  --dim D=RANGE                   Range of a dimension, to compare in:
                                  batch=1:4:8.
  --input X=VALUE                 An input's value, to compare on: x=file.npy.
  --seed N                        Seed of values.  [default: 0; x>=0]
  --json                          Print the answer as JSON (schema
                                  graphkit.quantize/1).
  -q, --quiet                     No progress on stderr.
  -v, --verbose                   Libraries' warnings; -vv: tracebacks.
  --help                          Show this message and exit.
""",
    "graphkit edit --help": """\
Usage: graphkit edit [OPTIONS] COMMAND [ARGS]...

  Change what an ONNX model takes and gives, take parts of it, or join two.

  Each command writes a new file. What it cannot do it refuses; nothing is
  guessed.

Options:
  --help  Show this message and exit.

Commands:
  cut        Let a model end at inner tensors.
  extract    Write the part of a model between tensors.
  fp16-io    Let a model take and give float16 instead of float32.
  freeze     Make inputs constants: sr=16000, mask=mask.npy.
  layout     Let a model take or give a tensor with its axes turned.
  mark       Let a model give inner tensors too.
  merge      Write one model of two: outputs of FIRST feed inputs of SECOND.
  nms        Add non-maximum suppression of boxes.
  normalise  Put (x * scale - mean) / std before an input.
  rename     Give tensors other names.
  resize     Let an input of fixed height and width take images of any size.
  set-dim    Fix dimensions, batch=8, or give them another name, s77=seq.
  softmax    Turn an output into probabilities.
  split      Write the two parts of a model before and after tensors.
  top-k      Give the K largest values of an output, and Y_indices.
""",
    "graphkit build --help": """\
Usage: graphkit build [OPTIONS] MODEL

  Build an engine from MODEL, an ONNX file, as it is.

  One stage of convert: only what the library does not take is rewritten, and
  nothing is compared (parity: not run). An engine that was built from the
  same file with the same options comes from the cache. Exits with 1 if some
  of the targets cannot have one.

Options:
  --to [trt]                An engine.  [default: trt]
  -o, --output PATH         File to write.  [default: MODEL.engine here]
  --dim D=RANGE             A dimension's range, min:opt:max: batch=1:4:8.
  --backend [rtx|tensorrt]  Engine builder.  [default: what is there]
  --cc LIST                 Compute capabilities: 8.6,8.9,12.0; all.
                            [default: portable]
  --tf32 / --no-tf32        Let float32 layers use TF32.  [default: tf32]
  --profile RANGES          An optimization profile: batch=1:4:8,n=2*batch;
                            again for more; auto: found in the graph.
  --cache / --no-cache      Take an engine that was built before.  [default:
                            cache]
  --workspace MIB           Memory that kernels may take.  [x>=1]
  --level N                 TensorRT's optimisation level, 0 to 5.  [0<=x<=5]
  --timing-cache F          TensorRT's measured kernels, read and written.
  --version-compatible      Later releases of TensorRT may run the engine.
  --hardware LEVEL          Other GPUs may run it: ampere-plus, same-compute-
                            capability.
  --refittable              The engine takes new weights; see refit.
  --strip-weights           Leave out the weights that refit puts back.
  --json                    Print the result as JSON (schema
                            graphkit.build/1).
  -q, --quiet               No progress on stderr.
  -v, --verbose             Libraries' warnings; -vv: tracebacks.
  --help                    Show this message and exit.
""",
    "graphkit refit --help": """\
Usage: graphkit refit [OPTIONS] ENGINE WEIGHTS

  Put the weights of an ONNX file into a refittable ENGINE of TensorRT's, and
  compare them.

  WEIGHTS is the ONNX file that convert makes of the new checkpoint, with the
  options that made ENGINE. The result is written if it computes what WEIGHTS
  does. Needs the GPU.

Options:
  -o, --output PATH  File to write.  [required]
  --seed N           Seed of inputs.  [default: 0; x>=0]
  --json             Print the result as JSON (schema graphkit.refit/1).
  -v, --verbose      -vv: tracebacks.
  --help             Show this message and exit.
""",
    "graphkit cache --help": """\
Usage: graphkit cache [OPTIONS] COMMAND [ARGS]...

  Look at the engines that were built before, or remove them.

  They are in GRAPHKIT_CACHE_DIR, else in graphkit in the user's cache folder.

Options:
  --help  Show this message and exit.

Commands:
  dir    Print the folder of the cache.
  list   List the engines, the last used first.
  prune  Remove engines: all, or the old ones, or down to a size.
""",
    "graphkit bench --help": """\
Usage: graphkit bench [OPTIONS] MODEL...

  Time every MODEL on the same inputs, taking turns.

  Each is an ONNX file, a model as for convert, or an engine. That outputs
  differ is said, and no error: validate answers that. Exits with 0 if all
  were timed, 3 if one could not be run here, else as the failure of one says.

Options:
  --shape X=DIMS         An input's shape: x=batch,3,224,224[:float32].
  --dim D=RANGE          A dimension's range, min:opt:max: batch=1:4:8.
  --input X=VALUE        An input's value: x=file.npy, or sr=16000.
  --at D=N[,D=N]         Sizes to time at; again for more points.  [default:
                         opt of --dim]
  --runs N               Timed runs of each side at each point, instead of
                         --seconds.
  --seconds S            Time for each side at each point.  [default: 2]
  --warm-up N            Runs that are not counted.  [default: 3]
  --threads N            For each side.  [default: as many as processors]
  --provider [cpu|cuda]  What ONNX Runtime runs on; again for both.  [default:
                         cpu]
  --against-source       Time the file beside it, too, that MODEL was
                         converted from.
  --seed N               Seed of drawn inputs.  [default: 0; x>=0]
  --submodule PATH       Use a part of PyTorch models: decoder.layers.
  --model PKG.MOD:FUNC   The code that builds the model, for a file of
                         weights.
  --signature NAME       Which signature of a SavedModel or TFLite file.
  --output-name T        An output of a GraphDef: scores, split:1.
  --state [inputs]       TensorFlow variables as inputs and outputs.
  --layout nchw[:X]      TensorFlow's images as NCHW; X: that one only.
  --trust                Allow files to run the code that they name.
  --plot F.svg           Draw the times.
  --json                 Print the result as JSON (schema graphkit.bench/1).
  -q, --quiet            No progress on stderr.
  -v, --verbose          Libraries' warnings; -vv: tracebacks.
  --help                 Show this message and exit.
""",
    "graphkit inspect --help": """\
Usage: graphkit inspect [OPTIONS] MODEL

  Say what the file MODEL is, what it holds and what it costs.

  ONNX, TorchScript, .pt2, state_dict, safetensors, SavedModel, .keras,
  GraphDef, TFLite, or a TensorRT engine. Nothing in it is run.

Options:
  --by [module]                Parameters and cost as a tree.
  --layers                     Every node, in the order in which they run.
  --top [flops|params|memory]  The nodes that have most of it.
  -n N                         Nodes that --top shows.  [default: 10; x>=1]
  --find PATTERN               Paths of operators: 'MatMul > Add > Gelu'.
  --weights                    Every weight, with statistics of its values.
  --dim D=N                    Evaluate at a dimension's size: batch=8.
  --json                       Print it as JSON (schema graphkit.inspect/1).
  --help                       Show this message and exit.
""",
    "graphkit check --help": """\
Usage: graphkit check [OPTIONS] [MODEL]

  Say whether a target will build or load MODEL, and what stands in the way.

  MODEL is an ONNX file, or a model as for convert. Exits with 0 if it will, 1
  if it will not, 3 if the target's library is not here: then the rules alone
  answer.

Options:
  --target [trt|rtx|ort]  TensorRT, TensorRT-RTX or ONNX Runtime; needed.
  --cc LIST               Compute capabilities to build for: 8.6,8.9,12.0.
  --shape X=DIMS          An input's shape: x=batch,3,224,224[:float32].
  --dim D=RANGE           A dimension's range, min:opt:max: batch=1:4:8.
  --input X=VALUE         An input's value: x=file.npy, or sr=16000.
  --submodule PATH        Check a part of the model: decoder.layers.
  --model PKG.MOD:FUNC    The code that builds the model, for a file of
                          weights.
  --signature NAME        Which signature of a SavedModel or TFLite file.
  --output-name T         An output of a GraphDef: scores, split:1.
  --state [inputs]        TensorFlow variables as inputs and outputs.
  --layout nchw[:X]       TensorFlow's images as NCHW; X: that one only.
  --trust                 Allow MODEL to run the code that it names.
  --partition DIR         Write the parts that the target takes.
  --select CODE           Show these rules only: GKC1, GKC321.
  --ignore CODE           Do not show these rules.
  --explain CODE          Explain a rule instead: GKC101.
  --sarif F               Write SARIF 2.1.0.
  --github                Print annotations for GitHub on stderr.
  --json                  Print the result as JSON (schema graphkit.check/1).
  -q, --quiet             No progress on stderr.
  -v, --verbose           Every finding, and what nodes read; -vv: tracebacks.
  --help                  Show this message and exit.
""",
    "graphkit hash --help": """\
Usage: graphkit hash [OPTIONS] MODEL...

  Print digests of ONNX files that renaming and reordering do not change.

  Of the structure (operators, attributes, wiring), the weights, the signature
  (names, dtypes and shapes of inputs and outputs), and the whole model.

Options:
  --json  Print the digests as JSON (schema graphkit.hash/1).
  --help  Show this message and exit.
""",
    "graphkit diff --help": """\
Usage: graphkit diff [OPTIONS] A B

  Say how two models differ, whatever their inner values are called.

  A and B are ONNX files, or anything that convert takes. Exits with 0 if they
  are the same, 1 if they differ.

Options:
  --stat                          One line a section.
  --name-status                   One line a node: D, A, M, R, W and its name.
  --full                          Every node, not folded.
  --signature                     Inputs and outputs alone; the exit code too.
  --weights                       Weights alone, each of them; the exit code
                                  too.
  -U, --unified N                 As --full, with N nodes of context.  [x>=0]
  --ignore LIST                   Of names,doc,order,constants,opset.
  --shape X=DIMS                  An input's shape, to capture what is not
                                  ONNX.
  --trust                         Allow A and B to run the code that they
                                  name.
  --json                          Print JSON (schema graphkit.diff/1).
  --format [text|json|model-explorer]
                                  [default: text]
  -v, --verbose                   -vv: tracebacks.
  --help                          Show this message and exit.
""",
    "graphkit textconv --help": """\
Usage: graphkit textconv [OPTIONS] MODEL

  Print an ONNX file as text that renaming and reordering do not change.

  For git, which stops showing a history at the first failure: a file that is
  not ONNX is one line, and exits with 0.

Options:
  --help  Show this message and exit.
""",
    "graphkit git-diff --help": """\
Usage: graphkit git-diff [OPTIONS] PATH OLD HEX MODE NEW HEX MODE

  Show a changed model; git calls it with seven arguments, or nine for a
  renamed file.

  Exits with 0 whatever it finds: git takes anything else as a failure of the
  command, and stops.

Options:
  --help  Show this message and exit.
""",
    "graphkit git --help": """\
Usage: graphkit git [OPTIONS] COMMAND [ARGS]...

  Let git show changes of models.

Options:
  --help  Show this message and exit.

Commands:
  install  Set up git diff, git log -p and git show for models.
""",
    "graphkit doctor --help": """\
Usage: graphkit doctor [OPTIONS]

  Say what this machine can build and run, and how to get what it lacks.

  Exits with 0 whatever the findings are: it is a report.

Options:
  --json  Print the report as JSON (schema graphkit.doctor/1).
  --help  Show this message and exit.
""",
    "graphkit explain --help": """\
Usage: graphkit explain [OPTIONS] CODE

  Explain the error CODE: what it means, and what to do about it.

Options:
  --json  Print the page as JSON (schema graphkit.explain/1).
  --help  Show this message and exit.
""",
}


@pytest.mark.parametrize("line", HELP)
def test_help(line, run):
    said = run(*line.split()[1:])
    assert (said.code, said.err) == (0, "")
    assert said.out == HELP[line]


def test_every_command_has_its_help_here():
    assert set(HELP) == {"graphkit --help", *(f"graphkit {name} --help" for name in COMMANDS)}


def test_version(run):
    from graphkit import __version__

    assert run("--version").out == f"graphkit {__version__}\n"


def test_no_command_prints_the_help_and_is_a_bad_request(run):
    said = run()
    assert (said.code, said.out) == (2, "")
    assert said.err == HELP["graphkit --help"]


def test_the_entry_point_imports_nothing_but_click():
    """Measured: `--help` takes 1.1 times `import click`; any library of ours would double it."""
    code = (
        "import sys, click; before = set(sys.modules); import graphkit_cli.main as m; "
        "m.main(['--help']); print(sorted(n for n in set(sys.modules) - before if n.partition('.')[0] in "
        "{'graphkit', 'graphkit_cli', 'rich', 'json', 'numpy', 'onnx', 'dataclasses', 'tomllib'}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "['graphkit_cli', 'graphkit_cli.main']"


def test_help_needs_no_valid_configuration(run, tmp_path):
    (tmp_path / "graphkit.toml").write_text("not toml")
    assert run("convert", "--help").code == 0
