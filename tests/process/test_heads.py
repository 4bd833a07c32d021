"""Heads: preconditioning by closed forms, combinations of the heads, and the targets that undo them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from attenua.process import (
    COMBINATIONS,
    LAWS,
    NOISES,
    Constant,
    FreeSlope,
    Linear,
    Process,
    Wiener,
    noise,
    precondition,
)
from attenua.process.heads import FreeSlopeRule, Published, Rule, TwoHeads
from attenua.process.peers import Epsilon, Velocity
from tests.process.support import ORACLES, PAIRS, TIMES, basis, build, number, sine

SCALES = (0.05, 0.5, 1.0)
CERTAIN = (0.5, 0.1, 0.01)
"""Values of Rule.skip_deviation for data of which a condition tells something."""
CONSISTENT = [name for name in COMBINATIONS if name != "released"]


def two_heads() -> list[TwoHeads]:
    """Every preconditioning of a deterministic law."""
    rules: list[TwoHeads] = [Rule(build(*pair), s_d) for pair in PAIRS for s_d in SCALES]
    rules += [Rule(build(*pair), 0.5, 0.1) for pair in PAIRS]
    rules += [Rule(Process(), s_d, skip_deviation) for s_d in SCALES for skip_deviation in CERTAIN]
    rules += [Rule(Process(sine(), Wiener()), 0.5), *(Published(Process(), s_d) for s_d in SCALES)]
    rules += [Velocity(build(*pair), 0.5) for pair in PAIRS]
    return rules


def named(rule: TwoHeads) -> str:
    certain = f"-{rule.skip_deviation}" if isinstance(rule, Rule) and rule.skip_deviation < 1 else ""
    return f"{rule.name}-{rule.process.law.name}-{rule.process.noise.name}-{rule.s_d}{certain}"


def size_of(rule: TwoHeads) -> float:
    """Return about the largest coefficient of the rule's estimates: rounding errors are measured in it."""
    return 1 / (rule.s_d * rule.skip_deviation) if isinstance(rule, Rule) else 1 / rule.s_d


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("s_d", ["0.1", "0.5", "1"])
def test_the_rule_equals_the_oracle(pair: tuple[str, str], s_d: str) -> None:
    known = [row for row in ORACLES["precondition"] if (row["law"], row["noise"], row["s_d"]) == (*pair, s_d)]
    assert known
    rule = Rule(build(*pair), float(s_d))
    t = torch.tensor([float(row["t"]) for row in known], dtype=torch.float64)
    image, noisy = rule.image_head(t), rule.noise_head(t)
    found = torch.stack([rule.c_in(t), image.x, image.f, noisy.x, noisy.g])
    names = ("c_in", "skip_x", "out_x", "skip_e", "out_e")
    wanted = torch.tensor([[row[name] for row in known] for name in names], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    assert not image.g.any()
    assert not noisy.f.any()


def test_the_rule_of_the_free_slope_equals_the_oracle() -> None:
    for row in ORACLES["free_slope"]:
        rule = FreeSlopeRule(Process(FreeSlope()), float(row["s_d"]))
        t = number(float(row["t"]))
        for head, (skip, out) in rule.scales(t).items():
            assert float(skip) == pytest.approx(row[f"skip_{head}"], rel=1e-12, abs=0)
            assert float(out) == pytest.approx(row[f"out_{head}"], rel=1e-12, abs=0)
        assert float(rule.c_in(t)) == pytest.approx(row["D"] ** -0.5, rel=1e-12)
        assert float(FreeSlope().b(t)) == pytest.approx(row["b"], rel=1e-12, abs=0)


def times_of(rule: TwoHeads, *, floor: bool = True) -> Tensor:
    """Return the times to look at; without those where the published noise head determines no image."""
    t = torch.tensor(TIMES, dtype=torch.float64)
    return t[(t == 1) | (1 - t >= 1e-4 * (1 - 1e-9))] if isinstance(rule, Published) and floor else t


def rows(t: Tensor, of: int) -> tuple[Tensor, ...]:
    """Return the basis vectors once a time, [T, 1, 1, of] each."""
    return tuple(vector.expand(len(t), 1, 1, of) for vector in basis(of))


def by(values: Tensor) -> Tensor:
    """Return one number a time, shaped to multiply pictures."""
    return values.view(-1, 1, 1, 1)


@pytest.mark.parametrize("rule", two_heads(), ids=named)
def test_combinations_keep_the_path(rule: TwoHeads) -> None:
    """x_t = a x0 + sigma eps to rounding, whatever the heads say, at every t including 0 and 1."""
    for how in CONSISTENT:
        t = times_of(rule, floor=how != "image")
        x_t, f, g = rows(t, 3)
        x0, eps, *_ = rule.predict(x_t, t, (f, g), how)
        again = by(rule.process.a(t)) * x0 + by(rule.process.sigma(t)) * eps
        torch.testing.assert_close(again, x_t, rtol=0, atol=1e-15 * (1 + 2 * size_of(rule)))


@pytest.mark.parametrize("rule", two_heads(), ids=named)
def test_combinations_are_what_they_are_called(rule: TwoHeads) -> None:
    t = times_of(rule)
    x_t, f, g = rows(t, 3)
    m, a, sigma = (by(values) for values in (rule.process.law.m(t), rule.process.a(t), rule.process.sigma(t)))
    x0_hat, eps_hat = rule.image_head(t)(x_t, f, g), rule.noise_head(t)(x_t, f, g)
    found = {how: rule.predict(x_t, t, (f, g), how) for how in COMBINATIONS}
    torch.testing.assert_close(found["image"].x0, x0_hat, rtol=0, atol=0)
    torch.testing.assert_close(found["noise"].eps, eps_hat, rtol=0, atol=0)
    torch.testing.assert_close(a * found["noise"].x0, x_t - sigma * eps_hat, rtol=0, atol=2e-14)
    torch.testing.assert_close(found["mean"].x0, (found["image"].x0 + found["noise"].x0) / 2, rtol=0, atol=2e-15)
    torch.testing.assert_close(found["paper"].x0, x_t + m * x0_hat - sigma * eps_hat, rtol=0, atol=2e-14)
    torch.testing.assert_close(found["released"].x0, found["paper"].x0, rtol=0, atol=0)
    torch.testing.assert_close(found["released"].eps, eps_hat, rtol=0, atol=0)


@pytest.mark.parametrize("rule", two_heads(), ids=named)
def test_heads_that_say_their_targets_give_the_truth(rule: TwoHeads) -> None:
    """Under every combination; the published rule away from its floor, t = 1e-4 and t = 1 - 1e-4."""
    published = isinstance(rule, Published)
    t = times_of(rule)
    t = t[(t >= 1e-4) & (t < 1)] if published else t
    x0, eps = rows(t, 2)
    x_t = rule.process.perturb(x0, t, eps)
    targets = rule.targets(x0, eps, t)
    for how in COMBINATIONS:
        found = rule.predict(x_t, t, targets, how)
        size = max(size_of(rule), 100.0 if published else 1.0)
        torch.testing.assert_close(found.x0, x0, rtol=0, atol=2e-14 * size)
        torch.testing.assert_close(found.eps, eps, rtol=0, atol=2e-14 * size)


@pytest.mark.parametrize("rule", [rule for rule in two_heads() if isinstance(rule, Rule)], ids=named)
def test_targets_have_unit_variance_at_every_time(rule: Rule) -> None:
    """And so has the network's input. If nothing is known of x_0 they are independent: nothing linear is left."""
    t = times_of(rule)
    x0, eps = rows(t, 2)
    size = torch.tensor([rule.s_d, 1.0], dtype=torch.float64)  # independent ingredients: x0 of deviation s_d, eps of 1
    f, g = (target * size for target in rule.targets(x0, eps, t))
    seen = by(rule.c_in(t)) * rule.process.perturb(x0, t, eps) * size
    one = torch.ones(len(t), dtype=torch.float64)
    torch.testing.assert_close(f.flatten(1).norm(dim=1), one, rtol=1e-13, atol=0)
    torch.testing.assert_close(seen.flatten(1).norm(dim=1), one, rtol=1e-13, atol=0)
    if rule.skip_deviation == 1:
        torch.testing.assert_close((seen * f).flatten(1).sum(dim=1), 0 * one, rtol=0, atol=1e-13)
    assert torch.equal(g, -f)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_a_head_that_says_the_noise_gives_the_truth(pair: tuple[str, str]) -> None:
    """x0 to rounding over a, and the path is kept wherever a is above its floor; eps at every t."""
    rule = Epsilon(build(*pair), 0.5)
    t = torch.tensor(TIMES, dtype=torch.float64)
    x0, eps = rows(t, 2)
    x_t = rule.process.perturb(x0, t, eps)
    for how in ("image", "noise", "mean"):
        found = rule.predict(x_t, t, rule.targets(x0, eps, t), how)
        torch.testing.assert_close(found.eps, eps, rtol=0, atol=0)
        above = rule.process.a(t) >= rule.floor
        torch.testing.assert_close(found.x0[above], x0[above], rtol=0, atol=1e-11)
        assert bool(found.x0.isfinite().all())


def test_a_head_of_velocity_is_the_slope_of_the_straight_path() -> None:
    """On the constant law with linear noise the state is that path itself: dx/ds = eps - x0."""
    rule = Velocity(build("constant", "linear"), 0.5)
    t = torch.tensor([0.3, 0.7], dtype=torch.float64)
    x0, eps = rows(t, 2)
    slope = (rule.process.perturb(x0, t + 1e-3, eps) - rule.process.perturb(x0, t - 1e-3, eps)) / 2e-3
    torch.testing.assert_close(rule.targets(x0, eps, t)[0], slope, rtol=0, atol=1e-12)
    torch.testing.assert_close(rule.c_in(t), torch.ones_like(t), rtol=0, atol=1e-15)


@pytest.mark.parametrize("skip_deviation", [1.0, *CERTAIN])
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_the_closed_forms_are_those_of_the_skip(pair: tuple[str, str], skip_deviation: float) -> None:
    """x0_hat = c_skip x_t/a + c_out F, c_skip = s_c^2/(s_c^2 + n^2), c_out^2 = (1 - c_skip)^2 s_d^2 + c_skip^2 n^2."""
    rule = Rule(build(*pair), 0.5, skip_deviation)
    n = 0.5 * torch.logspace(-1.5, 1, 26, dtype=torch.float64)  # where the direct forms keep their digits
    t = rule.process.time_of_ratio(n)
    a, sigma = rule.process.a(t), rule.process.sigma(t)
    n = sigma / a
    skip = (0.5 * skip_deviation) ** 2 / ((0.5 * skip_deviation) ** 2 + n**2)
    out = torch.sqrt((1 - skip) ** 2 * 0.5**2 + skip**2 * n**2)
    image, noisy = rule.image_head(t), rule.noise_head(t)
    found = torch.stack([image.x, image.f, noisy.x, noisy.g])
    wanted = torch.stack([skip / a, out, (1 - skip) / sigma, out / n])
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_a_skip_lets_in_no_more_noise_than_half_its_deviation() -> None:
    """Where F = 0 the noise of x0_hat is at most s_c / 2, at n = s_c; for the smallest s_c, x0_hat is s_d F."""
    t = torch.tensor(TIMES, dtype=torch.float64)
    for skip_deviation in (1.0, *CERTAIN):
        rule = Rule(Process(), 0.5, skip_deviation)
        assert float((rule.image_head(t).x * rule.process.sigma(t)).max()) <= 0.25 * skip_deviation * (1 + 1e-12)
    image = Rule(Process(), 0.5, 0.001).image_head(t[t >= 0.01])
    torch.testing.assert_close(image.f, torch.full_like(image.f, 0.5), rtol=1e-4, atol=0)
    assert float(image.x.max()) < 1e-4


def free_rules() -> list[FreeSlopeRule]:
    return [FreeSlopeRule(Process(FreeSlope(), noise(name)), s_d) for name in NOISES for s_d in SCALES]


@pytest.mark.parametrize("rule", free_rules(), ids=lambda rule: f"{rule.process.noise.name}-{rule.s_d}")
def test_free_slope_targets_have_unit_variance_and_give_the_truth(rule: FreeSlopeRule) -> None:
    t = torch.tensor(TIMES, dtype=torch.float64)
    x0, slope, eps = rows(t, 3)
    size = torch.tensor([rule.s_d, math.sqrt(rule.process.slope_variance), 1.0], dtype=torch.float64)
    one = torch.ones(len(t), dtype=torch.float64)
    x_t = rule.process.perturb(x0, t, eps, slope)
    seen = by(rule.c_in(t)) * x_t * size
    torch.testing.assert_close(seen.flatten(1).norm(dim=1), one, rtol=1e-13, atol=0)
    targets = rule.targets(x0, eps, t, slope)
    for target in targets:
        torch.testing.assert_close((target * size).flatten(1).norm(dim=1), one, rtol=1e-12, atol=0)
        torch.testing.assert_close((seen * target * size).flatten(1).sum(dim=1), 0 * one, rtol=0, atol=1e-13)
    found = rule.predict(x_t, t, targets, "mean")
    for said, true in zip(found, (x0, eps, slope, -x0 - slope / 2), strict=True):
        torch.testing.assert_close(said, true, rtol=0, atol=1e-13)


def test_a_predicted_slope_is_clamped() -> None:
    rule = FreeSlopeRule(Process(FreeSlope()), 0.5)
    (x_t,) = basis(1)
    for head, clamped in [(50, 1), (-50, -1)]:
        slope = rule.predict(x_t, number(0.5), (0 * x_t, 0 * x_t, head * x_t), "mean").slope
        assert slope is not None
        assert float(slope) == clamped


def test_the_published_heads_are_the_published_formulas() -> None:
    """C_hat = (t - 1) x_t + t / sqrt(1 + t) F, x0_hat = -C_hat, eps_hat = sqrt(t) x_t + sqrt((1 - t)/(1 + t)) G."""
    rule = Published(Process(), 1.0)
    x_t, f, g = basis(3)
    for t in TIMES:
        c_hat = (t - 1) * x_t + t / math.sqrt(1 + t) * f
        torch.testing.assert_close(rule.image_head(number(t))(x_t, f, g), -c_hat, rtol=0, atol=1e-15)
        eps_hat = math.sqrt(t) * x_t + math.sqrt((1 - t) / (1 + t)) * g
        torch.testing.assert_close(rule.noise_head(number(t))(x_t, f, g), eps_hat, rtol=0, atol=1e-15)
        assert float(rule.c_in(number(t))) == pytest.approx(1 / math.sqrt(1 + t))


@pytest.mark.parametrize(("t", "scale"), [(1e-4, 100), (0.1, 3.6)])
def test_the_published_image_head_must_grow_towards_the_image(t: float, scale: float) -> None:
    """On data of unit variance its first head must reach a scale of 100 at t = 1e-4 and 3.6 at 0.1."""
    x0, eps = basis(2)
    f, g = Published(Process(), 1.0).targets(x0, eps, number(t))
    assert float(f.norm()) == pytest.approx(scale, rel=0.01)
    assert float(g.norm()) < 1.1


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("noise_name", NOISES)
@pytest.mark.parametrize("skip_deviation", [1.0, 0.01])
def test_everything_is_finite_at_both_ends_in_float32(name: str, noise_name: str, skip_deviation: float) -> None:
    process = build(name, noise_name)
    rule = precondition("rule", process, 0.5, skip_deviation if process.law.deterministic else 1.0)
    t = torch.tensor(TIMES, dtype=torch.float64)
    x0, eps, slope = torch.randn(3, len(TIMES), 2, 2, 2)
    slope = slope.clamp(-1, 1)
    x_t = rule.process.perturb(x0, t, eps, slope)
    targets = rule.targets(x0, eps, t, slope)
    assert len(targets) == rule.heads
    assert all(bool(torch.isfinite(target).all()) for target in targets)
    for how in COMBINATIONS:
        found = rule.predict(x_t, t, targets, how)
        for part in found:
            assert part is None or bool(torch.isfinite(part).all())
        assert found.x0.dtype == torch.float32
    assert bool(torch.isfinite(rule.c_in(t)).all())
    seen = rule.network_time(t)
    assert float(seen.min()) == pytest.approx(math.log(1e-4) / 4)
    assert float(seen.max()) == pytest.approx(math.log(1e4) / 4)
    assert bool((seen.diff() >= 0).all())


def test_published_is_finite_at_both_ends() -> None:
    rule = Published(Process(), 0.5)
    t = torch.tensor(TIMES, dtype=torch.float64)
    x0, eps, f, g = torch.randn(4, len(TIMES), 2, 2, 2)
    assert all(bool(torch.isfinite(target).all()) for target in rule.targets(x0, eps, t))
    for how in COMBINATIONS:
        found = rule.predict(x0, t, (f, g), how)
        assert bool(torch.isfinite(found.x0).all())
        assert bool(torch.isfinite(found.eps).all())
    assert float(rule.network_time(number(0.0))) == pytest.approx(math.log(1e-8))
    assert float(rule.network_time(number(0.3))) == pytest.approx(math.log(0.3))


def test_unfit_preconditioning_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown precondition 'edm'; known: rule, paper"):
        precondition("edm", Process(), 0.5)
    with pytest.raises(ValueError, match="needs the law 'constant' with 'wiener' noise, not 'constant' and 'linear'"):
        precondition("paper", Process(Constant(), Linear()), 0.5)
    with pytest.raises(ValueError, match="does not support the law 'free_slope'"):
        precondition("paper", Process(FreeSlope()), 0.5)
    with pytest.raises(ValueError, match="needs the law 'free_slope', not 'constant'"):
        FreeSlopeRule(Process(), 0.5)
    for s_d in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"s_d is {s_d}; allowed is a finite number above 0"):
            precondition("rule", Process(), s_d)
    for skip_deviation in (0.0, 1e-4, -0.5, 1.1, math.inf, math.nan):
        told = f"skip_deviation is {skip_deviation}; allowed is a number from 0.001 to 1"
        with pytest.raises(ValueError, match=told):
            precondition("rule", Process(), 0.5, skip_deviation)
    for name, law_name in (("paper", "constant"), ("rule", "free_slope")):
        told = f"0.5; with the precondition '{name}' for the law '{law_name}' it must be 1"
        with pytest.raises(ValueError, match=told):
            precondition(name, build(law_name, "wiener"), 0.5, 0.5)
    (x,) = basis(1)
    for law_rule in (precondition("rule", Process(), 0.5), precondition("rule", Process(FreeSlope()), 0.5)):
        with pytest.raises(ValueError, match="unknown combination 'sum'; known: mean, image, noise, paper, released"):
            law_rule.predict(x, number(0.5), (x,) * law_rule.heads, "sum")
    with pytest.raises(ValueError, match="needs the slope K"):
        precondition("rule", Process(FreeSlope()), 0.5).targets(x, x, number(0.5))
