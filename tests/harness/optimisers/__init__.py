"""Optimisers and schedules as optax and graphjit.optim write them, and optax's own numbers for them."""
