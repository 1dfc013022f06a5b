"""Graph passes that bring a graph into a form that schedules well; none changes a value.

- `contractions.py`: which products call a matrix kernel, and with which axes merged.
- `unstack.py`: short axes become separate values, such as the three numbers of a point in space.
- `squeeze.py`: axes of length one go.
- `align.py`: reductions over one matrix go over it the same way, and share a sweep.
"""
