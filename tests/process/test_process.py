"""Process: the path, the reverse formula for every law, the flow, and the clock."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attenua.process import LAWS, NOISES, FreeSlope, Linear, Prediction, Process, Wiener, noise
from tests.process.support import ORACLES, PAIRS, TIMES, basis, build, number, sine

reproducible = settings(derandomize=True, database=None, deadline=None, max_examples=60)


def processes() -> list[Process]:
    return [build(*pair) for pair in PAIRS] + [Process(sine(), Wiener()), Process(sine(), Linear())]


def named(process: Process) -> str:
    return f"{process.law.name}-{process.noise.name}"


def true_prediction(process: Process, x_t: Tensor, t: float, x0: Tensor, slope: Tensor) -> Prediction:
    """What a model that knows everything says of a state: its eps is whatever noise is in the state."""
    if isinstance(process.law, FreeSlope):
        signal = process.a(t) * x0 + process.law.b(number(t)) * slope
        return Prediction(x0, (x_t - signal) / process.sigma(t), slope, -x0 - slope / 2)
    return Prediction(x0, (x_t - process.a(t) * x0) / process.sigma(t))


@pytest.mark.parametrize("eta", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_posterior_equals_the_oracle(pair: tuple[str, str], eta: float) -> None:
    process = build(*pair)
    x0, eps, z = basis(3)
    rows = [row for row in ORACLES["posterior"] if (row["law"], row["noise"]) == pair]
    assert rows
    for row in rows:
        t, u = float(row["t"]), float(row["u"])
        x_t = process.perturb(x0, t, eps)
        x_u = process.posterior_step(x_t, t, u, Prediction(x0, eps), eta, z)
        noise_weight = {1.0: row["ceps"], 0.5: row["eta_half_ceps"], 0.0: row["ode_ceps"]}[eta]
        wanted = torch.tensor([row["ax0"], noise_weight, eta * row["sd"]], dtype=torch.float64)
        # Form A takes a difference from x_t, whose parts are of size one: their rounding is the absolute tolerance.
        torch.testing.assert_close(x_u.flatten(), wanted, rtol=1e-12, atol=3e-16)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("noise_name", NOISES)
def test_the_path_ends_in_pure_noise_and_starts_at_the_image(name: str, noise_name: str) -> None:
    """x_0 + H_1 = 0 for every law."""
    process = build(name, noise_name)
    x0, eps, slope = basis(3)
    start, end = process.perturb(x0, 0.0, eps, slope), process.perturb(x0, 1.0, eps, slope)
    assert torch.equal(start, x0)
    assert torch.equal(end, eps)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("noise_name", NOISES)
def test_the_path_is_finite_at_float32_for_any_time(name: str, noise_name: str) -> None:
    process = build(name, noise_name)
    x0, eps = torch.randn(len(TIMES), 3, 2, 2), torch.randn(len(TIMES), 3, 2, 2)
    slope = process.draw_slope(torch.randn_like(x0))
    x_t = process.perturb(x0, torch.tensor(TIMES), eps, slope)
    assert x_t.dtype == torch.float32
    assert bool(torch.isfinite(x_t).all())
    assert torch.equal(x_t[0], x0[0])
    assert torch.equal(x_t[-1], eps[-1])


def test_the_free_slope_needs_its_slope() -> None:
    process = Process(FreeSlope())
    (x0,) = basis(1)
    with pytest.raises(ValueError, match="needs the slope K"):
        process.perturb(x0, 0.5, x0)
    with pytest.raises(ValueError, match="needs a prediction of slope and offset"):
        process.posterior_step(x0, 0.5, 0.1, Prediction(x0, x0), 0.0)


def test_the_slope_is_a_clamped_normal_of_the_stated_variance() -> None:
    process = Process(FreeSlope())
    slope = process.draw_slope(torch.randn(1, 1, 1000, 1000, dtype=torch.float64))
    assert float(slope.abs().max()) == 1
    # E[K^2] = erf(1/sqrt 2) - sqrt(2/pi) e^(-1/2) + P(|K| > 1)
    density = math.sqrt(2 / math.pi) * math.exp(-0.5)
    assert process.slope_variance == pytest.approx(1 - density, rel=1e-14)
    assert process.slope_variance == pytest.approx(ORACLES["k2"], rel=1e-14)
    assert float(slope.var()) == pytest.approx(process.slope_variance, abs=4 * 0.38e-3)


@pytest.mark.parametrize("noise_name", NOISES)
def test_the_free_slope_path_is_the_integral_of_its_rate(noise_name: str) -> None:
    """x_t = x_0 + K t^2/2 + C t + sigma eps with C = -x_0 - K/2."""
    process = Process(FreeSlope(), noise(noise_name))
    x0, slope, eps = basis(3)
    offset = -x0 - slope / 2
    for t in TIMES:
        integral = x0 + slope * t**2 / 2 + offset * t + process.sigma(t) * eps
        torch.testing.assert_close(process.perturb(x0, t, eps, slope), integral, rtol=0, atol=3e-16)


steps_down = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8, unique=True).map(lambda t: sorted(t, reverse=True))


@reproducible
@given(
    name=st.sampled_from([*LAWS, "sine"]),
    noise_name=st.sampled_from(list(NOISES)),
    times=steps_down,
    levels=st.lists(st.floats(0.0, 1.0), min_size=8, max_size=8),
    start=st.floats(0.01, 1.0),
)
def test_any_chain_of_posterior_steps_has_the_right_marginal(
    name: str, noise_name: str, times: list[float], levels: list[float], start: float
) -> None:
    """Given the true x_0 (and K), x_u ~ q(x_u | x_0) after any steps with any legal noise levels: exact algebra.

    levels: each step's eta as a share of the largest legal one (of 3 where any is legal).
    """
    process = Process(sine(), noise(noise_name)) if name == "sine" else build(name, noise_name)
    times = [start * t for t in times if t > 1e-12 or t == 0]
    x0, slope, eps, *draws = basis(3 + len(times))
    t = start
    x = process.perturb(x0, t, eps, slope)
    for u, level, z in zip(times, levels, draws, strict=False):
        if u >= t * (1 - 1e-9):
            continue
        eta = level * min(float(process.largest_eta(t, u)), 3.0)
        x = process.posterior_step(x, t, u, true_prediction(process, x, t, x0, slope), eta, z)
        t = u
    image, slope_weight, *noises = x.flatten().tolist()
    b = float(process.law.b(number(t))) if isinstance(process.law, FreeSlope) else 0.0
    assert image == pytest.approx(float(process.a(t)), abs=1e-13)
    assert slope_weight == pytest.approx(b, abs=1e-13)
    assert math.hypot(*noises) == pytest.approx(float(process.sigma(t)), abs=1e-13)


def test_a_chain_of_real_draws_has_the_right_marginal() -> None:
    process = build("constant", "wiener")
    x0 = torch.full((1, 1, 400, 400), 0.7, dtype=torch.float64)
    x = process.perturb(x0, 1.0, torch.randn_like(x0))
    for t, u in [(1.0, 0.8), (0.8, 0.3), (0.3, 0.1)]:
        x = process.posterior_step(x, t, u, true_prediction(process, x, t, x0, x0), 1.0, torch.randn_like(x0))
    assert float(x.mean()) == pytest.approx(0.9 * 0.7, abs=4 * math.sqrt(0.1) / 400)
    assert float(x.var()) == pytest.approx(0.1, rel=4 * math.sqrt(2) / 400)


@pytest.mark.parametrize("process", processes(), ids=named)
def test_one_long_step_of_the_flow_equals_many_short_ones(process: Process) -> None:
    generator = torch.Generator().manual_seed(1)
    x_t, x0 = torch.randn(2, 2, 1, 2, 2, generator=generator, dtype=torch.float64)
    times = [0.97, 0.9, 0.6, 0.31, 0.3, 0.02, 1e-5]
    for start, end in [(1.0, 0.0), (0.99, 0.0), (1.0, 1e-8)]:
        path = [start, *times, end]
        short = x_t
        for t, u in zip(path, path[1:], strict=False):
            short = process.flow_step(short, t, u, x0)
        torch.testing.assert_close(short, process.flow_step(x_t, start, end, x0), rtol=1e-12, atol=1e-13)
        # and for a frozen pair (x0, eps) by the reverse formula without noise
        prediction = Prediction(x0, x_t - x0)
        short = x_t
        for t, u in zip(path, path[1:], strict=False):
            short = process.posterior_step(short, t, u, prediction, 0.0)
        long = process.posterior_step(x_t, start, end, prediction, 0.0)
        torch.testing.assert_close(short, long, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("process", processes(), ids=named)
def test_the_forms_of_the_reverse_formula_agree_for_consistent_predictions(process: Process) -> None:
    """Form A (by H and from x_t) equals form B (from x0 and eps alone); the flow is eta = 0."""
    x0, eps, z = basis(3)
    for t, u in [(1.0, 0.9), (1.0, 0.0), (0.6, 0.2), (0.01, 1e-6), (0.5, 0.0)]:
        x_t = process.perturb(x0, t, eps)
        for eta in (0.0, 0.3, 1.0):
            variance = float(process.posterior_variance(t, u))
            kept = math.sqrt(max(float(process.sigma(u)) ** 2 - eta**2 * variance, 0))
            form_b = process.a(u) * x0 + kept * eps + eta * math.sqrt(variance) * z
            form_a = process.posterior_step(x_t, t, u, Prediction(x0, eps), eta, z)
            torch.testing.assert_close(form_a, form_b, rtol=1e-12, atol=3e-16)
        flow = process.flow_step(x_t, t, u, x0)
        torch.testing.assert_close(
            flow, process.posterior_step(x_t, t, u, Prediction(x0, eps), 0.0), rtol=0, atol=3e-16
        )


def test_the_flow_is_exact_for_one_picture() -> None:
    """If every image is x_0, E[x_0 | x_t] = x_0, and the flow takes any state to it in one step."""
    process = build("linear_rising", "linear")
    x0, eps = basis(2)
    for t in (1.0, 0.4):
        torch.testing.assert_close(process.flow_step(process.perturb(x0, t, eps), t, 0.0, x0), x0, rtol=0, atol=3e-16)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_a_noise_level_above_the_largest_is_clamped(pair: tuple[str, str]) -> None:
    process = build(*pair)
    x0, eps, z = basis(3)
    for t, u in [(1.0, 0.5), (0.7, 0.69), (0.3, 1e-4), (0.3, 0.0)]:
        x_t = process.perturb(x0, t, eps)
        largest = float(process.largest_eta(t, u))
        assert largest >= 1
        fullest = process.posterior_step(x_t, t, u, Prediction(x0, eps), largest, z)
        beyond = process.posterior_step(x_t, t, u, Prediction(x0, eps), 1e3 * largest, z)
        wanted = torch.tensor([float(process.a(u)), 0.0, float(process.sigma(u))], dtype=torch.float64)
        for x_u in (fullest, beyond):  # all noise is new; what is kept of the old is a root of rounding
            torch.testing.assert_close(x_u.flatten(), wanted, rtol=1e-12, atol=3e-8)


def test_at_zero_any_noise_level_is_legal_and_adds_nothing() -> None:
    process = build("constant", "linear")
    x0, eps, z = basis(3)
    for eta in (0.0, 1.0, 50.0):
        x_u = process.posterior_step(process.perturb(x0, 0.5, eps), 0.5, 0.0, Prediction(x0, eps), eta, z)
        torch.testing.assert_close(x_u, x0, rtol=0, atol=1e-15)


def test_times_may_differ_in_a_batch() -> None:
    process = build("square_root", "wiener")
    x0, eps, z = (torch.randn(4, 3, 2, 2, dtype=torch.float64) for _ in range(3))
    t, u = torch.tensor([1.0, 0.8, 0.5, 0.1]), torch.tensor([0.9, 0.2, 0.0, 0.05])
    x_t = process.perturb(x0, t, eps)
    x_u = process.posterior_step(x_t, t, u, Prediction(x0, eps), 0.7, z)
    flow = process.flow_step(x_t, t, u, x0)
    for row in range(4):
        one = slice(row, row + 1)
        given_t, given_u = float(t[row]), float(u[row])
        alone = process.posterior_step(x_t[one], given_t, given_u, Prediction(x0[one], eps[one]), 0.7, z[one])
        torch.testing.assert_close(x_u[one], alone, rtol=0, atol=1e-15)
        torch.testing.assert_close(
            flow[one], process.flow_step(x_t[one], given_t, given_u, x0[one]), rtol=0, atol=1e-15
        )


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("noise_name", NOISES)
def test_every_step_is_finite_from_end_to_end_in_float32(name: str, noise_name: str) -> None:
    process = build(name, noise_name)
    x, x0, eps, z = torch.randn(4, 2, 3, 4, 4).unbind()
    slope = process.draw_slope(torch.randn_like(x0))
    prediction = Prediction(x0, eps, slope, -x0 - slope / 2)
    for t, u in [(1.0, 0.0), (1.0, 1 - 1e-12), (1.0, 1e-30), (1e-12, 0.0), (1e-12, 1e-13)]:
        for eta in (0.0, 1.0, 5.0):
            assert bool(torch.isfinite(process.posterior_step(x, t, u, prediction, eta, z)).all())
        if process.law.deterministic:
            assert bool(torch.isfinite(process.flow_step(x, t, u, x0)).all())


def test_bad_steps_are_refused() -> None:
    process = Process()
    (x,) = basis(1)
    with pytest.raises(ValueError, match=r"eta is -0.1; allowed is a number from 0"):
        process.posterior_step(x, 0.5, 0.1, Prediction(x, x), -0.1)
    with pytest.raises(ValueError, match=r"eta = 1.0 needs noise z"):
        process.posterior_step(x, 0.5, 0.1, Prediction(x, x))
    with pytest.raises(ValueError, match=r"time 1.5 lies outside \[0, 1\]"):
        process.a(1.5)
    with pytest.raises(ValueError, match=r"time nan lies outside \[0, 1\]"):
        process.a(math.nan)
    with pytest.raises(ValueError, match="flow_step does not support the law 'free_slope'"):
        Process(FreeSlope()).flow_step(x, 0.5, 0.1, x)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_the_inverse_of_the_clock_equals_the_oracle(pair: tuple[str, str]) -> None:
    process = build(*pair)
    rows = [row for row in ORACLES["inverse"] if (row["law"], row["noise"]) == pair]
    assert rows

    def column(name: str) -> Tensor:
        return torch.tensor([float(row[name]) for row in rows], dtype=torch.float64)

    t = process.time_of_ratio(column("n"))
    torch.testing.assert_close(t, column("t"), rtol=1e-12, atol=0)
    # a(t) has as many digits as 1 - t has: t itself carries 1.1e-16.
    error = (process.a(t) - column("a")).abs()
    assert bool((error <= 1e-12 * column("a") + 3e-16 * process.law.dm(t)).all())


def clocks() -> list[Process]:
    return [*processes(), Process(FreeSlope(), Wiener()), Process(FreeSlope(), Linear())]


@pytest.mark.parametrize("process", clocks(), ids=named)
def test_ratio_to_time_and_back(process: Process) -> None:
    n = torch.logspace(-4, 4, 161, dtype=torch.float64)
    t = process.time_of_ratio(n)
    assert bool((t.diff() > 0).all())
    # An ulp of t moves n by dn/dt: the limit of any inverse kept in t.
    limit = 1e-12 + 3e-16 * process.law.dm(t) / process.a(t)
    assert bool(((process.ratio(t) / n - 1).abs() <= limit).all())


@pytest.mark.parametrize("process", clocks(), ids=named)
def test_time_to_ratio_and_back(process: Process) -> None:
    t = torch.cat(
        [torch.logspace(-9, -1, 33, dtype=torch.float64), torch.linspace(0.1, 0.999, 50, dtype=torch.float64)]
    )
    torch.testing.assert_close(process.time_of_ratio(process.ratio(t)), t, rtol=1e-12, atol=0)


@pytest.mark.parametrize("process", clocks(), ids=named)
def test_the_clock_runs_from_zero_to_infinity(process: Process) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert float(process.ratio(0.0)) == 0
    assert float(process.ratio(1.0)) > 1e15
    infinite = torch.tensor([0.0, math.inf], dtype=torch.float64)
    assert torch.equal(process.time_of_ratio(infinite), ends)
    assert float(process.log_snr(0.0)) == math.inf
    assert float(process.log_snr(0.5)) == pytest.approx(-math.log(float(process.ratio(0.5))), abs=1e-14)


def test_ratios_may_have_any_shape() -> None:
    process = build("quadratic", "linear")
    assert process.time_of_ratio(1.0).shape == ()
    assert process.time_of_ratio(torch.ones(2, 3)).shape == (2, 3)
    assert process.time_of_ratio(torch.ones(2, 3)).dtype == torch.float64


@pytest.mark.parametrize("process", clocks(), ids=named)
@pytest.mark.parametrize("wrong", [-1e-9, -1.0, -math.inf, math.nan])
def test_what_is_no_ratio_is_refused(process: Process, wrong: float) -> None:
    for n in (wrong, torch.tensor([1.0, wrong, 2.0], dtype=torch.float64)):
        with pytest.raises(ValueError, match=f"n is {wrong}; allowed is a ratio from 0 to infinity"):
            process.time_of_ratio(n)
