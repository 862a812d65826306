"""The changes that a LoRA makes, one for each module: which kind it is, its factors, and whether they fit together."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import prod

from shared.errors import InvalidError
from shared.formats.lora.keys import Factor
from shared.formats.lora.names import Part
from shared.formats.safetensors import Tensor

MAX_RANK = 1024
_LORA = {Factor.DOWN, Factor.UP, Factor.MID, Factor.UP_BIAS}
_LOHA = {factor for factor in Factor if factor.startswith("hada_")}
_LOKR = {factor for factor in Factor if factor.startswith("lokr_")}
_ANY = {Factor.ALPHA, Factor.MAGNITUDE, Factor.DIFF_BIAS}


class Kind(StrEnum):
    """How the factors make the change of a weight."""

    LORA = "LoRA"
    """up x down (Hu et al. 2021), for convolutions with a kernel in `down` or `mid`."""
    LOHA = "LoHa"
    """The product, element by element, of two such (Hyeon-Woo et al. 2021)."""
    LOKR = "LoKr"
    """The Kronecker product of two matrices (Yeh et al. 2023)."""
    DIFF = "change"
    """The change itself, or that of a bias alone."""


@dataclass(frozen=True)
class Adapter:
    """The change of one module's weight and bias."""

    part: Part
    module: str
    kind: Kind
    factors: Mapping[Factor, str]
    """The names of the tensors."""
    shapes: Mapping[Factor, tuple[int, ...]]
    scale: float
    """Alpha divided by the rank: what the product of the factors is multiplied by."""

    @property
    def names(self) -> list[str]:
        """The names of its tensors."""
        return list(self.factors.values())

    @property
    def size(self) -> tuple[int, int] | None:
        """The rows and columns of the change of the weight, where a kernel's cells count as columns; None without one."""
        shape = self.shapes
        if self.kind is Kind.LORA:
            columns = prod(shape[Factor.DOWN][1:]) * prod(shape.get(Factor.MID, ())[2:])
            return shape[Factor.UP][0], columns
        if self.kind is Kind.LOHA:
            core = shape.get(Factor.HADA_T1)
            return shape[Factor.HADA_W1_A][1 if core else 0], prod(shape[Factor.HADA_W1_B][1:]) * prod((core or ())[2:])
        if self.kind is Kind.LOKR:
            (a, b), (c, d) = (_kron_side(shape, number) for number in "12")
            return a * c, b * d
        diff = shape.get(Factor.DIFF)
        return (diff[0], prod(diff[1:])) if diff else None


def build(
    part: Part, module: str, tensors: Mapping[Factor, tuple[str, Tensor]], alpha: float | None, rank: float | None
) -> Adapter:
    """Return the change that these tensors make. Raises InvalidError if some are missing, or do not fit together.

    `alpha` is None where the file has none; `rank` is what alpha is divided by, None for the rank of the factors.
    """
    factors = {factor: name for factor, (name, _) in tensors.items() if factor is not Factor.ALPHA}
    shapes = {factor: tuple(tensor.shape) for factor, (_, tensor) in tensors.items()}
    kind = _kind(set(shapes), factors)
    first = next(iter(factors.values()), module)
    if kind in {Kind.LORA, Kind.LOHA} and any(len(shapes[factor]) < 2 for factor in _needed(kind)):  # noqa: PLR2004 - a matrix
        raise _misfit(first)
    found = _rank(kind, shapes)
    if found is not None and not 1 <= found <= MAX_RANK:
        msg = f"the LoRA's {first[:200]!r} has the rank {found}; 1 to {MAX_RANK} are allowed"
        raise InvalidError(msg)
    if not _fits(kind, shapes):
        raise _misfit(first)
    scale = 1.0 if alpha is None or found is None else alpha / (rank or found)
    return Adapter(part, module, kind, factors, shapes, scale)


def rank_of(adapter: Adapter) -> int:
    """Return the rank of an adapter, 1 where it has none."""
    return _rank(adapter.kind, adapter.shapes) or 1


def _kind(found: set[Factor], factors: Mapping[Factor, str]) -> Kind:
    kinds = {
        kind
        for kind, some in ((Kind.LORA, _LORA), (Kind.LOHA, _LOHA), (Kind.LOKR, _LOKR), (Kind.DIFF, {Factor.DIFF}))
        if found & some
    }
    if len(kinds) > 1:
        names = " and ".join(sorted(kinds))
        msg = (
            f"the LoRA changes the module of {min(factors.values())[:200]!r} as {names} at once; merge them into one kind "
            "with the program that made them"
        )
        raise InvalidError(msg)
    kind = kinds.pop() if kinds else Kind.DIFF
    first = min(factors.values(), default="alpha")
    if Factor.MAGNITUDE in found and kind is Kind.DIFF:
        msg = f"the LoRA's {factors[Factor.MAGNITUDE][:200]!r} has no LoRA that it scales; upload the whole file"
        raise InvalidError(msg)
    if kind is Kind.DIFF and not found & {Factor.DIFF, Factor.DIFF_BIAS}:
        msg = f"the LoRA's {first[:200]!r} has no weights that it belongs to; upload the whole file"
        raise InvalidError(msg)
    if missing := _needed(kind, found) - found:
        msg = f"the LoRA's {first[:200]!r} has no counterpart ({min(missing)} is missing); upload the whole file"
        raise InvalidError(msg)
    return kind


