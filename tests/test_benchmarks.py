"""What the benchmarks train and count: variants that are what they say, tables, and what follows from them."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attenua import presets
from attenua.config import Config, FittedGrid, override, to_dict
from attenua.model import build_process
from attenua.process import precondition
from attenua.sampling import Fitted, Karras, solver
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import ablation
import drawings
import few_calls
import inpainting
import solvers

sys.path.pop(0)

ALL = [(study, variant) for study, variants in ablation.STUDIES.items() for variant in variants]


def changed(variant: ablation.Variant) -> Config:
    return override(presets.preset("cifar10"), list(variant.changes))


@pytest.mark.parametrize(("study", "variant"), ALL, ids=lambda part: getattr(part, "name", part))
def test_a_variant_can_be_trained_sampled_and_compared(study: str, variant: ablation.Variant) -> None:
    config = changed(variant)
    process = build_process(config.model)
    precondition(config.model.process.precondition, process, config.model.s_d, 1.0)
    solver(variant.solver or config.sampling.solver).check(process)
    names = {other.name for other in ablation.STUDIES[study]}
    assert variant.beside in names
    assert variant.of is None or (variant.of in names and not variant.changes)


def test_variants_have_names_of_their_own_and_fourteen_are_trained() -> None:
    for variants in ablation.STUDIES.values():
        assert len({variant.name for variant in variants}) == len(variants)
    assert sum(variant.of is None for variant in ablation.ABLATION) == 14


def test_laws_differ_from_what_they_are_compared_with_by_the_law_alone() -> None:
    base = {variant.name: variant for variant in ablation.ABLATION}
    for variant in ablation.ABLATION:
        if variant.factor in ("law", "noise law") and variant.solver is None:
            beside = base[variant.beside]
            ours, theirs = to_dict(changed(variant)), to_dict(changed(base[beside.of or beside.name]))
            process = {
                key for key, value in ours["model"]["process"].items() if theirs["model"]["process"][key] != value
            }
            assert len(process) == 1
            ours["model"].pop("process"), theirs["model"].pop("process")
            ours.pop("sampling"), theirs.pop("sampling")  # the free-slope law has solvers of its own
            assert ours == theirs


def test_an_unknown_variant_is_named() -> None:
    with pytest.raises(ValueError, match="no variant 'nothing'"):
        ablation.chosen(ablation.ABLATION, "default,nothing")


def wanted(**given: Any) -> list[tuple[str, str, int]]:
    flags = {"rows": None, "solvers": "all", "grids": "default", "calls": "5", "metric": "fid"}
    return solvers.wanted(argparse.Namespace(**{**flags, **given}))


def test_rows_are_asked_for_in_an_order() -> None:
    rows = wanted(rows=["ode/karras/5,3", "released/released/2"])
    assert rows == [("ode", "karras", 5), ("ode", "karras", 3), ("released", "released", 2)]
    with pytest.raises(ValueError, match="SOLVER/GRID/CALLS"):
        wanted(rows=["ode/karras"])


def test_no_distance_is_asked_of_rules_with_fresh_noise() -> None:
    assert ("posterior", "default", 5) in wanted()
    assert not {name for name, _, _ in wanted(metric="distance")} & set(solvers.FRESH)


def test_grids_fitted_by_other_measures_have_names_of_their_own() -> None:
    record = FittedGrid(2, "multistep", (0.8, 0.1))
    grids = [Karras(), Fitted(record), Fitted(replace(record, measure="lpips"))]
    assert [solvers.named(grid) for grid in grids] == ["karras", "fitted", "fitted by lpips"]


@pytest.mark.parametrize("calls", [1, 4, 10, 100])
def test_the_time_of_a_row_is_bounded_from_above(calls: int) -> None:
    rows = [{"nfe": nfe, "seconds": 6 + 0.8 * nfe} for nfe in (5, 20)]
    assert solvers.at_most(calls, rows) >= 6 + 0.8 * calls or calls < 5
    assert solvers.at_most(calls, rows) <= max(1.0, calls / 5) * 10
    assert solvers.at_most(calls, []) == 0


def row(solver_name: str, nfe: int, value: float, grid: str = "karras", **more: Any) -> dict[str, Any]:
    told = {"metric": "fid", "samples": 100, "default": False}
    return {**told, "solver": solver_name, "grid": grid, "nfe": nfe, "value": value, **more}


def write(path: Path, rows: list[dict[str, Any]], gpu: str = "A") -> Path:
    report = {"rows": rows, "protocol": {}, "machine": {"gpu": gpu}, "versions": {}, "commit": None}
    path.write_text(json.dumps(report))
    return path


OURS = [row("multistep", nfe, value, default=True) for nfe, value in ((5, 20.0), (10, 14.0), (20, 12.0), (50, 11.0))]


def test_reports_are_put_into_one(tmp_path: Path) -> None:
    first = write(tmp_path / "a.json", [*OURS[:2], row("ode", 5, 30.0, samples=7)])
    second = write(tmp_path / "b.json", [*OURS[2:], {**OURS[0], "default": False}])
    whole = few_calls.merged([second, first], 100)
    assert whole["rows"] == OURS
    assert list(few_calls.curves(whole["rows"])) == ["the default", "multistep"]


@pytest.mark.parametrize(
    ("rows", "gpu", "told"), [([row("multistep", 5, 21.0)], "A", "21.0"), ([row("ode", 5, 30.0)], "B", "on B")]
)
def test_what_does_not_fit_is_refused(tmp_path: Path, rows: list[dict[str, Any]], gpu: str, told: str) -> None:
    paths = [write(tmp_path / "a.json", OURS), write(tmp_path / "b.json", rows, gpu)]
    with pytest.raises(ValueError, match=told):
        few_calls.merged(paths, 100)


def test_what_follows_from_a_table() -> None:
    many = [row("ancestral", 100, 13.0, "uniform"), row("ancestral", 100, 15.0), row("ancestral", 1000, 10.0)]
    lines = list(few_calls.findings([*OURS, row("released", 10, 40.0), *many]))
    assert "default over released, 5 calls: not measured (target 0.35)" in lines
    assert "default over released, 10 calls: 14.00 / 40.00 = 0.350 (target 0.42: met)" in lines
    assert "default, 10 calls over 50: 14.00 / 11.00 = 1.273 (target 1.1: NOT met)" in lines
    assert "best at 10 calls: multistep on karras, 14.00; the default 14.00" in lines
    assert "ancestral, 100 calls on uniform: 13.00; matched by the default's 20 calls, 12.00" in lines
    assert "ancestral, 1000 calls on karras: 10.00; matched by the default's none up to 50" in lines


def test_a_table_in_markdown_has_the_least_of_each_column_in_bold() -> None:
    others = [row("ode", nfe, value) for nfe, value in ((5, 120.0), (10, 30.0), (20, 11.5))]
    lines = list(few_calls.markdown([*others, *OURS, row("ode", 10, 9.0, "uniform"), row("ancestral", 10, 1.0)]))
    assert [line.count("|") for line in lines] == [12] * 4
    assert lines[2] == "| `multistep` | karras |  |  | **20.0** |  | 14.0 |  | 12.0 |  | **11.0** |"
    assert lines[3] == "| `ode` | karras |  |  | 120 |  | 30.0 |  | **11.5** |  |  |"


def test_drawings_that_are_the_same_agree_and_others_do_not() -> None:
    rng = np.random.default_rng(0)
    lines = np.zeros((3, 40, 60), bool)
    lines[0, 10], lines[1, 10], lines[2, 30] = True, True, True
    figures = drawings.compare(lines, lines)
    assert figures["agreement_people"] == figures["agreement_samples"] == pytest.approx(1 / 3)  # one pair of three
    assert figures["cross"] == pytest.approx(5 / 9)
    assert figures["where"] == pytest.approx(1)
    same = np.repeat(lines[:1], 4, 0)
    assert drawings.compare(lines, same)["agreement_samples"] == 1
    assert drawings.compare(lines, same)["spread_samples"] == pytest.approx(0, abs=1e-9)
    assert drawings.compare(lines, same)["where"] == 0
    assert drawings.agreement([(lines[0], rng.random((40, 60)) > 2)]) == 0


@pytest.mark.parametrize("count", [1, 2, 6])
def test_filled_holes_have_rows_of_the_kinds_that_there_are(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    class Nothing(torch.nn.Module):
        def forward(self, made: torch.Tensor, target: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            return (made - target).abs().mean()

    monkeypatch.setattr(inpainting, "Perceptual", lambda *_, **__: Nothing())
    truths = [torch.full((3, 32, 32), 20 + 40 * index, dtype=torch.uint8) for index in range(count)]
    holes = inpainting.masks.mask_set(count, 32, 32, seed=0)
    method = inpainting.Method({"method": "zero"}, lambda picture, hole: picture)
    rows = list(inpainting.quality([method], truths, holes, "cpu"))
    numbers = {row["holes"]: row["samples"] for row in rows}
    kinds = {"all": count, "strokes": (count + 1) // 2, "boxes": count // 2, "thick boxes": count // 6}
    kinds |= {"one box": count // 2, "strokes, one box": count}
    assert numbers == {kind: number for kind, number in kinds.items() if number}
    assert all(np.isfinite(row["value"]) for row in rows)
