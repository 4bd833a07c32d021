import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from attenua.data import augment

H, W = 12, 16


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.rand(shape, generator=generator(seed)) * 2 - 1


def smooth(size=48):
    """A picture without detail, [1, 1, size, size], that no symmetry leaves as it is."""
    at = (torch.arange(size) - (size - 1) / 2) / size
    return (0.5 * torch.sin(3 * at[:, None] + 1) + 0.4 * torch.cos(4 * at[None, :] - 2 * at[:, None] + 1))[None, None]


def row(flip=0.0, scale=0.0, angle=0.0, stretch=0.0, axis=0.0, right=0.0, down=0.0):
    return torch.tensor([[flip, scale, angle, stretch, axis, right, down]])


def middle(images, share=0.25):
    """What no border has touched."""
    size = images.shape[-1]
    cut = round(size * share)
    return images[..., cut : size - cut, cut : size - cut]


def draw(batch, probability, seed=0, size=(H, W)):
    return augment.draw(batch, probability=probability, size=size, generator=generator(seed), device="cpu")


def test_probability_zero_is_bit_equal_and_unlabelled():
    images = noise(32, 3, H, W)
    result, labels = augment.apply(images, draw(32, 0.0))
    assert torch.equal(result, images)
    assert not labels.any()


def test_a_flip_alone_is_exact():
    images = noise(4, 3, H, W)
    result, labels = augment.apply(images, row(flip=1).expand(4, -1))
    assert torch.equal(result, images.flip(-1))
    assert labels.tolist() == [[1.0] + [0.0] * 7] * 4


def test_each_row_is_about_its_own_picture():
    images, parameters = noise(16, 3, H, W), draw(16, 0.2)
    whole, labels = augment.apply(images, parameters)
    for index in range(16):
        one, label = augment.apply(images[index : index + 1], parameters[index : index + 1])
        torch.testing.assert_close(one[0], whole[index], rtol=0, atol=1e-5)
        torch.testing.assert_close(label[0], labels[index])
    untouched = (parameters == 0).all(1)
    assert untouched.any()
    assert torch.equal(whole[untouched], images[untouched])


