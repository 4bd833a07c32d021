"""The mathematics of ADM: tensors in, tensors out."""

from attenua.process.heads import COMBINATIONS, PRECONDITIONS, Precondition, precondition
from attenua.process.laws import (
    LAWS,
    Constant,
    Custom,
    Exponential,
    FreeSlope,
    Law,
    LinearFalling,
    LinearRising,
    Quadratic,
    SquareRoot,
    law,
)
from attenua.process.noise import NOISES, Linear, Noise, Wiener, noise
from attenua.process.process import Prediction, Process

__all__ = [
    "COMBINATIONS",
    "LAWS",
    "NOISES",
    "PRECONDITIONS",
    "Constant",
    "Custom",
    "Exponential",
    "FreeSlope",
    "Law",
    "Linear",
    "LinearFalling",
    "LinearRising",
    "Noise",
    "Precondition",
    "Prediction",
    "Process",
    "Quadratic",
    "SquareRoot",
    "Wiener",
    "law",
    "noise",
    "precondition",
]
