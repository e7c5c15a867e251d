"""Runs two things on the same inputs and says whether they compute the same.

`inputs` makes values that the graph can take, `sizes` picks the shapes, `runners` run, `compare` holds the numbers
against a tolerance, `check` puts them together, `verdict` is what comes out.
"""
