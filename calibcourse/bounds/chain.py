"""A chain of inequalities as numbers: named rungs, each one inequality away from the next."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

NATS_PER_DECADE = math.log(10.0)


class Rung(NamedTuple):
    """One bound in a chain of inequalities.

    Attributes:
        name: how a lesson calls it.
        log_value: its natural logarithm; nan where an assumption is not met.
        inner: the name of its neighbour one inequality nearer to the bounded quantity.
        side: -1 for a lower bound, 1 for an upper bound, 0 for the bounded quantity itself.
        formula, source: what it is, and where it is proved.
        missing: why it is not available; empty where it is.
    """

    name: str
    log_value: float
    inner: str
    side: int
    formula: str
    source: str
    missing: str = ""


class Slack(NamedTuple):
    """What a bound gives away, as log10 of a factor: against its inner neighbour, and in total."""

    step: float
    total: float


@dataclass(frozen=True, eq=False)
class Chain:
    """Bounds in order, each one inequality away from the next; the base of what follows.

    A rung's value is an attribute: `ladder.u6`; its logarithm is `ladder.log["u6"]`. Where a rung's
    assumption is not met both are nan, and `ladder.missing["u6"]` says why.

    Attributes:
        rungs: from the weakest lower bound to the weakest upper bound.
        tolerance: relative error that `holds` allows for.
    """

    rungs: tuple[Rung, ...]
    tolerance: float

    @property
    def log(self) -> dict[str, float]:
        """Natural logarithm of every rung."""
        return {rung.name: rung.log_value for rung in self.rungs}

    @property
    def missing(self) -> dict[str, str]:
        """Why a rung is not available, for those that are not."""
        return {rung.name: rung.missing for rung in self.rungs if rung.missing}

    @property
    def holds(self) -> bool:
        """Whether every available inequality holds, up to the relative error `tolerance`."""
        allowed = math.log1p(self.tolerance)
        return all(self._excess(rung, rung.inner) >= -allowed for rung in self._available())

    def slack(self) -> dict[str, Slack]:
        """Slack(step, total) of every available bound, log10 of the factors lost; 0 is tight."""
        (value,) = (rung.name for rung in self.rungs if rung.side == 0)
        return {
            rung.name: Slack(
                self._excess(rung, rung.inner) / NATS_PER_DECADE,
                self._excess(rung, value) / NATS_PER_DECADE,
            )
            for rung in self._available()
            if rung.side
        }

    def _available(self) -> list[Rung]:
        return [rung for rung in self.rungs if not rung.missing]

    def _excess(self, rung: Rung, inner: str) -> float:
        """How far the rung lies outside another, in nats; 0 where both are equal (or infinite)."""
        nearer = self.log[inner]
        return 0.0 if rung.log_value == nearer else rung.side * (rung.log_value - nearer)

    def __getattr__(self, name: str) -> float:
        for rung in self.__dict__.get("rungs", ()):
            if rung.name == name:
                return _exp(rung.log_value)
        raise AttributeError(f"{type(self).__name__} has no rung or attribute {name!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.log]

    def __repr__(self) -> str:
        slack = self.slack()
        width = max(len(rung.name) for rung in self.rungs)
        formula_width = max(len(rung.formula) for rung in self.rungs)
        lines = [f"{type(self).__name__}({self._heading()}holds={self.holds})"]
        for rung in reversed(self.rungs):
            start = f"  {rung.name:{width}}  {rung.formula:{formula_width}}"
            if rung.missing:
                lines.append(f"{start}  not available: {rung.missing}")
                continue
            factor = f"× 10^{rung.side * slack[rung.name].total:+.2f}" if rung.side else ""
            lines.append(
                f"{start}  {_show(rung.log_value):>9}  {factor:10}  {rung.source}".rstrip()
            )
        return "\n".join(lines)

    def _heading(self) -> str:
        return ""


def without_missing(rungs: tuple[Rung, ...]) -> tuple[Rung, ...]:
    """The rungs, with nan where an assumption is not met."""
    return tuple(rung._replace(log_value=math.nan) if rung.missing else rung for rung in rungs)


def log_mean(logarithms: Tensor) -> float:
    """Logarithm of a mean, from logarithms."""
    return float(torch.logsumexp(logarithms, 0)) - math.log(len(logarithms))


def log_of(value: float) -> float:
    """Natural logarithm; -inf of 0 and of what rounding put below it."""
    return math.log(value) if value > 0 else -math.inf


def _exp(value: float) -> float:
    return math.exp(value) if value < 709.0 else math.inf if value == value else math.nan


def _show(log_value: float) -> str:
    if abs(log_value) < 690 or not math.isfinite(log_value):
        return f"{_exp(log_value):.4g}"
    return f"10^{log_value / NATS_PER_DECADE:.1f}"
