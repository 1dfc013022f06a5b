"""The public transformations, as users import them from `graphjit`.

Names, argument order and results are as in JAX; values are NumPy's. Each transformation, called inside a
traced function, becomes part of that trace.
"""
