"""A trace and its traced values: what is recorded, with which dtype and which line of the user, and what is
refused because only a value could answer it.
"""
