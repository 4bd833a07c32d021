"""How good are filled holes? A model, the smooth fill that it starts from, and three classical methods.

    python benchmarks/inpainting.py --data data/LFW --model inpaint-faces --calls 1,3,5,10
    python benchmarks/inpainting.py --data data/LFW                              the other methods alone
    python benchmarks/inpainting.py --data data/LFW --model inpaint-faces --kid all

The pictures are squares from the middle of `--num` pictures, evenly taken from those that are held out (of all, where
the data have no such part); the holes are strokes and boxes in turn, of three widths in turn, 10 to 50 % of the
picture, fixed by seed and index. The pictures with boxes are filled once more with "one box" of 10 to 50 % each, the
harder hole. PSNR and LPIPS (AlexNet) are those of the whole picture, with what is known as it was, and of the hole
alone; outputs are rounded to 8 bits. A row "mean" is the mean by one call; the others are samples.

OpenCV's methods (Telea 2004; Bertalmio et al. 2001, "ns") look 3 pixels around; "biharmonic" is scikit-image's. They
come with the packages opencv-python-headless and scikit-image.

--kid N: the distance of N filled pictures (all: every held-out one once) from --reference training pictures, of other
people in LFW; what a perfect method would get is in the row "truth". From 2,048 pictures on FID is there too, and more
than are held out come again with other holes: so few read FID too high, the same for all methods. Every method takes
half a second a picture and core for the features alone: on a processor choose some by --kid-methods.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attenua import images, weights
from attenua.data import masks, photographs
from attenua.data.draws import generator
from attenua.metrics.perceptual import Perceptual
from attenua.reports import write_report
from attenua.sampling import to_bytes
from attenua.tasks import Conditional, load_conditional
from attenua.tasks.filling import REFERENCE, Fill, Filled, central
from attenua.tasks.inpainting import fill
from attenua.tasks.scoring import score_filled

OUT = Path(__file__).parent / "results"
_STREAM = 64
"""Of the generators of single boxes: `masks` draws from others."""


@dataclass(frozen=True)
class Method:
    """One column of the picture: what its rows say, and what it does."""

    told: dict[str, Any]
    fill: Fill

    @property
    def title(self) -> str:
        """A short name."""
        names = (str(self.told[key]) for key in ("method", "output", "nfe", "grid") if key in self.told)
        return " ".join(names)


def arguments() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data set with pictures that are held out (LFW)")
    parser.add_argument("--model", help="a model's name or file (none: the other methods alone)")
    parser.add_argument("--calls", default="1,3,5,10", help="network calls of samples, with commas between")
    parser.add_argument("--grids", default="default", help="grids of samples, with commas between")
    parser.add_argument("--side", type=int, default=160, help="of the pictures, in pixels")
    parser.add_argument("--num", type=int, default=100, help="pictures; 100 is the protocol")
    parser.add_argument("--no-peers", action="store_true", help="the model alone")
    parser.add_argument("--kid", metavar="N", help="KID of so many filled pictures, or of all, as well")
    parser.add_argument("--kid-methods", help="only these: truth, telea, ns, biharmonic, smooth fill, attenua")
    parser.add_argument("--reference", type=int, default=REFERENCE, help="training pictures that KID is taken against")
    parser.add_argument("--picture", type=Path, help="write some of them side by side to this file")
    parser.add_argument("--shown", default="0,1,2,3,4,5", help="which of the pictures, with commas between")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT / "inpainting.json", help="the report")
    return parser.parse_args()


def smooth(picture: Tensor, hole: Tensor) -> Tensor:
    """The smooth fill that the model starts from."""
    return to_bytes(fill(floats(picture)[None], hole[None, None]))[0]


def opencv(name: str) -> Fill:
    """One of OpenCV's two methods."""
    import cv2

    flag = {"telea": cv2.INPAINT_TELEA, "ns": cv2.INPAINT_NS}[name]

    def run(picture: Tensor, hole: Tensor) -> Tensor:
        pixels = picture.permute(1, 2, 0).contiguous().numpy()
        return torch.from_numpy(cv2.inpaint(pixels, hole.numpy().astype(np.uint8), 3, flag)).permute(2, 0, 1)

    return run


