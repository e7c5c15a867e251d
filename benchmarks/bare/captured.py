"""graphkit's capture alone, without validation and optimisation. Arguments: the source, the output."""

import sys

import graphkit as gk

gk.capture_model(sys.argv[1]).save(sys.argv[2])
