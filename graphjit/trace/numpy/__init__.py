"""What NumPy's and SciPy's functions do when they get traced values, one file for each family of functions.

A function of a family builds graph nodes instead of computing: `shapes.reshape` stands for ``np.reshape``.
``registry`` imports all families, which fills the tables that tracers look functions up in. Calls that
NumPy's protocols would never show to a tracer are caught by `patches`, `list_arguments`, `conversion_hooks`
and `scipy_special`.
"""
