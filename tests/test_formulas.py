"""The formulas that the app shows, against the engine: each step is recomputed from the numbers on display."""

import math
import re

import pytest
import torch
from mixture import TWO
from torch import Tensor

from diffusion.samplers import SAMPLERS, Step
from diffusion.schedules import EDM, karras
from diffusion.ui.formulas import FORMULAS, Formula, combination, formula, number


class Run:
    """One image's run on data with a known denoiser, which remembers every call and every draw of noise."""

    def __init__(self, sampler: str, steps: int) -> None:
        self.generator = torch.Generator().manual_seed(3)
        self.calls: list[tuple[Tensor, Tensor]] = []  # (state, prediction)
        self.draws: list[Tensor] = []
        sigmas = karras(EDM(), steps)
        x = sigmas[0] * self.noise(torch.zeros(1, 3, 4, dtype=torch.float64))
        self.steps = [Step(0, sigmas[0], x, torch.zeros_like(x), 0)]
        self.moments = [(0, 1)]  # calls and draws made by the end of each step
        for step in SAMPLERS[sampler].run(self.denoise, x, sigmas, noise=self.noise):
            self.steps.append(step)
            self.moments.append((len(self.calls), len(self.draws)))

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.calls.append((x, TWO.denoise(x, sigma)))
        return self.calls[-1][1]

    def noise(self, x: Tensor) -> Tensor:
        self.draws.append(torch.randn(x.shape, generator=self.generator, dtype=x.dtype))
        return self.draws[-1]

    def quantities(self, i: int) -> dict[str, Tensor]:
        """What the formula of step i speaks of."""
        before, after = self.steps[i - 1], self.steps[i]
        calls, draws = self.moments[i]
        found = {"x": before.x, "x₀": after.x0, "z": self.draws[draws - 1], "ε": self.draws[0]}
        found |= {"x̂₀": self.calls[calls - 1][1], "x̃": self.calls[calls - 1][0]}
        for age, name in enumerate(("", "₋₁", "₋₂", "₋₃")):
            if i - age >= 1:
                old, new = self.steps[i - age - 1], self.steps[i - age]
                found |= {f"x₀{name}": new.x0, f"d{name}": (old.x - new.x0) / old.sigma}
        # The adaptive step that was accepted made the last three calls; its first slope is that of its start.
        if calls >= 4 or i == 1:
            found["k₁"] = before.x - (before.x0 if i > 1 else self.calls[0][1])
            for name, (x, x0) in zip(("k₂", "k₃"), self.calls[calls - 3 : calls - 1], strict=False):
                found[name] = x - x0
        return found


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_every_step_is_the_sum_on_display(sampler: str, steps: int) -> None:
    run = Run(sampler, steps)
    assert run.steps[-1].sigma.item() == 0
    for i in range(1, len(run.steps)):
        shown, known = formula(sampler, run.steps[: i + 1]), run.quantities(i)
        total = sum(coefficient * known[quantity] for quantity, coefficient in shown.terms.items())
        torch.testing.assert_close(total, run.steps[i].x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_text_says_the_numbers(sampler: str) -> None:
    run = Run(sampler, 6)
    for i in range(1, len(run.steps)):
        shown = formula(sampler, run.steps[: i + 1])
        assert shown.text.endswith(f"\nx ← {combination(shown.terms)}")
        assert parsed(shown) == pytest.approx(shown.terms, rel=6e-3)


def parsed(shown: Formula) -> dict[str, float]:
    """The coefficients as a reader finds them in the last line."""
    line = " + " + shown.text.rsplit("x ← ", 1)[1]
    found = {}
    for sign, digits, exponent, quantity in re.findall(
        r" ([+−]) (?:([\d.]+)(?: × 10([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+))? )?([^\s\d]\S*)", line.replace("+ −", "− ")
    ):
        power = int(exponent.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")) or 0)
        found[quantity] = (-1 if sign == "−" else 1) * float(digits or 1) * 10.0**power
    return found


def test_what_the_formulas_say() -> None:
    levels = [3.1, 2.0, 1.0, 0.0]
    steps = [
        Step(i, torch.tensor(s, dtype=torch.float64), torch.zeros(1, 1), torch.zeros(1, 1), i)
        for i, s in enumerate(levels)
    ]
    assert formula("ddim", steps[:1]) == ("x = σ ε\nx = 3.10 ε", {"ε": 3.1})
    assert formula("ddim", steps[:2]).text == (
        "x ← x₀ + (σ′/σ)(x − x₀)\nσ′/σ = 2.00 / 3.10 = 0.645\nx ← 0.645 x + 0.355 x₀"
    )
    c = math.log(2) / math.log(1.55) / 2
    assert formula("dpmpp_2m", steps[:3]).text == (
        "x ← (σ′/σ) x − (e⁻ʰ − 1) D, D = x₀ + h/(2h₋₁) (x₀ − x₀₋₁)\n"
        f"h = ln(σ/σ′) = 0.693, h/(2h₋₁) = {c:.3f}\n"
        f"x ← 0.500 x + {0.5 + c / 2:.3f} x₀ − {c / 2:.3f} x₀₋₁"
    )
    assert formula("ddpm", steps).text.endswith("\nσ′ = 0: what is left is the prediction itself\nx ← x₀")
    assert "tolerance 0.001 relative, 0.001 absolute" in formula("ode", steps[:2]).text
    assert "h = 2 (0.16 ‖z‖/‖s‖)²" in formula("predictor_corrector", steps[:2]).text


def test_there_is_one_for_each_sampler() -> None:
    assert list(FORMULAS) == list(SAMPLERS)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (80.0, "80.0"), (3.1, "3.10"), (0.002, "0.00200"), (-0.5, "−0.500"), (250000, "2.50 × 10⁵"),
        (1e-5, "1.00 × 10⁻⁵"), (1234.4, "1234"), (math.inf, "∞"),
    ],
)  # fmt: skip
def test_numbers_are_written_to_three_digits(value: float, text: str) -> None:
    assert number(value) == text