def biharmonic(picture: Tensor, hole: Tensor) -> Tensor:
    """scikit-image's biharmonic equation."""
    from skimage.restoration import inpaint_biharmonic

    found = inpaint_biharmonic(picture.permute(1, 2, 0).numpy() / 255, hole.numpy(), channel_axis=-1)
    return torch.from_numpy((found * 255).round().clip(0, 255).astype(np.uint8)).permute(2, 0, 1)


def methods(model: Conditional | None, given: argparse.Namespace) -> Iterator[Method]:
    """Yield what is compared."""
    if not given.no_peers:
        yield Method({"method": "smooth fill"}, smooth)
        yield Method({"method": "telea"}, opencv("telea"))
        yield Method({"method": "ns"}, opencv("ns"))
        yield Method({"method": "biharmonic"}, biharmonic)
    if model is None:
        return
    told = {"method": "attenua", "model": Path(given.model).stem, "model_sha256": model.header.sha256}

    def drawn(**options: Any) -> Fill:
        def run(picture: Tensor, hole: Tensor) -> Tensor:
            pixels = torch.cat([floats(picture), hole[None].float()])
            return to_bytes(model.draw(pixels, seed=given.seed, **options))[0]

        return run

    yield Method({**told, "output": "mean", "nfe": 1, "default": False}, drawn(faithful=True))
    for grid in given.grids.split(","):
        for calls in map(int, given.calls.split(",")):
            asked = None if grid == "default" else grid
            settings = model.settings(model.choose(calls, grid=asked), given.seed)
            default = asked is None and calls == model.sampling.steps and given.seed == 0
            row = {**told, "output": "sample", **settings, "default": default}
            yield Method(row, drawn(steps=calls, grid=asked))


def squares(data: Path, side: int, num: int) -> list[Tensor]:
    """Squares from the middle of `num` test pictures, evenly taken, uint8 [3, side, side]."""
    if photographs.has_split(data):
        found = [picture for _, picture in photographs.read(data, split="test", num=num)]
    else:
        paths = images.list_images(data)
        found = [images.read(paths[index]) for index in photographs.evenly(len(paths), num)]
    return [central(picture, side).contiguous() for picture in found if min(picture.shape[1:]) >= side]


def one_box(side: int, index: int) -> Tensor:
    """One box of 10 to 50 % of a picture, anywhere within it, up to 1.5 times as long as wide, bool [side, side]."""
    draw = generator(0, index, _STREAM)
    area, aspect = draw.uniform(0.1, 0.5), np.exp(draw.uniform(-1, 1) * np.log(1.5))
    high, wide = (min(side - 1, round(side * np.sqrt(area * each))) for each in (aspect, 1 / aspect))
    top, left = (int(draw.integers(0, side - each, endpoint=True)) for each in (high, wide))
    hole = torch.zeros(side, side, dtype=torch.bool)
    hole[top : top + high, left : left + wide] = True
    return hole


