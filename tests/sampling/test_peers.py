"""Every solver against diffusers' scheduler of the same name: the same states on the same path, step by step.

What is fed and compared: the exact image of a mixture, and y = x / a. The schedulers' path is the variance-preserving
one, alpha = 1 / sqrt(1 + n^2), or the straight one, alpha = 1 - sigma, which is our constant law with linear noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from attenua.process import Process
from attenua.sampling import Karras, Solver, Uniform, solver
from tests.process.support import build
from tests.sampling.support import Mixture

diffusers = pytest.importorskip("diffusers", reason="the peers come with the dev extra")

pytestmark = pytest.mark.filterwarnings("ignore:__array_.*:DeprecationWarning")  # theirs, of numpy

N = 9
TOLERANCE = 1e-5
"""In y, whose pictures are of unit size: the schedulers compute in float32."""


def start(process: Process, t: float) -> Tensor:
    noise = torch.randn(5, 1, 1, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return float(process.sigma(t)) * noise


def ours(rule: Solver, process: Process, times: list[float], draws: list[Tensor] | None = None) -> list[Tensor]:
    """Return y after every step."""
    x, history, found = start(process, times[0]), [], []
    left = list(draws or [])
    for step, t, u in zip(rule.rules(N, times[0]), times, times[1:], strict=False):
        x = step.step(process, Mixture().predictor(process), x, t, u, history, lambda: left.pop(0))
        del history[3:]
        found.append(x / process.a(u))
    return found


def theirs(
    scheduler: Any,
    process: Process,
    times: list[float],
    sigmas: list[float],
    alpha: Callable[[float], float],
    draws: list[Tensor] | None = None,
) -> list[Tensor]:
    """Return y after every step of a scheduler that is told the image, on noise levels of our choice."""
    scheduler.set_timesteps(N)
    scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float64)
    scheduler.set_begin_index(0)
    predict, found = Mixture().predictor(process), []
    x = start(process, times[0]) / process.a(times[0]) * alpha(sigmas[0])
    for number, (t, u) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        state = x / alpha(t) * process.a(times[number])
        image = predict(state, times[number]).x0
        fed = {} if draws is None else {"variance_noise": draws[number]}
        x = scheduler.step(image, scheduler.timesteps[number], x, **fed).prev_sample.double()
        found.append(x / alpha(u))
    return found


def preserving(n: float) -> float:
    return float((1 + n * n) ** -0.5)


def straight(sigma: float) -> float:
    return 1 - sigma


PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "multistep": ("DPMSolverMultistepScheduler", {"solver_order": 2, "solver_type": "midpoint"}),
    "dpmpp-3m": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "ode": ("DPMSolverMultistepScheduler", {"solver_order": 1}),
    "unipc-2": ("UniPCMultistepScheduler", {"solver_order": 2, "solver_type": "bh2"}),
    "unipc-3": ("UniPCMultistepScheduler", {"solver_order": 3, "solver_type": "bh2"}),
    "deis-2": ("DEISMultistepScheduler", {"solver_order": 2}),
    "deis-3": ("DEISMultistepScheduler", {"solver_order": 3}),
}


def agree(found: list[Tensor], wanted: list[Tensor]) -> None:
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
        assert float((one - other).abs().max()) < TOLERANCE * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize("law", ["constant", "quadratic", "exponential"])
@pytest.mark.parametrize("name", PEERS)
def test_on_the_variance_preserving_path(name: str, law: str) -> None:
    """Any law with any noise is that path up to a factor, a / alpha, at equal n."""
    kind, fields = PEERS[name]
    process = build(law, "wiener")
    times = Karras(n_max=20).times(process, 0.5, N)
    sigmas = [float(process.ratio(t)) for t in times]
    scheduler = getattr(diffusers, kind)(prediction_type="sample", **fields)
    found, wanted = ours(solver(name), process, times), theirs(scheduler, process, times, sigmas, preserving)
    if name.startswith("deis"):  # its peer has 0 * infinity in the step to 0
        assert not bool(torch.isfinite(wanted[-1]).all())
        assert torch.isfinite(found[-1]).all()
        found, wanted = found[:-1], wanted[:-1]
    agree(found, wanted)


@pytest.mark.parametrize("name", PEERS)
def test_on_the_straight_path(name: str) -> None:
    """diffusers' flow matching: there a noise level is our time itself."""
    kind, fields = PEERS[name]
    process = build("constant", "linear")
    times = [0.98 * t for t in Uniform().times(process, 0.5, N)]
    scheduler = getattr(diffusers, kind)(prediction_type="sample", use_flow_sigmas=True, **fields)
    found, wanted = ours(solver(name), process, times), theirs(scheduler, process, times, times, straight)
    last = -1 if name.startswith("deis") else None
    agree(found[:last], wanted[:last])


