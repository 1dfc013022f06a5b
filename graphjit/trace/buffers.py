"""Arrays made and written while tracing."""
