"""Which integers a processor multiplies exactly and fast."""

import platform
from dataclasses import dataclass

from workers.host import host_facts

X86 = frozenset({"x86_64", "amd64", "i386", "i686"})


@dataclass(frozen=True)
class Scheme:
    """Activations uint8 with a zero point, weights int8 symmetric per output channel (U8S8).

    reduce_range: weights use 7 bits, -64..64.
    why: for the reader of the result.
    """

    reduce_range: bool
    why: str

    @property
    def weight_limit(self) -> int:
        """Largest weight, as an integer."""
        return 64 if self.reduce_range else 127


def scheme_of_host() -> Scheme:
    """The scheme for the processor at hand."""
    return scheme_for(platform.machine(), vnni=host_facts().vnni)


def scheme_with(bits: int) -> Scheme:
    """For another processor than the one at hand. bits: 7 or 8."""
    return Scheme(reduce_range=bits == 7, why=f"weights use {bits} bits, as was asked")


def scheme_for(machine: str, *, vnni: bool) -> Scheme:
    """U8S8 everywhere: ONNX Runtime's S8S8 took 2.5 times as long, even with VNNI.

    Without VNNI, x86 adds two uint8 x int8 products in 16 bits (vpmaddubsw), which saturate:
    2 * 255 * 127 > 32767, but 2 * 255 * 64 does not.
    """
    if machine.lower() in X86 and not vnni:
        return Scheme(
            reduce_range=True,
            why="this processor has no VNNI, and would overflow with weights of 8 bits: they use 7",
        )
    exact = "VNNI" if machine.lower() in X86 else f"{machine}"
    return Scheme(
        reduce_range=False, why=f"{exact} adds 8-bit products in 32 bits, so weights use all 8 bits"
    )
