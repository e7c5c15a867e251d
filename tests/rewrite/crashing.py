"""A child of onnxsim's that dies as native code does."""

import os


def run(given: str, made: str) -> str:
    os.abort()
