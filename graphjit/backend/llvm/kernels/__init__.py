"""Loop IR as LLVM functions: explicit vectors, masks, pointers.

All choices have been made by `loops/passes`; here they are written down. `emit.py` walks the statements,
`memory.py` loads and stores (`strided.py`: elements that lie apart), `scalar.py` computes, `running.py` keeps
sums of which every stage is wanted, `registers.py` knows which name holds which value.
"""
