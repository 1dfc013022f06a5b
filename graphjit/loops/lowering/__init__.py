"""Steps of a schedule as loop nests, before any pass.

`kernels.py`: fused kernels; `sweeps.py`: kernels and products over the same blocks of rows; `assemblies.py`:
what is written piece by piece (scatter, embed with gaps, argmax); `correlations.py`: sliding products.
"""
