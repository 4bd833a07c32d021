"""The frame of the tests: without it the others would pass just the same, and check less."""

import socket
import warnings

import pytest
import torch
from jaxtyping import TypeCheckError

from attenua.cli.common import check_output, resolve_device
from attenua.process import Process, law, noise
from attenua.shapes import Images


def test_a_wrong_type_is_an_error() -> None:
    with pytest.raises(TypeCheckError):
        check_output("a string", overwrite=False)


def test_an_annotation_whose_module_is_imported_late_is_no_hindrance() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


def test_shapes_are_those_of_torch_tensors() -> None:
    assert isinstance(torch.zeros(2, 3, 4, 4), Images)
    assert not isinstance(torch.zeros(2, 3, 4), Images)
    assert not isinstance(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), Images)


def test_a_wrong_shape_is_an_error() -> None:
    process = Process(law("constant"), noise("wiener"))
    x0 = torch.zeros(2, 3, 4, 4)
    process.perturb(x0, torch.tensor([0.5, 0.5]), x0)
    with pytest.raises(TypeCheckError):
        process.perturb(x0[0], torch.tensor([0.5, 0.5]), x0[0])


def test_a_warning_is_an_error() -> None:
    with pytest.raises(UserWarning, match="loud"):
        warnings.warn("loud", stacklevel=1)


def test_the_network_is_out_of_reach() -> None:
    with socket.socket() as client, pytest.raises(AssertionError, match="asked the network"):
        client.connect(("192.0.2.1", 80))


def test_one_thread() -> None:
    assert torch.get_num_threads() == 1


def test_every_test_starts_from_the_same_seed() -> None:
    assert torch.equal(torch.rand(4), torch.rand(4, generator=torch.Generator().manual_seed(0)))
