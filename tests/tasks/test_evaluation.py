"""Evaluation of generation: the figures are the metrics' own, over what a model makes as it is made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from attenua.config import SamplingConfig
from attenua.data import ImageSet
from attenua.metrics import generation as metrics
from attenua.model import AttenuationModel
from attenua.tasks import evaluation, load
from attenua.tasks.evaluation import Evaluation
from tests.cli.support import model_file, pictures


class Colours:
    """The mean of every channel, and how many pictures were seen."""

    num_features = 3
    name = "colours"

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return images.float().mean((2, 3)) / 255


@pytest.fixture(autouse=True)
def _own_references(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATTENUA_CACHE", str(tmp_path / "cache"))


def real(count: int = 20, seed: int = 5) -> ImageSet:
    return ImageSet(pictures(count, seed=seed), None, (), "smooth", "made for tests")


def expected(made: torch.Tensor, data: ImageSet) -> dict[str, float]:
    reference = metrics.Reference.compute([data.images], Colours(), data="", sha256="")
    return metrics.score([made], reference, Colours(), kid_size=min(len(made), len(data)))


def test_figures_are_those_of_the_metrics() -> None:
    made = pictures(9, seed=1)
    found = Evaluation(real(), extractor=Colours()).score(torch.split(made, 4), 9)
    assert found == pytest.approx(expected(made, real()), rel=1e-5)
    assert found.keys() == {"count", "fid", "kid", "kid_deviation"}
    assert found["fid"] > 0


def test_the_data_against_itself_has_no_distance() -> None:
    found = Evaluation(real(), extractor=Colours()).score([real().images], 20)
    assert found["fid"] == pytest.approx(0, abs=1e-9)
    assert found["kid"] < 0  # an estimate without bias: pairs of a picture with itself do not count


def test_a_model_is_scored_by_its_samples_as_they_come(tmp_path: Path) -> None:
    model = load(str(model_file(tmp_path / "m.safetensors")))
    found = Evaluation(real(), extractor=Colours()).model(model, 8, steps=2, seed=3, batch=8)
    assert found == pytest.approx(expected(model.sample(8, steps=2, seed=3), real()), rel=1e-5)


@pytest.mark.parametrize(
    ("sampling", "classes"),
    [(SamplingConfig(steps=4), 0), (SamplingConfig(steps=2, solver="posterior", grid="uniform", eta=0.5), 3)],
)
def test_a_model_in_training_is_scored_as_its_file_would_be(
    tmp_path: Path, sampling: SamplingConfig, classes: int
) -> None:
    model = load(str(model_file(tmp_path / "m.safetensors", sampling, classes=classes)))
    given = Evaluation(real(), num=40, sampling=sampling, extractor=Colours())  # more than a batch
    found = given.figures(model.model, 1_000)
    wanted = given.model(model, 40)
    wanted.pop("count")
    assert found == pytest.approx(wanted, rel=1e-6)
    assert isinstance(model.model, AttenuationModel)


def test_pictures_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch is asked for before the one before it is measured."""
    extractor = Colours()
    given = Evaluation(real(), extractor=extractor)
    given.reference()
    start = extractor.seen

    def batches() -> Iterator[torch.Tensor]:
        for number in range(4):
            assert extractor.seen - start == 3 * number
            yield pictures(3, seed=number)

    told: list[tuple[str, int, int]] = []
    given.report = lambda what, done, of: told.append((what, done, of))
    assert given.score(batches(), 12)["count"] == 12
    assert told == [("samples", done, 12) for done in (3, 6, 9, 12)]


def test_the_reference_is_computed_once_a_data_set_and_machine(tmp_path: Path) -> None:
    first, told = Colours(), []
    given = Evaluation(real(), extractor=first, report=lambda *what: told.append(what))
    given.reference()
    given.reference()
    assert first.seen == 20
    assert told == [("reference", 20, 20)]
    second = Colours()
    Evaluation(real(), extractor=second).reference()
    assert second.seen == 0
    Evaluation(real(seed=6), extractor=second).reference()
    assert second.seen == 20
    assert len(list((tmp_path / "cache" / "references").iterdir())) == 2


def test_fewer_pictures_are_the_first_and_the_name_says_so() -> None:
    given = Evaluation(real(), reference_num=12, extractor=Colours())
    made = pictures(9, seed=1)
    assert torch.equal(given.data.images, real().images[:12])
    assert given.data.name == "smooth (first 12)"
    assert given.score([made], 9) == pytest.approx(expected(made, real(12)), rel=1e-5)
    labelled = ImageSet(pictures(4), torch.tensor([0, 1, 0, 1]), ("a", "b"), "smooth", "")
    kept = Evaluation(labelled, reference_num=3, extractor=Colours()).data.labels
    assert kept is not None
    assert kept.tolist() == [0, 1, 0]


@pytest.mark.parametrize("number", [-1, 0, 1, 21])
def test_a_number_of_references_that_cannot_be_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"reference-num is {number}; allowed is 2 to 20, the pictures of smooth"):
        Evaluation(real(), reference_num=number, extractor=Colours())


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="the reference smooth has 1 image; at least 2 are needed for KID, 2,048 for"):
        Evaluation(real(1), extractor=Colours())
    extractor = Colours()
    with pytest.raises(ValueError, match="num is 1; allowed is a whole number from 2"):
        Evaluation(real(), extractor=extractor).score([pictures(1)], 1)
    assert extractor.seen == 0


def test_rows_are_flat_and_say_what_they_belong_to() -> None:
    given = Evaluation(real(), extractor=Colours())
    figures = {"count": 9, "fid": 1.5, "kid": 0.25, "kid_deviation": 0.125}
    own = {"samples": 9, "data": "smooth", "data_sha256": real().sha256(), "split": "train", "nfe": 10}
    assert given.rows(figures, {"nfe": 10}) == [
        {"metric": "fid", "value": 1.5, **own},
        {"metric": "kid", "value": 0.25, "deviation": 0.125, **own},
    ]
    del figures["fid"]
    assert [row["metric"] for row in given.rows(figures, {})] == ["kid"]


def test_the_published_protocol_takes_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many samples and references as published (here 20 for 50,000), and Inception's features."""
    monkeypatch.setattr(evaluation, "PUBLISHED", 20)
    inception = Colours()
    inception.name = evaluation.INCEPTION
    whole = Evaluation(real(), extractor=inception)
    assert whole.protocol(20) == {
        "features": "inception-2015-12-05-pool3",
        "samples": 20,
        "reference_images": 20,
        "kid": "cubic kernel, 100 subsets of 20",
        "published": True,
    }
    assert not whole.protocol(19)["published"]
    assert not Evaluation(real(), reference_num=19, extractor=inception).protocol(20)["published"]
    assert not Evaluation(real(), extractor=Colours()).protocol(20)["published"]
    assert whole.protocol(8)["kid"] == "cubic kernel, 100 subsets of 8"


def test_the_published_number_of_samples_is_cifar10s() -> None:
    assert evaluation.PUBLISHED == 50_000
    assert Evaluation(real(), extractor=Colours()).num == 50_000
