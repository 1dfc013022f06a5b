"""Rewrite rules by family; `ALL` is every rule that `simplify` applies, in order of trial per op."""

from __future__ import annotations

from graphjit.passes.rules.rule import Rule

ALL: tuple[Rule, ...] = ()

__all__ = ["ALL", "Rule"]
