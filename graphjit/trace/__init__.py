"""From a user's call to a graph: the function runs once on traced values, which record what it does.

`stage` is the way in. The folders: `recording` has the trace and its traced values, `arrays` what NumPy says
about memory (views, writes, copies), `numpy` the functions of NumPy and SciPy, `outside` what the function
reads besides its arguments.
"""