def quality(found: list[Method], truths: list[Tensor], holes: Tensor, device: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of every method and kind of hole."""
    perceptual = Perceptual("alex", cache=weights.cache()).to(device)
    count = len(truths)
    singles = [one_box(truths[0].shape[-1], index) for index in range(1, count, 2)]
    kinds = {
        "all": range(count),
        "strokes": range(0, count, 2),
        "boxes": range(1, count, 2),
        "thick boxes": range(5, count, 6),
        "one box": range(count, count + len(singles)),
        "strokes, one box": [*range(0, count, 2), *range(count, count + len(singles))],
    }
    kinds = {kind: part for kind, part in kinds.items() if len(part) > 0}  # few pictures have no thick boxes
    for method in found:
        passed: list[float] = []

        def timed(picture: Tensor, hole: Tensor, method: Method = method, passed: list[float] = passed) -> Tensor:
            started = time.perf_counter()
            made = method.fill(picture, hole)
            passed.append(time.perf_counter() - started)
            return made

        figures = score_filled([*truths, *truths[1::2]], torch.stack([*holes, *singles]), timed, perceptual)
        seconds = round(float(np.mean(passed)), 3)
        for kind, part in kinds.items():
            means = {name: float(np.mean([values[index] for index in part])) for name, values in figures.items()}
            shown = " ".join(f"{name} {value:.4f}" for name, value in means.items())
            print(f"{method.title:32} {kind:16} {shown} {seconds} s", file=sys.stderr, flush=True)
            shared = {"samples": len(part), "holes": kind, "seconds_a_picture": seconds, **method.told}
            yield from ({"metric": name, "value": round(value, 5), **shared} for name, value in means.items())


def distances(found: list[Method], given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield KID, and FID where there are enough, of every method's filled pictures against training pictures."""
    from attenua.metrics.inception import InceptionFeatures

    network = InceptionFeatures(batch=16).to(given.device)
    num = None if given.kid == "all" else int(given.kid)
    filled = Filled(given.data, given.side, network, num, given.reference)
    filled.reference(lambda done: print(f"reference {done}", file=sys.stderr, flush=True))
    wanted = None if given.kid_methods is None else given.kid_methods.split(",")
    subjects: list[tuple[dict[str, Any], Fill | None]] = [({"method": "truth"}, None)]
    subjects += [(method.told, method.fill) for method in found if method.told.get("output") != "mean"]
    for told, filler in subjects:
        if wanted is not None and told["method"] not in wanted:
            continue
        figures = filled.score(filler)
        own = {"samples": int(figures["count"]), "holes": "all", "reference": filled.reference().statistics.count}
        print(f"{told['method']} {told.get('nfe', '')} {figures}", file=sys.stderr, flush=True)
        for name in ("kid", "fid"):
            if name in figures:
                scatter = {"deviation": round(figures["kid_deviation"], 6)} if name == "kid" else {}
                yield {"metric": name, "value": round(figures[name], 6), **scatter, **own, **told}


def floats(picture: Tensor) -> Tensor:
    """Bytes as numbers in [-1, 1]."""
    return picture.float() / 127.5 - 1


def side_by_side(found: list[Method], truths: list[Tensor], holes: Tensor, path: Path) -> None:
    """Write a row a picture: with its hole (grey), every method, the truth."""
    rows = []
    for truth, hole in zip(truths, holes, strict=True):
        empty = torch.where(hole, torch.full_like(truth, 255), truth)
        bare = torch.where(hole, torch.zeros_like(truth), truth)
        rows.append(torch.cat([empty, *(method.fill(bare, hole) for method in found), truth], dim=2))
    whole = torch.cat(rows, dim=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(whole.permute(1, 2, 0).contiguous().numpy()).save(path, optimize=True)
    print(f"{path}: with the hole, {', '.join(method.title for method in found)}, the truth", file=sys.stderr)


def main() -> None:
    """Measure, print, write."""
    given = arguments()
    model = load_conditional(given.model, given.device) if given.model else None
    found = list(methods(model, given))
    truths = squares(given.data, given.side, given.num)
    holes = masks.mask_set(len(truths), given.side, given.side, seed=0)
    if given.picture is not None:
        shown = [int(each) for each in given.shown.split(",")]
        side_by_side(found, [truths[each] for each in shown], holes[shown], given.picture)
    rows = [{**row, "data": given.data.resolve().name} for row in quality(found, truths, holes, given.device)]
    if given.kid:
        rows += [{**row, "data": given.data.resolve().name} for row in distances(found, given)]
    text = "strokes and boxes in turn, thin, medium and thick in turn; one box; 10 to 50 % of the picture, seed 0"
    protocol = {"side": given.side, "num": len(truths), "split": "test", "holes": text, "lpips": "alex"}
    write_report(given.out, given.out.stem, rows, protocol | {"published": given.num == 100 and given.side == 160})
    print(given.out)


if __name__ == "__main__":
    main()
