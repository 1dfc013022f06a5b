"""What a traced function reads besides its arguments: globals, closures, objects, captured arrays.

A compiled function must notice when that changes. `find_guards.py` searches what the function's code can
reach and makes guards, which native code compares at each call (`check_guards.py`: in Python).
`captured_class.py` and `captured_methods.py`: arrays that the function captured answer for themselves while
it is traced. `untraced_code.py`: handlers and finalizers that run in between see plain arrays.
"""
