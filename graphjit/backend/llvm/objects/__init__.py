"""From LLVM text to machine code in this process.

`jit.py` compiles a text, `link.py` cuts a long program into parts that are compiled one after another,
`store.py` keeps the code of our own library on disk, `symbols.py` says where functions of others lie.
"""
