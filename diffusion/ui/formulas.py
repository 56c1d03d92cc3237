"""One step of a run in its sampler's own formula, with the numbers that the engine used for it.

Every sampler's step is a sum of few quantities, each times a number that depends on the noise levels alone. They are:
x the state before the step; x₀ the prediction, x₀₋₁ and x₀₋₂ those of one and two steps earlier; z fresh unit noise;
d = (x - x₀) / σ the slope, d₋₁ to d₋₃ the earlier ones; x̂₀ the prediction at Heun's trial state; x̃ the state after a
corrector; k₁ to k₃ the slopes x - x₀ in log σ at the three stages of the adaptive step. σ′ is the level after the step.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from diffusion.samplers import ADAMS, Step, adams_weights, ode, predictor_corrector

Terms = dict[str, float]
SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
SLOPES = ("d", "d₋₁", "d₋₂", "d₋₃")


class Formula(NamedTuple):
    """A step as text, the formula and then its numbers, and as terms: quantity -> coefficient, whose sum it is."""

    text: str
    terms: Terms


def formula(sampler: str, steps: Sequence[Step]) -> Formula:
    """The formula of the last of `steps`, which are one image's run by a sampler of SAMPLERS from its Step 0 on."""
    levels = [step.sigma.item() for step in steps]
    if len(levels) == 1:
        return Formula(f"x = σ ε\nx = {number(levels[0])} ε", {"ε": levels[0]})
    symbols, values, terms = FORMULAS[sampler](levels)
    terms = {quantity: coefficient for quantity, coefficient in terms.items() if coefficient}
    if terms == {"x₀": 1}:
        values = "σ′ = 0: what is left is the prediction itself"
    return Formula(f"{symbols}\n{values}\nx ← {combination(terms)}", terms)


def number(value: float) -> str:
    """A number as it is written in a formula, to three digits: 0.648, −12.0, 2.13 × 10⁻⁵."""
    if value == 0 or math.isinf(value):
        return {0: "0", math.inf: "∞", -math.inf: "−∞"}[value]
    exponent = math.floor(math.log10(abs(value)))
    if not -3 <= exponent < 4:
        return f"{value / 10**exponent:.2f} × 10{str(exponent).translate(SUPERSCRIPT)}".replace("-", "−")
    return f"{value:.{max(0, 2 - exponent)}f}".replace("-", "−")


def combination(terms: Terms) -> str:
    """A sum of terms: 0.648 x + 0.352 x₀ − 0.021 x₀₋₁."""
    signed = [
        f"{'−' if coefficient < 0 else '+'} {'' if abs(coefficient) == 1 else number(abs(coefficient)) + ' '}{quantity}"
        for quantity, coefficient in terms.items()
    ]
    return " ".join(signed).removeprefix("+ ")


def _ddim(levels: list[float], eta: float) -> tuple[str, str, Terms]:
    s, s_next = levels[-2:]
    up = eta * s_next * math.sqrt(1 - (s_next / s) ** 2)
    down = math.sqrt(s_next**2 - up**2)
    terms = {"x": down / s, "x₀": 1 - down / s, "z": up}
    if eta == 0:
        return "x ← x₀ + (σ′/σ)(x − x₀)", _ratio(s, s_next), terms
    symbols = "x ← x₀ + (σ↓/σ)(x − x₀) + σ↑ z, σ↑² = σ′² (1 − σ′²/σ²), σ↓² = σ′² − σ↑²"
    return symbols, f"σ↓ = {number(down)}, σ↑ = {number(up)}", terms


def _euler(levels: list[float]) -> tuple[str, str, Terms]:
    s, s_next = levels[-2:]
    symbols = "x ← x + (σ′ − σ) d, d = (x − x₀)/σ"
    return symbols, f"σ′ − σ = {number(s_next - s)}", {"x": s_next / s, "x₀": 1 - s_next / s}


