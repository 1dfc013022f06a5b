"""The machine that code is made for: one record, read once.

Job: instruction sets, vector registers, caches and rates, for what decides by them; cores that may be used.
Input: the processor, as LLVM and the system describe it, or ``GRAPHJIT_MACHINE``: ``avx2``, ``baseline``
(SSE2 alone), or a JSON file.
Output: `machine()`, `cores()`.

``GRAPHJIT_MACHINE=avx2 pytest`` runs the code that other processors get, where it can run. A file holds
fields of `Machine` that replace what was read, for example ``{"caches": [32768, 524288, 16777216]}``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from graphjit import config
from graphjit.errors import ConfigError

CACHES = (32 << 10, 1 << 20, 32 << 20)
"""Bytes of the first-level data cache, the second and the last level, where the system does not say."""

_AVX512 = ("avx512f", "avx512dq", "avx512vl", "avx512bw")
_BASELINE = frozenset({"64bit", "cmov", "cx8", "fxsr", "mmx", "sse", "sse2", "x87"})
_CPU = "/sys/devices/system/cpu/cpu0/cache"


class Rates(NamedTuple):
    """How fast one core is, for estimates. Systems do not tell; these were measured on the machine of the
    benchmarks, and the ratios between them, which decide, are alike on others.

    8 bytes stored and loaded again took up to 1.7 ns through memory, 0.2 to 0.3 ns through a cache; an
    exponential (cost 20 in `ir/scalars.py`) 0.9 ns, a tangent (35) 2.0 ns, a quotient (6) 0.27 ns.
    """

    addition: int = 50
    """Picoseconds of an addition of float64 in lanes: the unit of cost of scalar operations."""
    byte_from_memory: int = 60
    """Picoseconds of a byte that comes from memory."""
    byte_from_cache: int = 12
    """Picoseconds of a byte that comes from a cache."""
    multiply_adds: int = 6
    """Multiply-adds of whole vectors in a nanosecond: two in a cycle, at 3 GHz."""


RATES = Rates()


@dataclass(frozen=True)
class Machine:
    """What a processor has.

    ``name`` is LLVM's name of it; ``features`` are LLVM's, each with + or -; ``caches`` are bytes of the
    first-level data cache, the second and the last level.
    """

    name: str
    features: tuple[str, ...]
    caches: tuple[int, int, int]
    rates: Rates = RATES

    def has(self, *names: str) -> bool:
        """Whether it has all of these instruction sets."""
        return all(f"+{name}" in self.features for name in names)

    @property
    def avx512(self) -> bool:
        """Whether it has the 512-bit instructions that split, scale and permute vectors."""
        return self.has(*_AVX512)

    @property
    def fused(self) -> bool:
        """Whether multiply-adds round once."""
        return self.has("fma") or self.has("neon")

    @property
    def vector_bytes(self) -> int:
        """Bytes of the widest vector register."""
        return 64 if self.avx512 else 32 if self.has("avx2") else 16

    @property
    def vector_registers(self) -> int:
        """Number of vector registers."""
        return 32 if self.avx512 or self.has("neon") else 16


@cache
def machine() -> Machine:
    """The machine that code is made for.

    Raises:
        ConfigError: ``GRAPHJIT_MACHINE`` names one whose instructions this processor has not, or a file
        without sense.
    """
    here = _host()
    wanted = config.machine
    if wanted == "avx2":
        if not here.has("avx2", "fma"):
            raise ConfigError("GRAPHJIT_MACHINE=avx2: this processor has no AVX2")
        newer = ("avx512", "avx10", "amx", "evex")
        return replace(
            here,
            name="haswell",
            features=tuple(f"-{f[1:]}" if f[1:].startswith(newer) else f for f in here.features),
        )
    if wanted == "baseline":
        if not here.has("sse2"):
            raise ConfigError("GRAPHJIT_MACHINE=baseline: this processor is no x86-64")
        return replace(
            here,
            name="x86-64",
            features=tuple(f if f[1:] in _BASELINE else f"-{f[1:]}" for f in here.features),
        )
    return here if wanted is None else _from_file(here, wanted)


def _host() -> Machine:
    import llvmlite.binding as llvm  # a library of a hundred megabytes, loaded on first need

    # AMD's instructions of SSE4a have no form for wide vectors. LLVM takes them to mix bytes of two vectors,
    # which then costs a hundred cycles (records of four bytes, 1e6 of them: 25 instead of 4 ms).
    found = filter(None, llvm.get_host_cpu_features().flatten().split(","))
    features = tuple("-sse4a" if feature == "+sse4a" else feature for feature in found)
    return Machine(llvm.get_host_cpu_name(), features, _caches())


def cores() -> int:
    """Cores that this process may use now."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _caches() -> tuple[int, int, int]:
    """Sizes of the caches of the first core, as Linux tells them."""
    from pathlib import Path  # here and below: importing graphjit must stay quick

    found: dict[int, int] = {}
    for index in sorted(Path(_CPU).glob("index*")):
        try:
            level, kind, size = (
                index.joinpath(name).read_text().strip() for name in ("level", "type", "size")
            )
            if kind != "Instruction":
                found[int(level)] = int(size.rstrip("KM")) << (10 if size.endswith("K") else 20)
        except (OSError, ValueError):
            continue
    last = found[max(found)] if len(found) > 2 else CACHES[2]
    return found.get(1, CACHES[0]), found.get(2, CACHES[1]), last


def _from_file(here: Machine, file: str) -> Machine:
    import json

    try:
        with open(file, encoding="utf-8") as text:
            fields = json.load(text)
        kinds: dict[str, Callable[[Any], Any]] = {
            "name": str,
            "features": tuple,
            "caches": tuple,
            "rates": lambda rates: Rates(**rates),
        }
        if isinstance(fields.get("features", []), str):
            raise ValueError("features are a list of texts such as '+avx2'")
        made = replace(here, **{name: kinds[name](value) for name, value in fields.items()})
        if len(made.caches) != 3 or not all(feature[:1] in ("+", "-") for feature in made.features):
            raise ValueError("three caches, features that begin with + or -")
        return made
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"GRAPHJIT_MACHINE={file}: {reason}. It is avx2, baseline, or a JSON file with some of name, "
            "features, caches (three sizes in bytes) and rates"
        ) from None
