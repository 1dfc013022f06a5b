"""Expressions of NumPy, family by family, on which the front end is compared with NumPy."""
