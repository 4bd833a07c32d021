"""Crops come from where they say, in all eight symmetries, and each photograph as often as its area asks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attenua import images
from attenua.data.photographs import PhotoSet, load


def folder(tmp_path: Path, sizes: list[tuple[int, int]]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for number, (height, width) in enumerate(sizes):
        picture = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
        images.write(tmp_path / f"{number}.png", picture)
        made.append(picture)
    return made


def photographs(tmp_path: Path, sizes: list[tuple[int, int]], side: int) -> tuple[PhotoSet, list[torch.Tensor]]:
    made = folder(tmp_path, sizes)
    return load(tmp_path, side), made


def draws(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_a_crop_is_the_part_of_the_photograph_that_the_draw_names(tmp_path: Path) -> None:
    found, made = photographs(tmp_path, [(8, 10), (12, 9)], 6)
    crops = found.crops(draws([0.0, 0.0, 0.0, 0.0], [0.99, 0.999, 0.5, 0.0]), 6)
    assert torch.equal(crops[0], made[0][:, :6, :6])
    assert torch.equal(crops[1], made[1][:, 6:12, 2:8])


def test_all_symmetries_of_the_square_occur(tmp_path: Path) -> None:
    found, made = photographs(tmp_path, [(6, 6)], 6)
    crops = found.crops(draws(*[[0.5, 0.0, 0.0, k / 8] for k in range(8)]), 6)
    turned = [torch.rot90(item, k, (1, 2)) for item in (made[0], made[0].flip(2)) for k in range(4)]
    assert {crop.numpy().tobytes() for crop in crops} == {item.contiguous().numpy().tobytes() for item in turned}


@pytest.mark.parametrize("where", ["upright", "middle"])
def test_upright_crops_are_mirrored_at_most(tmp_path: Path, where: str) -> None:
    found, made = photographs(tmp_path, [(6, 6)], 6)
    crops = found.crops(draws(*[[0.5, 0.0, 0.0, k / 8] for k in range(8)]), 6, where)
    assert all(torch.equal(crop, made[0]) for crop in crops[:4])
    assert all(torch.equal(crop, made[0].flip(2)) for crop in crops[4:])


def test_crops_of_the_middle_stay_near_it(tmp_path: Path) -> None:
    found, made = photographs(tmp_path, [(40, 17)], 16)
    drawn = torch.rand(300, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn[:, 3] = 0
    crops = found.crops(drawn, 16, "middle")

    def cut(picture: torch.Tensor, place: tuple[int, int]) -> torch.Tensor:
        return picture[:, place[0] : place[0] + 16, place[1] : place[1] + 16]

    squares = [(top, left) for top in range(25) for left in range(2)]
    places = {next(place for place in squares if torch.equal(crop, cut(made[0], place))) for crop in crops}
    assert places == {(top, left) for top in range(10, 15) for left in range(2)}


def test_photographs_are_drawn_by_their_area(tmp_path: Path) -> None:
    found, made = photographs(tmp_path, [(10, 10), (10, 30)], 10)
    generator = torch.Generator().manual_seed(3)
    drawn = torch.rand(4000, 4, generator=generator, dtype=torch.float64)
    drawn[:, 1:] = 0
    first = (found.crops(drawn, 10) == made[0]).flatten(1).all(1).double().mean()
    assert abs(float(first) - 0.25) < 0.03


def test_small_photographs_are_left_out_and_none_large_enough_is_an_error(tmp_path: Path) -> None:
    found, made = photographs(tmp_path, [(4, 20), (9, 9)], 8)
    assert len(found) == 1
    assert torch.equal(found.crops(draws([0.3, 0.0, 0.0, 0.0]), 8)[0], made[1][:, :8, :8])
    with pytest.raises(ValueError, match=r"no photograph of at least 64 x 64 pixels \(2 are smaller\)"):
        load(tmp_path, 64)


def test_the_checksum_knows_the_pixels_and_the_sizes(tmp_path: Path) -> None:
    found, _ = photographs(tmp_path, [(8, 6)], 6)
    other = PhotoSet(found.pixels, found.sizes.flip(1), found.name, found.terms)
    assert found.sha256() != other.sha256()
    assert found.sha256() == load(tmp_path, 6).sha256()
