"""AttenuationModel: a network, a process and a preconditioning; (x_t, t, condition) -> Prediction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attenua.config import ModelConfig
from attenua.networks.unet import Condition, UNet
from attenua.process import COMBINATIONS, Prediction, Process, law, noise, precondition
from attenua.process.process import as_time, spread
from attenua.shapes import Images, Times


def build_process(config: ModelConfig) -> Process:
    """Return the process that a configuration names. Raises ValueError on unknown names."""
    fields = {"rate": config.process.rate} if config.process.law == "exponential" else {}
    return Process(law(config.process.law, **fields), noise(config.process.noise))


class AttenuationModel(nn.Module):
    """The denoiser of an ADM: predicts the clean image and the noise of a state.

    model(x_t [B, C, H, W], t [B] or [] in [0, 1], condition) -> Prediction(x0, eps), each [B, C, H, W].
    States are without the data's mean: picture = x_0 + mu, with mu, [C], in picture values (-1..1); data_mean,
    [C, H, W], is the mean of x_0 over the data (what is known of the image at t = 1). `calls` counts network calls.
    A process of the user's own (a Custom law) may replace the configured one.
    """

    mu: Tensor
    data_mean: Tensor

    def __init__(self, config: ModelConfig, process: Process | None = None) -> None:
        super().__init__()
        self.config = config
        self.process = process or build_process(config)
        how = config.process
        self.precondition = precondition(how.precondition, self.process, config.s_d, how.skip_deviation)
        if config.process.combination not in COMBINATIONS:
            known = ", ".join(COMBINATIONS)
            raise ValueError(f"unknown combination {config.process.combination!r}; known: {known}")
        self.combination = config.process.combination
        self.network = UNet(config.network, self.precondition.heads)
        size = config.network.image_size
        self.register_buffer("mu", torch.zeros(config.network.channels))
        self.register_buffer("data_mean", torch.zeros(config.network.channels, size, size))
        self.calls = 0

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters."""
        return next(self.network.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.network.parameters()).device

    def raw(self, x_t: Images, t: float | Times, condition: Condition | None = None) -> tuple[Tensor, ...]:
        """Return the raw heads, each [B, C, H, W], of about unit size. Counts one network call."""
        self.calls += 1
        time = as_time(t)
        seen = self.precondition.network_time(time).to(device=x_t.device, dtype=torch.float32).expand(x_t.shape[0])
        state = (x_t * spread(self.precondition.c_in(time), x_t)).to(self.dtype)
        raw: tuple[Tensor, ...] = self.network(state, seen, condition)
        return raw

    def forward(
        self, x_t: Images, t: float | Times, condition: Condition | None = None, *, combination: str | None = None
    ) -> Prediction:
        """Return the Prediction under the model's combination of heads, or under the one named."""
        raw = tuple(head.to(x_t.dtype) for head in self.raw(x_t, t, condition))
        return self.precondition.predict(x_t, as_time(t), raw, combination or self.combination)

    def encode(self, condition: Condition) -> Condition:
        """Return the condition with its picture encoded, so that calls need not do it again."""
        if condition.picture is None or condition.features is not None:
            return condition
        return condition._replace(features=self.network.encode(condition.picture))

    def parameter_count(self) -> int:
        """Return the number of the network's parameters."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def flops(self) -> int:
        """Return the floating-point operations of one call on one picture (a multiply-add counts as two).

        Counted by running the network on meta tensors: convolutions, matrix products and attention.
        """
        from torch.utils.flop_counter import FlopCounterMode

        with torch.device("meta"):
            network = UNet(self.config.network, self.precondition.heads).eval()
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(*network.example())
        return int(counter.get_total_flops())