def _reverse_sde(levels: list[float], before: str = "x") -> tuple[str, str, Terms]:
    s, s_next = levels[-2:]
    variance = s**2 - s_next**2
    symbols = f"x ← {before} + (σ² − σ′²) s + √(σ² − σ′²) z, s = (x₀ − {before})/σ²"
    noise = math.sqrt(variance) if s_next > 0 else 0.0
    return (
        symbols,
        f"σ² − σ′² = {number(variance)}",
        {before: (s_next / s) ** 2, "x₀": variance / s**2, "z": noise},
    )


def _predictor_corrector(levels: list[float]) -> tuple[str, str, Terms]:
    symbols, values, terms = _reverse_sde(levels, "x̃")
    corrector = f"x̃ = x + h s + √(2h) z, h = 2 ({_default(predictor_corrector, 'snr')} ‖z‖/‖s‖)²"
    return f"{corrector}\n{symbols}", values, terms


def _heun(levels: list[float]) -> tuple[str, str, Terms]:
    s, s_next = levels[-2:]
    if s_next == 0:
        return _euler(levels)
    r = s_next / s
    symbols = "x ← x + (σ′ − σ)(d + d̂)/2, d = (x − x₀)/σ, d̂ = (x̂ − x̂₀)/σ′, x̂ = x + (σ′ − σ) d"
    terms = {"x": r, "x₀": (1 - r) * (1 - 1 / (2 * r)), "x̂₀": (1 / r - 1) / 2}
    return symbols, f"σ′ − σ = {number(s_next - s)}", terms


def _ode(levels: list[float]) -> tuple[str, str, Terms]:
    s, s_next = levels[-2:]
    symbols = "x ← x + h (2k₁ + 3k₂ + 4k₃)/9, k = x − x₀ at σ, σ exp(h/2), σ exp(3h/4)"
    if s_next == 0:
        return symbols, "", {"x₀": 1.0}
    h = math.log(s_next / s)
    tolerance = f"tolerance {_default(ode, 'rtol')} relative, {_default(ode, 'atol')} absolute"
    terms = {"x": 1.0, "k₁": h * 2 / 9, "k₂": h * 3 / 9, "k₃": h * 4 / 9}
    return symbols, f"h = ln(σ′/σ) = {number(h)}, {tolerance}", terms


def _dpmpp_2m(levels: list[float]) -> tuple[str, str, Terms]:
    r, c = levels[-1] / levels[-2], _extrapolation(levels)
    terms = {"x": r, "x₀": (1 - r) * (1 + c), "x₀₋₁": -(1 - r) * c}
    return f"x ← (σ′/σ) x − (e⁻ʰ − 1) D, {_slanted(c)}", _lambda_step(levels, c), terms


def _dpmpp_2m_sde(levels: list[float]) -> tuple[str, str, Terms]:
    s_next, r, c = levels[-1], levels[-1] / levels[-2], _extrapolation(levels)
    terms = {"x": r**2, "x₀": (1 - r**2) * (1 + c), "x₀₋₁": -(1 - r**2) * c, "z": s_next * math.sqrt(1 - r**2)}
    symbols = f"x ← r² x + (1 − r²) D + σ′ √(1 − r²) z, r = σ′/σ, {_slanted(c)}"
    return symbols, _lambda_step(levels, c), terms


def _unipc(levels: list[float]) -> tuple[str, str, Terms]:
    r, c = levels[-1] / levels[-2], _extrapolation(levels)
    a, b = _unipc_correction(levels[:-1])
    terms = {
        "x": r,
        "x₀": r * a + (1 - r) * (1 + c),
        "x₀₋₁": r * (b - a) - (1 - r) * c,
        "x₀₋₂": -r * b,
    }
    corrector = " + ".join(
        ["x̃ = x", *["a (x₀ − x₀₋₁)"][: len(levels) - 2], *["b (x₀₋₁ − x₀₋₂)"][: max(0, len(levels) - 3)]]
    )
    symbols = f"{corrector}\nx ← (σ′/σ) x̃ − (e⁻ʰ − 1) D, {_slanted(c)}"
    weights = [f"{name} = {number(value)}" for name, value in (("a", a), ("b", b)) if value]
    return symbols, ", ".join([*weights, _lambda_step(levels, c)]), terms


