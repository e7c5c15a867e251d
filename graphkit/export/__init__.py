"""Exports that a framework writes itself: a TensorFlow or Keras source as a SavedModel or a TFLite file."""