def _needed(kind: Kind, found: Collection[Factor] = ()) -> set[Factor]:
    if kind is Kind.LORA:
        return {Factor.DOWN, Factor.UP}
    if kind is Kind.LOHA:
        cores = {Factor.HADA_T1, Factor.HADA_T2}
        return {Factor.HADA_W1_A, Factor.HADA_W1_B, Factor.HADA_W2_A, Factor.HADA_W2_B} | (cores if cores & set(found) else set())
    if kind is Kind.LOKR:
        first = {Factor.LOKR_W1} if Factor.LOKR_W1 in found else {Factor.LOKR_W1_A, Factor.LOKR_W1_B}
        return first | ({Factor.LOKR_W2} if Factor.LOKR_W2 in found else {Factor.LOKR_W2_A, Factor.LOKR_W2_B})
    return set()


def _rank(kind: Kind, shapes: Mapping[Factor, tuple[int, ...]]) -> int | None:
    """Return what alpha is divided by. A LoKr of two whole matrices has no rank, and its alpha means nothing."""
    names = {
        Kind.LORA: (Factor.DOWN,),
        Kind.LOHA: (Factor.HADA_W1_B,),
        Kind.LOKR: (Factor.LOKR_W2_B, Factor.LOKR_W1_B),
        Kind.DIFF: (),
    }[kind]
    return next((shapes[name][0] for name in names if shapes.get(name)), None)


def _fits(kind: Kind, shapes: Mapping[Factor, tuple[int, ...]]) -> bool:
    if kind is Kind.LORA:
        down, up, mid = shapes[Factor.DOWN], shapes[Factor.UP], shapes.get(Factor.MID)
        if mid is None:
            return prod(up[1:]) == down[0]
        return len(mid) == 4 and prod(down[2:]) == 1 and (prod(up[1:]), down[0]) == mid[:2]  # noqa: PLR2004 - a kernel
    if kind is Kind.LOHA:
        halves = [
            (shapes[Factor(f"hada_w{number}_a")], shapes[Factor(f"hada_w{number}_b")], shapes.get(Factor(f"hada_t{number}")))
            for number in "12"
        ]
        return len({_product(*half) for half in halves} - {None}) == 1 and all(_product(*half) for half in halves)
    if kind is Kind.LOKR:
        return all(_kron_side(shapes, number) != (0, 0) for number in "12") and len(shapes.get(Factor.LOKR_W1, (1, 1))) == 2  # noqa: PLR2004 - a matrix
    return bool(shapes.get(Factor.DIFF, (1,))) and len(shapes.get(Factor.DIFF_BIAS, (1,))) == 1


def _product(a: tuple[int, ...], b: tuple[int, ...], core: tuple[int, ...] | None = None) -> tuple[int, int] | None:
    """Return the rows and columns of a x b, or of a core that both are multiplied into; None if they do not fit."""
    if len(a) != 2 or len(b) != 2:  # noqa: PLR2004 - matrices
        return None
    if core is None:
        return (a[0], b[1]) if a[1] == b[0] else None
    # The outer matrices of a core have their rank first.
    return (a[1], b[1] * prod(core[2:])) if len(core) == 4 and core[:2] == (a[0], b[0]) else None  # noqa: PLR2004 - a kernel


def _kron_side(shapes: Mapping[Factor, tuple[int, ...]], number: str) -> tuple[int, int]:
    """Return the rows and columns of one side of a Kronecker product, (0, 0) if its factors do not fit."""
    whole = shapes.get(Factor(f"lokr_w{number}"))
    if whole is not None:
        return (whole[0], prod(whole[1:])) if len(whole) >= 2 else (0, 0)  # noqa: PLR2004 - a matrix
    core = shapes.get(Factor.LOKR_T2) if number == "2" else None
    return _product(shapes[Factor(f"lokr_w{number}_a")], shapes[Factor(f"lokr_w{number}_b")], core) or (0, 0)


def _misfit(name: str) -> InvalidError:
    return InvalidError(f"the LoRA's {name[:200]!r} has no counterpart with its rank; upload the whole file as it was trained")
