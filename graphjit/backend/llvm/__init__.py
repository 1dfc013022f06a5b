"""Programs as LLVM text, and everything native that a call passes through.

- `program.py`: a whole program as one function: each step in its order, memory for values between them.
- `kernels`: loop IR as vector code.
- `math`: our elementary functions, for vectors of any width.
- `products`: matrix products: which code computes one, and that code.
- `entry`: native code between Python's call and the program: arguments in, results out.
- `threads`: the pool that runs the blocks of parallel loops.
- `objects`: text to machine code; library code kept on disk.
- `writing`: how LLVM text is written.
"""
