"""Solvers where the exact answer is known: end points on a mixture of Gaussians in the plane; seconds on any machine.

    python benchmarks/mixture.py

Distance: root mean square over coordinates between a solver's end points and those of 1,000 calls of unipc-3 from the
same noise. It shows what a solver does to an exact prediction, and nothing of what a network adds to it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attenua.config import ModelConfig, NetworkConfig
from attenua.model import AttenuationModel
from attenua.networks import Condition
from attenua.process import Prediction
from attenua.reports import write_report
from attenua.sampling import SOLVERS, Fit, Fitted, Grid, Karras, Solver, UniPC3, fit, grid, sample, solver

CALLS = (2, 3, 4, 5, 6, 8, 10, 15, 20, 40)
FITTED = (3, 4, 5, 6, 8, 10)
GRIDS = ("karras", "logsnr", "uniform")
FRESH = ("posterior", "released", "ancestral", "sde-dpmpp-2m")
SIDE, BATCH = 16, 8
OUT = Path(__file__).parent / "results" / "mixture.json"


class Mixture(AttenuationModel):
    """A model that knows its data: three Gaussians in the plane. A picture of 16 x 16 pixels is 128 points."""

    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    means = torch.tensor([[0.5, 0.3], [-0.6, 0.2], [0.1, -0.7]], dtype=torch.float64)
    deviations = torch.tensor([0.15, 0.25, 0.2], dtype=torch.float64)

    def __init__(self) -> None:
        network = NetworkConfig(image_size=SIDE, channels=1, width=8, multipliers=(1,), blocks=1, attention=(), heads=1)
        super().__init__(ModelConfig(network))
        self.data_mean.copy_((self.weights[:, None] * self.means).sum(0).repeat(SIDE * SIDE // 2).view(1, SIDE, SIDE))

    def forward(
        self, x_t: Tensor, t: float | Tensor, condition: Condition | None = None, *, combination: str | None = None
    ) -> Prediction:
        """Return the exact prediction."""
        self.calls += 1
        a, sigma = float(self.process.a(t)), float(self.process.sigma(t))
        flat = x_t.double().reshape(-1, 1, 2)
        size = (a * self.deviations) ** 2 + sigma**2
        away = flat - a * self.means
        shares = torch.softmax(torch.log(self.weights / size) - away.square().sum(-1) / (2 * size), dim=-1)
        mean = (shares[..., None] * (self.means + (a * self.deviations**2 / size)[:, None] * away)).sum(dim=1)
        return Prediction(mean.reshape(x_t.shape).float(), ((flat[:, 0] - a * mean) / sigma).reshape(x_t.shape).float())


def ends(model: Mixture, rule: Solver, chosen: Grid, calls: int) -> Tensor:
    """Return end points."""
    return sample(model, (BATCH, 1, SIDE, SIDE), steps=calls, solver=rule, grid=chosen, seed=1, clip=False)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    model, rows = Mixture(), list[dict[str, Any]]()
    wanted = ends(model, UniPC3(), Karras(), 1000)

    def measure(rule: Solver, chosen: Grid, calls: int, label: str | None = None) -> None:
        away = (ends(model, rule, chosen, calls) - wanted).double()
        row = {"metric": "distance", "value": float(away.square().mean().sqrt()), "nfe": calls, "solver": rule.name}
        rows.append({**row, "grid": label or chosen.label, "model": "mixture", "samples": BATCH * SIDE * SIDE // 2})

    for name in SOLVERS:
        for calls in CALLS if name not in FRESH else ():
            for kind in GRIDS if name in ("multistep", "deis-3", "ode") else GRIDS[:1]:
                measure(solver(name), grid(kind), calls)
    for calls in CALLS:
        for name in ("multistep", "deis-3"):
            measure(solver(name), grid("karras+mean"), calls)
            measure(solver(name), grid("uniform+mean"), calls)
            for high in (5, 20):
                measure(solver(name), Karras(n_max=high), calls, f"karras {high}")
                measure(solver(name), Karras(n_max=high, mean=True), calls, f"karras {high}+mean")
    work = Fit(model, trajectories=16, held_out=8, reference=200, batch=16)
    for name in ("multistep", "deis-3", "ipndm-4"):
        for calls in FITTED:
            found = fit(work, solver(name), calls)
            measure(solver(name), Fitted(found, mean=found.mean), calls)
    protocol = {"reference": "unipc-3, karras, 1000 calls", "fitted_on": "other noise: 2,048 points of seed 0"}
    write_report(args.out, args.out.stem, rows, protocol)
    table: dict[str, dict[int, float]] = {}
    for row in rows:
        table.setdefault(f"{row['solver']:10} {row['grid']}", {})[row["nfe"]] = row["value"]
    print(f"{'':26}" + "".join(f"{calls:8}" for calls in CALLS))
    for line, values in table.items():
        print(f"{line:26}" + "".join(f"{values[n]:8.4f}" if n in values else " " * 8 for n in CALLS))


if __name__ == "__main__":
    main()
