"""How good are enlarged pictures, and what do they cost? Interpolation, other networks and a model on test pictures.

    python benchmarks/restoration.py --data data/Set5 data/Set14 data/BSD100 --model sr4 --calls 1,2,5
    python benchmarks/restoration.py --data data/Set5 --scale 4                      the two interpolations alone
    python benchmarks/restoration.py --data data/Set5 --model sr4 --peers --rdn FOLDER       other networks as well
    python benchmarks/restoration.py --data data/BSD100 --model sr4-photo --peers    blurred, noisy and compressed ones
    python benchmarks/restoration.py --data data/Set14 --model sr4 --doubt 8               is --uncertainty calibrated?
    python benchmarks/restoration.py --cost --model sr4 --calls 5                    seconds and memory alone

The small pictures are Pillow's bicubic reductions of the pictures cropped to a multiple of the scale; for a model of
photographs, or with --degradation photo, blurred before and noisy and compressed after it, by seed 0 and number. PSNR
and SSIM are those of luma (BT.601) without a border of `scale` pixels, LPIPS is AlexNet's on RGB, of outputs rounded to
8 bits.
A row "faithful" is the mean by one call; the others are samples ("detailed").

--doubt K: does the deviation of K samples, which `attenua upscale --uncertainty` writes, say how wrong the output is?
Over all values of all pixels: spread, the root mean square error of the samples' mean over what the deviation says that
it is (1: calibrated, more: too sure of itself); coverage within one and two deviations (of a normal error 0.683 and
0.954); the rank correlation of deviation and error, a pixel; and, by tenths of the pixels ordered by their deviation,
the root mean squares of both, in levels of 255.

--cost measures the command itself: seconds of `attenua upscale` for a 256 x 256 picture (start of the program apart),
and the most memory that it holds while it writes a picture of 12 megapixels. --model preset takes an untrained network
of the preset super-resolution: it costs what a trained one does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor

from attenua import AttenuationModel, images, weights
from attenua.data.degrade import crop_to_multiple
from attenua.presets import super_resolution
from attenua.reports import write_report
from attenua.sampling import to_bytes
from attenua.tasks import Conditional, load_conditional
from attenua.tasks.restoration import SuperResolution
from attenua.tasks.scoring import Enlarge, means, score_enlarged
from upscalers import upscalers

OUT = Path(__file__).parent / "results"
SMALL, LARGE = (256, 256), (1000, 750)
"""Width and height of the pictures of --cost; four times the second has 12 megapixels."""


def arguments() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders of test pictures")
    parser.add_argument("--model", help="a model's name or file (none: the interpolations alone)")
    parser.add_argument("--scale", type=int, default=4, help="without a model; one has its own")
    parser.add_argument(
        "--degradation", choices=["bicubic", "photo"], help="how pictures are made small  [default: as for the model]"
    )
    parser.add_argument("--calls", default="1,2,3,5,10", help="network calls of detailed pictures, with commas between")
    parser.add_argument("--peers", action="store_true", help="other networks as well, see upscalers.py")
    parser.add_argument("--rdn", type=Path, help="with --peers: the folder models/x4 of the npm package")
    parser.add_argument(
        "--doubt", type=int, default=0, metavar="K", help="how well the deviation of K samples is calibrated"
    )
    parser.add_argument("--methods", help="only these (bicubic, lanczos, names of upscalers.py, attenua), with commas")
    parser.add_argument("--picture", type=Path, help="write the first pictures side by side to this file, and end")
    parser.add_argument("--limit", type=int, help="pictures of each folder: screening, not the protocol")
    parser.add_argument("--no-lpips", action="store_true", help="without LPIPS, which needs the eval extra")
    parser.add_argument("--cost", action="store_true", help="measure seconds and memory as well")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT / "restoration.json", help="the report")
    given = parser.parse_args()
    if not given.data and not given.cost:
        parser.error("nothing to measure: give --data, --cost or both")
    if (given.cost or given.doubt) and not given.model:
        parser.error("--cost and --doubt are those of a model: give --model")
    return given


def interpolation(scale: int, resampling: Image.Resampling) -> Enlarge:
    """Return an enlargement by Pillow."""

    def enlarge(small: Tensor) -> Tensor:
        picture = Image.fromarray(small.permute(1, 2, 0).contiguous().numpy())
        large = picture.resize((picture.width * scale, picture.height * scale), resampling)
        return torch.from_numpy(np.array(large)).permute(2, 0, 1).float() / 127.5 - 1

    return enlarge


def methods(
    model: Conditional | None, scale: int, given: argparse.Namespace
) -> Iterator[tuple[dict[str, Any], Enlarge]]:
    """Yield what every method's rows say of it, and the method; of those that are asked for."""
    wanted = None if given.methods is None else given.methods.split(",")
    for told, enlarge in _all_methods(model, scale, given):
        if wanted is None or told["method"] in wanted:
            yield told, enlarge


