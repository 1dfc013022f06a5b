"""Data on their way into a training loop: mini-batches. The loops stay the user's."""

from __future__ import annotations

from graphjit.data.batching import batches

__all__ = ["batches"]
