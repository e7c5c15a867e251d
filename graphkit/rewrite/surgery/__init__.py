"""Changes that a user asks for by name: what a model takes and gives, which part of it there is, what is around it.

Each is a function of a `Model` (and what is asked) that returns a new one; nothing is guessed, and what cannot be done
is refused. Unlike a rewrite, surgery may change what a model computes: that is what it is for.
"""
