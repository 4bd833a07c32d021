from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from attenua.metrics.frechet import Statistics, frechet_distance, kernel_distance


def gaussian(mean, covariance, count=10_000, features="test"):
    """Statistics with exactly these moments."""
    statistics = Statistics(len(mean), features=features)
    statistics.count = count
    statistics.mean = torch.as_tensor(mean, dtype=torch.float64)
    statistics.scatter = torch.as_tensor(covariance, dtype=torch.float64) * (count - 1)
    return statistics


def of(vectors, parts=1):
    statistics = Statistics(vectors.shape[1], features="test")
    for part in vectors.tensor_split(parts):
        statistics.update(part)
    return statistics


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(dimension, seed):
    root = draw(dimension, dimension, seed=seed)
    return root @ root.T / dimension


@pytest.mark.parametrize("parts", [1, 7, 500, 700])
def test_streaming_gives_the_moments_of_the_whole(parts):
    vectors = draw(500, 6) @ draw(6, 6, seed=1) + 3
    statistics = of(vectors, parts)
    assert statistics.count == 500
    np.testing.assert_allclose(statistics.mean, vectors.mean(0), rtol=1e-13)
    np.testing.assert_allclose(statistics.covariance, np.cov(vectors.numpy(), rowvar=False), rtol=1e-11, atol=1e-13)


def test_a_large_mean_costs_no_digits():
    vectors = draw(400, 3)
    far = of(vectors + 1e7, parts=40).covariance
    np.testing.assert_allclose(far, of(vectors).covariance, rtol=1e-6, atol=1e-7)


def test_merging_equals_seeing_everything_in_one_place():
    vectors = draw(300, 4)
    one, two = of(vectors[:90], 3), of(vectors[90:], 5)
    one.merge(two)
    one.merge(Statistics(4, features="test"))
    whole = of(vectors)
    assert one.count == whole.count
    torch.testing.assert_close(one.mean, whole.mean, rtol=0, atol=1e-14)
    torch.testing.assert_close(one.scatter, whole.scatter, rtol=1e-12, atol=1e-11)


