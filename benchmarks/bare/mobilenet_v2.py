"""MobileNetV2 with random weights as three files: model.keras, saved_model/ and frozen.pb. Argument: the folder."""

import sys
from pathlib import Path

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(0)
model = keras.applications.MobileNetV2(weights=None)
model.save(folder / "model.keras")
model.export(folder / "saved_model", verbose=False)
image = tf.TensorSpec((None, 224, 224, 3), tf.float32, name="image")
frozen = convert_variables_to_constants_v2(
    tf.function(lambda image: model(image, training=False)).get_concrete_function(image), lower_control_flow=False
)
(folder / "frozen.pb").write_bytes(frozen.graph.as_graph_def().SerializeToString())
(folder / "outputs.txt").write_text(frozen.outputs[0].name)