def test_the_stochastic_rule_on_fed_noise() -> None:
    process = Process()
    times = Karras(n_max=20).times(process, 0.5, N)
    sigmas = [float(process.ratio(t)) for t in times]
    draws = [torch.randn(5, 1, 1, 2, generator=torch.Generator().manual_seed(k)).double() for k in range(N)]
    scheduler = diffusers.DPMSolverMultistepScheduler(prediction_type="sample", algorithm_type="sde-dpmsolver++")
    wanted = theirs(scheduler, process, times, sigmas, preserving, draws)
    agree(ours(solver("sde-dpmpp-2m"), process, times, draws), wanted)


def test_ancestral_is_the_rule_of_ddpm() -> None:
    """DDPM's own chain of N steps, fixed small variance: the noise is drawn by the scheduler and fed to us."""
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=N,
        beta_start=0.01,
        beta_end=0.9,
        prediction_type="sample",
        variance_type="fixed_small",
        clip_sample=False,
    )
    scheduler.set_timesteps(N)
    kept = [float(value) for value in scheduler.alphas_cumprod.double().sqrt().flip(0)] + [1.0]
    sigmas = [(1 / value**2 - 1) ** 0.5 for value in kept[:-1]] + [0.0]
    process = build("linear_falling", "linear")
    times = process.time_of_ratio(torch.tensor(sigmas, dtype=torch.float64)).tolist()
    draws = torch.Generator().manual_seed(4)
    predict, wanted = Mixture().predictor(process), []
    x = start(process, times[0]) / process.a(times[0]) * kept[0]
    for t, kept_t, kept_u, time in zip(scheduler.timesteps, kept, kept[1:], times, strict=False):
        image = predict(x / kept_t * process.a(time), time).x0
        x = scheduler.step(image.float(), t, x.float(), generator=draws).prev_sample.double()
        wanted.append(x / kept_u)
    again = torch.Generator().manual_seed(4)
    fed = [torch.randn(5, 1, 1, 2, generator=again).double() for _ in range(N)]
    agree(ours(solver("ancestral"), process, times, fed), wanted)


def test_heun_is_that_of_edm() -> None:
    """N calls are (N + 1) / 2 noise levels; the scheduler keeps all but the first twice."""
    process = Process()
    times = Karras(n_max=20).times(process, 0.5, (N + 1) // 2)
    levels = [float(process.ratio(t)) for t in times]
    scheduler = diffusers.HeunDiscreteScheduler(prediction_type="sample")
    scheduler.set_timesteps((N + 1) // 2)
    order = sorted([*range(len(levels)), *range(1, len(levels) - 1)])
    scheduler.sigmas = torch.tensor([levels[k] for k in order], dtype=torch.float64)
    scheduler.set_begin_index(0)
    predict, wanted = Mixture().predictor(process), []
    x = start(process, times[0]) / process.a(times[0])
    for number, k in enumerate(order[:-1]):
        image = predict(x * process.a(times[k]), times[k]).x0
        x = scheduler.step(image, scheduler.timesteps[number], x).prev_sample.double()
        if number % 2 == 1 or k == len(levels) - 2:
            wanted.append(x)
    assert number + 1 == N
    agree(ours(solver("heun"), process, times), wanted)


def test_ipndm_has_the_weights_of_its_peer() -> None:
    """The peer's trained_betas are sigma of its path, with alpha = sqrt(1 - sigma^2), the same at equal n.

    It keeps order 4 in the step to 0, we take first order there: that step is left out.
    """
    process = Process()
    times = Karras(n_max=20).times(process, 0.5, N)
    sigmas = [float(process.sigma(t) / (process.sigma(t) ** 2 + process.a(t) ** 2).sqrt()) for t in times]
    alphas = [(1 - s * s) ** 0.5 for s in sigmas]
    scheduler = diffusers.IPNDMScheduler(trained_betas=sigmas)
    scheduler.set_timesteps(N)
    scheduler.betas, scheduler.alphas = (torch.tensor(v, dtype=torch.float64) for v in (sigmas, alphas))
    scheduler.set_begin_index(0)
    predict, wanted = Mixture().predictor(process), []
    x = start(process, times[0]) / process.a(times[0]) * alphas[0]
    for number, t in enumerate(times[:-2]):
        eps = predict(x / alphas[number] * process.a(t), t).eps
        output = (eps - sigmas[number] * x) / alphas[number]  # which it turns into eps
        x = scheduler.step(output, scheduler.timesteps[number], x).prev_sample
        wanted.append(x / alphas[number + 1])
    agree(ours(solver("ipndm-4"), process, times)[:-1], wanted)