def _all_methods(
    model: Conditional | None, scale: int, given: argparse.Namespace
) -> Iterator[tuple[dict[str, Any], Enlarge]]:
    yield {"method": "bicubic"}, interpolation(scale, Image.Resampling.BICUBIC)
    yield {"method": "lanczos"}, interpolation(scale, Image.Resampling.LANCZOS)
    if given.peers:
        yield from (({"method": name}, enlarge) for name, enlarge in upscalers(given.rdn, torch.get_num_threads()))
    if model is None:
        return
    told = {"method": "attenua", "model": Path(given.model).stem, "model_sha256": model.header.sha256}

    def faithful(small: Tensor) -> Tensor:
        return model.draw(small.float() / 127.5 - 1, faithful=True)[0]

    yield {**told, "mode": "faithful", "nfe": 1, "default": False}, faithful
    for calls in map(int, given.calls.split(",")):

        def detailed(small: Tensor, calls: int = calls) -> Tensor:
            return model.draw(small.float() / 127.5 - 1, steps=calls, seed=given.seed)[0]

        settings = model.settings(model.choose(calls), given.seed)
        yield {**told, "mode": "detailed", **settings, "default": calls == model.sampling.steps}, detailed


def quality(model: Conditional | None, task: SuperResolution, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of every folder, method and metric."""
    scale, perceptual = task.scale, None
    if not given.no_lpips:
        from attenua.metrics.perceptual import Perceptual

        perceptual = Perceptual("alex", cache=weights.cache()).to(given.device)
    for folder in given.data:
        truths = [crop_to_multiple(images.read(path), scale) for path in images.list_images(folder)[: given.limit]]
        if not truths:
            raise SystemExit(f"there is no picture in {folder}")
        for told, enlarge in methods(model, scale, given):
            figures = means(score_enlarged(truths, task, enlarge, perceptual))
            shown = " ".join(f"{name} {value:.4f}" for name, value in figures.items())
            print(f"{folder.name:8} {title(told):20} {shown}", file=sys.stderr, flush=True)
            shared = {"data": folder.name, "samples": len(truths), "scale": scale, **told}
            yield from ({"metric": name, "value": round(value, 5), **shared} for name, value in figures.items())


def title(told: dict[str, Any]) -> str:
    """Return a short name of a method."""
    return " ".join(str(told[key]) for key in ("method", "mode", "nfe") if key in told)


def side_by_side(model: Conditional | None, task: SuperResolution, given: argparse.Namespace) -> None:
    """Write a row for each picture (cut to a common size): every method, the truth."""
    scale = task.scale
    paths = [path for folder in given.data for path in images.list_images(folder)[: given.limit]]
    truths = [crop_to_multiple(images.read(path), scale) for path in paths]
    height, width = (min(truth.shape[axis] for truth in truths) for axis in (1, 2))
    found = list(methods(model, scale, given))
    rows = []
    for index, truth in enumerate(truths):
        small = task.measured(truth, index)
        made = [to_bytes(enlarge(small)) for _, enlarge in found]
        rows.append(torch.cat([each[:, :height, :width] for each in [*made, truth]], dim=2))
    whole = torch.cat(rows, dim=1).permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(whole).save(given.picture, optimize=True)
    print(f"{given.picture}: {', '.join(title(told) for told, _ in found)}, the truth", file=sys.stderr)


def calibration(model: Conditional, task: SuperResolution, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield how well the deviation of samples tells their error, by folder and number of calls."""
    scale, count = task.scale, given.doubt
    for folder in given.data:
        truths = [crop_to_multiple(images.read(path), scale) for path in images.list_images(folder)[: given.limit]]
        for calls in map(int, given.calls.split(",")):
            deviations, errors = [], []
            for index, truth in enumerate(truths):
                small = task.measured(truth, index).float() / 127.5 - 1
                made = model.draw(small, samples=count, steps=calls, seed=given.seed).double() * 127.5
                # the truth is one more sample: its variance about the mean of the others is larger by 1 + 1 / count
                deviations.append(made.std(0).flatten(1) * (1 + 1 / count) ** 0.5)
                errors.append((truth.double() - 127.5 - made.mean(0)).flatten(1))
            said, error = torch.cat(deviations, dim=1), torch.cat(errors, dim=1).abs()
            figures = {"spread": float((error.square().mean() / said.square().mean()).sqrt())}
            figures |= {f"coverage_{times}": float((error <= times * said).double().mean()) for times in (1, 2)}
            pixel_said, pixel_error = (each.square().mean(0).sqrt().numpy() for each in (said, error))
            figures["rank_correlation"] = float(spearmanr(pixel_said, pixel_error).statistic)
            parts = np.array_split(np.argsort(pixel_said, kind="stable"), 10)
            for number, part in enumerate(parts, start=1):
                for name, values in (("said", pixel_said), ("error", pixel_error)):
                    figures[f"{name}_tenth_{number}"] = float(np.sqrt(np.square(values[part]).mean()))
            shown = " ".join(f"{name} {value:.3f}" for name, value in figures.items())
            print(f"{folder.name:8} {count} samples of {calls} calls: {shown}", file=sys.stderr, flush=True)
            told = {"data": folder.name, "samples": len(truths), "draws": count, "nfe": calls, "method": "attenua"}
            told |= {"model": Path(given.model).stem, "model_sha256": model.header.sha256}
            told |= {"default": calls == model.sampling.steps}
            yield from ({"metric": name, "value": round(value, 5), **told} for name, value in figures.items())


def cost(model: Conditional, file: Path, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield seconds of a 256 x 256 picture, and the most memory of 12 megapixels, by the command itself."""
    noise = np.random.default_rng(0).integers(0, 256, (*LARGE[::-1], 3), dtype=np.uint8)
    calls = max(map(int, given.calls.split(",")))
    runs = (("detailed", ["--steps", str(calls)], calls), ("faithful", ["--mode", "faithful"], 1))
    with tempfile.TemporaryDirectory() as place:
        for (width, height), metric in ((SMALL, "seconds"), (LARGE, "memory")):
            source = Path(place) / f"{metric}.png"
            Image.fromarray(noise[:height, :width]).save(source)
            for mode, options, nfe in runs:
                output = source.with_name(f"{metric}-{mode}.png")
                command = [sys.executable, "-m", "attenua", "upscale", str(source), "-o", str(output), "--json"]
                command += ["--model", str(file), "--device", given.device, "--quiet", *options]
                told, peak = measured(command)
                value = told["files"][0]["seconds"] if metric == "seconds" else round(peak / 2**30, 3)
                row = {"metric": metric, "value": value, "unit": "s" if metric == "seconds" else "GiB", "mode": mode}
                row |= {"nfe": nfe, "model": Path(given.model).stem, "model_sha256": model.header.sha256}
                row |= {"device": given.device, "batch": 1, "threads": torch.get_num_threads()}
                row |= {"width": width * model.task.scale, "height": height * model.task.scale}
                row |= {"seconds": told["files"][0]["seconds"]}
                print(f"{metric:8} {mode:10} {nfe:3} {value:.3f} {row['unit']}", file=sys.stderr, flush=True)
                yield row


def measured(command: list[str]) -> tuple[dict[str, Any], int]:
    """Run a command; return the JSON that it prints, and the most memory that it held, in bytes."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        out.seek(0)
        return json.loads(out.read()), usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def untrained(path: Path, scale: int) -> Path:
    """Write a network of the preset that was not trained."""
    config = super_resolution(scale)
    torch.manual_seed(0)
    state = dict(AttenuationModel(config.model).state_dict())
    return weights.write(path, weights.Weights(config.model, state, config.sampling))


def main() -> None:
    """Measure, print, write."""
    given = arguments()
    with tempfile.TemporaryDirectory() as place:
        if given.model == "preset":
            file: Path | None = untrained(Path(place) / "preset.safetensors", given.scale)
        else:
            file = weights.find(given.model) if given.model else None
        model = None if file is None else load_conditional(str(file), given.device)
        task = SuperResolution(given.scale, given.degradation or "bicubic") if model is None else model.task
        assert isinstance(task, SuperResolution)
        if given.degradation is not None:
            task = SuperResolution(task.scale, given.degradation)
        if given.picture is not None:
            side_by_side(model, task, given)
            return
        rows = list(quality(model, task, given)) if given.data and not given.doubt else []
        if given.doubt and model is not None:
            rows += list(calibration(model, task, given))
        if given.cost:
            assert model is not None
            assert file is not None
            rows += list(cost(model, file, given))
    reduction = "Pillow bicubic" + (", blurred, noisy and compressed by seed 0" if task.degradation == "photo" else "")
    protocol = {"scale": task.scale, "reduction": reduction, "border": task.scale, "luma": "BT.601", "seed": given.seed}
    write_report(given.out, given.out.stem, rows, protocol | ({"limit": given.limit} if given.limit else {}))
    print(given.out)


if __name__ == "__main__":
    main()
