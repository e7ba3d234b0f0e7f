"""Shows epsilon rounded up and lower bounds rounded down: what a person reads never flatters a model.

Guarantee: read back as a number, `shown_up(x)` is never below x and `shown_down(x)` never above; both are decimal
(no exponent) and as short as that allows. Assumption: x is what its shortest spelling says (8.1 is shown as 8.1).
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

DIGITS = 4
EXACT = 6  # the grid of the accountant and of the audit's bounds: for sentences that say that one number is over another
_WIDE = Context(prec=1500)  # no double has more digits


def shown_up(value: float, digits: int = DIGITS) -> str:
    """An epsilon, or what bounds a loss from above: `digits` decimals, below 0.1 `digits` significant ones."""
    return _shown(value, digits, ROUND_CEILING)


def shown_down(value: float, digits: int = DIGITS) -> str:
    """An epsilon lower bound: as `shown_up`, the other way."""
    return _shown(value, digits, ROUND_FLOOR)


def shown_fact(name: str, value: float) -> str | None:
    """A fact shown by what its name says it is; None: neither an epsilon nor a lower bound."""
    plain = name.replace(" ", "_")
    if "lower_bound" in plain:
        return shown_down(value)
    return shown_up(value) if "epsilon" in plain else None


def shown_scalar(name: str, value: str | int | float) -> str:
    """A fact as a report shows it: thousands apart, six digits, an epsilon or a lower bound by its own rule."""
    if isinstance(value, float) and (rounded := shown_fact(name, value)) is not None:
        return rounded
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{int(value):,}" if value.is_integer() and abs(value) < 1e12 else f"{value:.6g}"
    return value


def _shown(value: float, digits: int, rounding: str) -> str:
    exact = Decimal(repr(float(value)))
    if not exact.is_finite():
        return str(exact).lower()  # infinity, -infinity, nan
    exponent = min(-digits, exact.adjusted() - digits + 1) if exact else 0
    text = f"{exact.quantize(Decimal(1).scaleb(exponent, _WIDE), rounding, _WIDE):f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