def test_float32_features_are_summed_in_float64():
    vectors = draw(100, 3).float()
    assert of(vectors).scatter.dtype == torch.float64
    torch.testing.assert_close(of(vectors).scatter, of(vectors.double()).scatter, rtol=0, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused_and_change_nothing(bad):
    statistics = of(draw(10, 2))
    before = statistics.scatter.clone()
    with pytest.raises(ValueError, match="finite"):
        statistics.update(torch.tensor([[0.0, bad]]))
    assert statistics.count == 10
    assert torch.equal(statistics.scatter, before)


def test_other_dimensions_and_other_features_are_refused():
    with pytest.raises(ValueError, match=r"\[B, 3\], not \[5, 4\]"):
        Statistics(3, features="a").update(torch.zeros(5, 4))
    with pytest.raises(ValueError, match="one kind"):
        Statistics(3, features="a").merge(Statistics(3, features="b"))
    with pytest.raises(ValueError, match="one kind"):
        frechet_distance(gaussian([0.0], [[1.0]], features="a"), gaussian([0.0], [[1.0]], features="b"))
    with pytest.raises(ValueError, match="at least 2"):
        _ = of(draw(1, 3)).covariance
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Statistics(0, features="a")


def test_a_file_gives_back_everything(tmp_path):
    statistics = Statistics(5, features="pool3", data="pictures", sha256="ab12")
    statistics.update(draw(50, 5))
    statistics.save(tmp_path / "new" / "s.safetensors")
    back = Statistics.load(tmp_path / "new" / "s.safetensors")
    assert (back.count, back.features, back.data, back.sha256) == (50, "pool3", "pictures", "ab12")
    assert torch.equal(back.mean, statistics.mean)
    assert torch.equal(back.scatter, statistics.scatter)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["s.safetensors"]


def test_damaged_and_foreign_files_are_named(tmp_path):
    path = tmp_path / "s.safetensors"
    with pytest.raises(FileNotFoundError, match=r"s\.safetensors"):
        Statistics.load(path)
    of(draw(9, 3)).save(path)
    whole = path.read_bytes()
    for damaged in (b"", b"not a file of tensors", whole[:-20]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"s\.safetensors is damaged"):
            Statistics.load(path)
    path.write_bytes(whole.replace(b"attenua statistics 1", b"attenua something 99"))
    with pytest.raises(ValueError, match="no feature statistics"):
        Statistics.load(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "s.safetensors"
    of(draw(9, 3)).save(path)
    before = path.read_bytes()

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        of(draw(9, 3, seed=1)).save(path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["s.safetensors"]


def test_in_one_dimension_it_is_the_difference_of_means_and_deviations():
    distance = frechet_distance(gaussian([1.0], [[4.0]]), gaussian([-2.0], [[25.0]]))
    assert distance == pytest.approx(3**2 + (5 - 2) ** 2, rel=1e-13)


def test_commuting_covariances_have_a_closed_form():
    rotation, _ = torch.linalg.qr(draw(6, 6))
    a, b = torch.rand(6, dtype=torch.float64) + 0.1, torch.rand(6, dtype=torch.float64) + 0.1
    mean = draw(6, seed=3)
    distance = frechet_distance(
        gaussian(mean, rotation @ a.diag() @ rotation.T), gaussian(0 * mean, rotation @ b.diag() @ rotation.T)
    )
    assert distance == pytest.approx(float(mean.square().sum() + (a.sqrt() - b.sqrt()).square().sum()), rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_general_covariances_agree_with_the_matrix_root_of_scipy(seed):
    a, b = covariance(12, seed), covariance(12, seed + 100)
    mean = draw(12, seed=seed + 200)
    root = scipy.linalg.sqrtm(a.numpy() @ b.numpy()).real
    expected = float(mean.square().sum() + a.trace() + b.trace() - 2 * np.trace(root))
    one, two = gaussian(mean, a), gaussian(torch.zeros(12), b)
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(two, one) == pytest.approx(expected, rel=1e-9)


def test_rank_deficient_covariances_keep_their_closed_form():
    a, b = (torch.tensor(values).double().diag() for values in ([4.0, 0, 0, 0], [9.0, 1.0, 0, 0]))
    assert frechet_distance(gaussian([0.0] * 4, a), gaussian([0.0] * 4, b)) == pytest.approx(2, rel=1e-13)
    assert abs(frechet_distance(gaussian([0.0] * 4, a), gaussian([0.0] * 4, a))) < 1e-13


def test_a_set_is_at_distance_zero_from_itself():
    statistics = of(draw(200, 20) * 5 + 7)
    assert abs(frechet_distance(statistics, statistics)) < 1e-11


def test_fewer_pictures_than_features_are_refused():
    few, many = of(draw(19, 20)), of(draw(20, 20, seed=1))
    assert math.isfinite(frechet_distance(many, many))
    for pair in ((few, many), (many, few)):
        with pytest.raises(ValueError, match="at least 20 pictures on each side, not 19: use KID"):
            frechet_distance(*pair)


def loops(x, y):
    """The unbiased estimate, pair by pair."""
    count, dimension = x.shape

    def kernel(f, g):
        return (float(f @ g) / dimension + 1) ** 3

    own = sum(kernel(f[i], f[j]) for f in (x, y) for i in range(count) for j in range(count) if i != j)
    cross = sum(kernel(f, g) for f in x for g in y)
    return own / (count * (count - 1)) - 2 * cross / count**2


def test_one_whole_subset_is_the_sum_over_pairs():
    x, y = draw(12, 5), draw(12, 5, seed=1) * 2 + 0.5
    mean, deviation = kernel_distance(x, y, subsets=1, size=12)
    assert mean == pytest.approx(loops(x, y), rel=1e-11)
    assert deviation == 0


def test_the_estimate_is_unbiased():
    # two Gaussians that differ by a shift m only: with k = (s/D + 1)^3 and s = x.y of independent x ~ N(a, 1),
    # y ~ N(b, 1): E s = a.b, E s^2 = (a.b)^2 + |a|^2 + |b|^2 + D, E s^3 = (a.b)^3 + 3 (a.b)(|a|^2 + |b|^2 + D) + 6 a.b
    dimension, shift = 3, torch.tensor([0.5, -0.3, 0.2], dtype=torch.float64)

    def expected(a, b):
        s, rest = float(a @ b), float(a @ a + b @ b) + dimension
        d = dimension
        return (s**3 + 3 * s * rest + 6 * s) / d**3 + 3 * (s**2 + rest) / d**2 + 3 * s / d + 1

    zero = 0 * shift
    truth = expected(zero, zero) + expected(shift, shift) - 2 * expected(zero, shift)
    values = []
    for seed in range(150):
        x, y = draw(60, dimension, seed=2 * seed), draw(60, dimension, seed=2 * seed + 1) + shift
        values.append(kernel_distance(x, y, subsets=1, size=60)[0])
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values) - truth) < 4 * error
    assert truth > 8 * error  # so that the line above says something


def test_subsets_depend_on_the_seed_alone():
    x, y = draw(60, 4).float(), draw(80, 4, seed=1).float()
    first = kernel_distance(x, y, subsets=9, size=20, seed=5)
    assert kernel_distance(x, y, subsets=9, size=20, seed=5) == first
    assert kernel_distance(x, y, subsets=9, size=20, seed=6) != first
    assert first[1] > 0


def test_too_small_a_set_is_refused_unless_the_caller_asks_for_smaller_subsets():
    x, y = draw(999, 2), draw(1000, 2, seed=1)
    with pytest.raises(ValueError, match="at least 1000 pictures, not 999"):
        kernel_distance(x, y)
    assert math.isfinite(kernel_distance(x, y, subsets=2, size=999)[0])
    with pytest.raises(ValueError, match="size >= 2"):
        kernel_distance(x, y, size=1)
    with pytest.raises(ValueError, match=r"\[N, D\] and \[M, D\]"):
        kernel_distance(x, draw(1000, 3))