@settings(deadline=None, max_examples=30)
@given(right=st.integers(-W // 2, W // 2), down=st.integers(-H // 2, H // 2))
def test_a_translation_by_whole_pixels_is_a_roll_that_mirrors(right, down):
    images = noise(2, 3, H, W)
    result, _ = augment.apply(images, row(right=float(right), down=float(down)).expand(2, -1))
    mirrored = torch.cat([images, images.flip(-1)], -1)
    mirrored = torch.cat([mirrored, mirrored.flip(-2)], -2)
    expected = mirrored.roll((down, right), (-2, -1))[..., :H, :W]
    torch.testing.assert_close(result, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("turns", [1, 2, 3, -1])
def test_quarter_turns_go_counter_clockwise(turns):
    images = noise(2, 3, 16, 16)
    result, _ = augment.apply(images, row(angle=turns * math.pi / 2).expand(2, -1))
    torch.testing.assert_close(result, images.rot90(turns, (-2, -1)), rtol=0, atol=2e-5)


@settings(deadline=None, max_examples=20)
@given(angle=st.floats(-math.pi, math.pi), scale=st.floats(-0.4, 0.4), axis=st.floats(-math.pi, math.pi))
def test_what_is_done_can_be_undone(angle, scale, axis):
    image = smooth()
    for there, back in (
        (row(angle=angle), row(angle=-angle)),
        (row(scale=scale), row(scale=-scale)),
        (row(stretch=scale, axis=axis), row(stretch=-scale, axis=axis)),
        (row(stretch=scale, axis=axis), row(stretch=scale, axis=axis + math.pi / 2)),
        (row(right=3.3, down=-1.7), row(right=-3.3, down=1.7)),
    ):
        twice = augment.apply(augment.apply(image, there)[0], back)[0]
        assert (middle(twice, 0.3) - middle(image, 0.3)).abs().max() < 1e-2


def sampled(image, x, y):
    """The closed form behind smooth() at pixel positions from the centre."""
    size = image.shape[-1]
    return 0.5 * torch.sin(3 * y / size + 1) + 0.4 * torch.cos(4 * x / size - 2 * y / size + 1)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 9999))
def test_the_composition_is_the_paper_s_product_of_matrices(seed):
    """translate . (rotate stretch rotate-back) . rotate . scale . flip, built from matrices with y upwards."""
    image = smooth()
    parameters = draw(1, 1.0, seed, (48, 48)) * torch.tensor([1, 0.5, 1, 0.5, 1, 0.3, 0.3])
    flip, scale, angle, stretch, axis, right, down = parameters[0].double().tolist()

    def turn(by):
        return torch.tensor([[math.cos(by), -math.sin(by)], [math.sin(by), math.cos(by)]], dtype=torch.float64)

    along = torch.diag(torch.tensor([2.0**stretch, 2.0**-stretch], dtype=torch.float64))
    mirror = torch.diag(torch.tensor([1 - 2 * flip, 1.0], dtype=torch.float64))
    matrix = turn(axis) @ along @ turn(-axis) @ turn(angle) * 2.0**scale @ mirror
    at = torch.arange(48, dtype=torch.float64) - 23.5
    shown = torch.stack([at.expand(48, 48) - right, -(at[:, None].expand(48, 48) - down)])  # y upwards
    source = torch.einsum("ij,jhw->ihw", torch.linalg.inv(matrix), shown)
    inside = (source.abs() < 21).all(0)
    result, _ = augment.apply(image, parameters)
    expected = sampled(image, source[0], -source[1])
    assert inside.any()
    assert (result[0, 0] - expected)[inside].abs().max() < 8e-3  # a tenth of a pixel


def test_labels_say_what_was_done_in_units_of_the_deviation():
    _, labels = augment.apply(noise(1, 3, H, W), row(1, 0.4, math.pi / 2, -0.2, math.pi / 6, W / 8, -H / 4))
    expected = [1, 2, -1, 1, -math.cos(math.pi / 6), -0.5, 1, -2]
    torch.testing.assert_close(labels, torch.tensor([expected]))
    assert labels.shape[1] == augment.LABELS


def test_labels_are_zero_exactly_where_nothing_was_done():
    parameters = draw(500, 0.3)
    _, labels = augment.apply(noise(500, 1, 4, 4), parameters)
    groups = [([0], [0]), ([1], [1]), ([2], [2, 3]), ([3, 4], [4, 5]), ([5, 6], [6, 7])]
    for done, told in groups:
        assert torch.equal((parameters[:, done] != 0).any(1), (labels[:, told] != 0).any(1))


def test_shares_and_laws_are_those_of_the_paper():
    count, probability = 20_000, 0.12
    parameters = draw(count, probability, size=(H, W)).double()
    flip, scale, angle, stretch, axis, right, down = parameters.unbind(1)
    bound = 4.5 * math.sqrt(0.25 / count)
    assert abs(flip.mean() - 0.5) < bound
    for column in (scale, angle, stretch, axis, right, down):
        assert abs((column != 0).double().mean() - probability) < bound
    assert torch.equal(stretch != 0, axis != 0)
    assert torch.equal(right != 0, down != 0)
    for column, deviation in ((scale, 0.2), (stretch, 0.2), (right, W / 8), (down, H / 8)):
        assert stats.kstest(column[column != 0].numpy() / deviation, "norm").pvalue > 1e-4
    for column in (angle, axis):
        assert stats.kstest(column[column != 0].numpy(), stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-4
    both = ((scale != 0) & (angle != 0)).double().mean()
    assert abs(both - probability**2) < bound


def test_a_draw_is_fixed_by_its_generator():
    assert torch.equal(draw(8, 0.5, seed=3), draw(8, 0.5, seed=3))
    assert not torch.equal(draw(8, 0.5, seed=3), draw(8, 0.5, seed=4))
    assert draw(8, 0.5).shape == (8, augment.PARAMETERS)


def test_results_stay_pictures_and_keep_their_type():
    images = (noise(64, 3, H, W) > 0).float() * 2 - 1
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        result, labels = augment.apply(images.to(dtype), draw(64, 1.0))
        assert result.dtype == dtype
        assert labels.dtype == torch.float32
        assert result.abs().max() <= 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float32])
def test_flip_mirrors_only_what_it_is_told(dtype, kind):
    images = (noise(4, 3, H, W) * 100 + 100).to(dtype)
    result = augment.flip(images, torch.tensor([0, 1, 1, 0]).to(kind))
    assert torch.equal(result, torch.stack([images[0], images[1].flip(-1), images[2].flip(-1), images[3]]))


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.nan])
def test_a_probability_outside_its_range_is_named(probability):
    with pytest.raises(ValueError, match=str(probability)):
        draw(1, probability)


def test_a_draw_of_another_length_is_refused():
    with pytest.raises(ValueError, match="one row a picture"):
        augment.apply(noise(4, 3, H, W), draw(3, 0.5))
