"""Runs a model again and again where it lives, in a child process, and says how long each run took."""
