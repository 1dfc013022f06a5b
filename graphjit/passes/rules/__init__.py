"""Rewrite rules, one file per family; `ALL` holds them in the order in which `simplify` tries them."""

from __future__ import annotations

from graphjit.passes.rules import (
    arithmetic,
    contraction,
    indexing,
    logic,
    narrowing,
    one_hot,
    reductions,
    shapes,
)
from graphjit.passes.rules.rule import Rule

ALL: tuple[Rule, ...] = (
    *shapes.RULES,
    *indexing.RULES,
    *arithmetic.RULES,
    *logic.RULES,
    *reductions.RULES,
    *one_hot.RULES,
    *contraction.RULES,
    *narrowing.RULES,
)

__all__ = ["ALL", "Rule"]
