"""Plain Python control flow on traced values: functions whose keywords call graphjit.

Nothing here is imported before a trace meets the truth value of a traced value.
"""