def _unipc_correction(levels: list[float]) -> tuple[float, float]:
    """What the corrector adds to the latest state: the weights of the newest and of the older change of x₀."""
    if len(levels) == 1:
        return 0.0, 0.0
    h = math.log(levels[-2] / levels[-1])
    phi1 = math.expm1(-h)
    if len(levels) == 2:
        return -phi1 / 2, 0.0
    r = math.log(levels[-2] / levels[-3]) / h
    phi2 = phi1 / -h - 1
    phi3 = phi2 / -h - 1 / 2
    b1, b2 = phi2 / phi1, 2 * phi3 / phi1
    rho = (b1 - b2) / (1 - r)
    return -phi1 * (b1 - rho), phi1 * (rho - 1 / 2) / r


def _plms(levels: list[float]) -> tuple[str, str, Terms]:
    if len(levels) == 2:
        return _heun(levels)
    weights, step = ADAMS[min(len(levels) - 1, len(SLOPES))], levels[-1] - levels[-2]
    symbols = f"x ← x + (σ′ − σ) ∑ c d, d = (x − x₀)/σ of the last {len(weights)} steps"
    values = f"σ′ − σ = {number(step)}, c = {', '.join(map(number, weights))}"
    return symbols, values, {"x": 1.0, **{d: step * c for d, c in zip(SLOPES, weights, strict=False)}}


def _lms(levels: list[float]) -> tuple[str, str, Terms]:
    known = levels[-2 : -2 - len(SLOPES) : -1]
    weights = adams_weights(np.array(known), levels[-1])
    symbols = "x ← x + ∑ c d, d = (x − x₀)/σ of " + ("this step" if len(known) == 1 else f"the last {len(known)} steps")
    values = "c: the integrals from σ to σ′ of the polynomials through these slopes"
    return symbols, values, {"x": 1.0, **dict(zip(SLOPES, weights, strict=False))}


def _extrapolation(levels: list[float]) -> float:
    """h / (2 h₋₁), h the step in -log σ; 0 where the method is of first order, at both ends."""
    if len(levels) == 2 or levels[-1] == 0:
        return 0.0
    h_before, h = (math.log(s / s_next) for s, s_next in pairwise(levels[-3:]))
    return h / (2 * h_before)


def _slanted(c: float) -> str:
    return "D = x₀ + h/(2h₋₁) (x₀ − x₀₋₁)" if c else "D = x₀"


def _lambda_step(levels: list[float], c: float) -> str:
    h = math.log(levels[-2] / levels[-1]) if levels[-1] else math.inf
    extrapolation = f", h/(2h₋₁) = {number(c)}" if c else ""
    return f"h = ln(σ/σ′) = {number(h)}{extrapolation}"


def _ratio(s: float, s_next: float) -> str:
    return f"σ′/σ = {number(s_next)} / {number(s)} = {number(s_next / s)}"


def _default(sampler: Callable, knob: str) -> float:
    return inspect.signature(sampler).parameters[knob].default


FORMULAS: dict[str, Callable[[list[float]], tuple[str, str, Terms]]] = {
    "dpmpp_2m": _dpmpp_2m,
    "unipc": _unipc,
    "ddim": partial(_ddim, eta=0.0),
    "ddpm": partial(_ddim, eta=1.0),
    "euler": _euler,
    "euler_ancestral": partial(_ddim, eta=1.0),
    "euler_maruyama": _reverse_sde,
    "predictor_corrector": _predictor_corrector,
    "heun": _heun,
    "ode": _ode,
    "dpmpp_2m_sde": _dpmpp_2m_sde,
    "plms": _plms,
    "lms": _lms,
}
"""The noise levels of a run so far, the last two of which are the step's -> its symbols, their values, its terms."""
