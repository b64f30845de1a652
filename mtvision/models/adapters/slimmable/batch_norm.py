"""Batch norm of a slimmable network: every configuration has statistics of its own.

Features of different widths have different means and variances (Yu et al., ICLR 2019). *Switchable* norms
keep affine and running statistics for each listed width of their own part, moved while training. *Universal*
norms (Yu and Huang, ICCV 2019) share the affine and normalise by the batch while training. They get
statistics afterwards, by `calibrate`, for the configurations that will be used. The full width always has
ordinary running statistics under the ordinary names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.architecture.widths import WidthConfig, Widths
from mtvision.core.context import Context
from mtvision.models.adapters.slimmable.sliced import Sliced, plain_module, same_state
from mtvision.models.adapters.slimmable.slicing import Slicing, take
from mtvision.models.adapters.slimmable.width import Slimming
from mtvision.models.declarations import READS
from mtvision.models.dry_run import in_mode
from mtvision.ops.batch_statistics import BatchStatistics, collect


class SlimBatchNorm2d(Sliced):
    """Made of a `BatchNorm2d` or timm's `BatchNormAct2d` by `slim_batch_norm`; not a subclass of either.

    (So that SyncBatchNorm conversion, which knows one set of statistics, leaves it alone.)

    Attributes:
        switches: ratios of its part with affine and statistics of their own (switchable norms).
    """

    switches: tuple[float, ...]
    num_features: int
    eps: float
    momentum: float | None
    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    slot_mean: Tensor
    slot_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) to the same shape, activation included where the plain norm had one.

        Raises:
            ValueError: in evaluation mode, at widths without statistics.
        """
        control, given = self.slicing.control, int(x.shape[1])
        self.__dict__["given"] = given
        self.slicing.check(given)
        widths = control.widths()
        weight, bias = self.scale_and_shift(widths, given)
        mean: Tensor | None = None
        var: Tensor | None = None
        momentum = 0.0
        by_batch = control.collecting or self.training
        if not by_batch:
            counts = x.is_meta or control.counting  # a run whose values do not matter
            mean, var = self.full_statistics(given) if counts else self.statistics(widths, given)
        elif widths.full and not control.collecting:
            self.num_batches_tracked.add_(1)
            mean, var, momentum = self.running_mean, self.running_var, self._momentum()
        elif not control.collecting and (switch := self._switch(widths)) is not None:
            mean, var, momentum = *self._switched(switch, given), self.momentum or 0.1
        return self._activate(F.batch_norm(x, mean, var, weight, bias, by_batch, momentum, self.eps))

    def scale_and_shift(self, widths: Widths, given: int) -> tuple[Tensor | None, Tensor | None]:
        """Weight and bias at these widths, the leading `given`."""
        switch = self._switch(widths)
        if switch is not None:
            return self.switch_weights[switch][:given], self.switch_biases[switch][:given]
        runs = self.slicing.entries(READS, given)
        weight, bias = (None if item is None else take(item, 0, runs) for item in (self.weight, self.bias))
        return weight, bias

    def statistics(self, widths: Widths, given: int) -> tuple[Tensor, Tensor]:
        """Mean and variance for evaluation at these widths, the leading `given`.

        Raises:
            ValueError: there are none.
        """
        if min(self.slicing.seen(widths)) >= 1:
            return self.full_statistics(given)
        slot = self.slicing.control.slot(self.slicing.part, widths, self.slicing.sees)
        if slot is not None:
            return self.slot_mean[slot, :given], self.slot_var[slot, :given]
        switch = self._switch(widths)
        if switch is not None:
            return self._switched(switch, given)
        if self.switches:  # own width is full, another part is not
            return self.full_statistics(given)
        raise ValueError(
            f"slimmable: batch norm has no statistics for the widths {widths.stages} {dict(widths.tasks)}. "
            "Calibrate this configuration first: mtvision.models.adapters.slimmable.calibrate(network, "
            "images, [widths]); `tools/controllable.py` does so for a whole grid."
        )

    def fill(self, slot: int, collected: BatchStatistics) -> None:
        """Write the mean over batches of what was collected into a slot."""
        values = collected.mean()
        if values is None:  # a decoder that did not run
            return
        for target, value in zip((self.slot_mean, self.slot_var), values, strict=True):
            target[slot].zero_()
            target[slot, : len(value)] = value.to(target)

    def full_statistics(self, given: int) -> tuple[Tensor, Tensor]:
        """The ordinary running mean and variance, sliced."""
        runs = self.slicing.entries(READS, given)
        return take(self.running_mean, 0, runs), take(self.running_var, 0, runs)

    def _momentum(self) -> float:
        return 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum

    def _switch(self, widths: Widths) -> int | None:
        """Which of `switches` is on; None for the full width and in universal norms."""
        ratio = widths.ratio(self.slicing.part)
        if not self.switches or ratio >= 1 or self.slicing.control.counting:
            return None
        if ratio not in self.switches:
            raise ValueError(
                f"slimmable: switchable batch norms know the widths {self.switches}, not {ratio}. Use a "
                "listed width, or Slimmable(batch_norm='universal')."
            )
        return self.switches.index(ratio)

    def _switched(self, switch: int, given: int) -> tuple[Tensor, Tensor]:
        mean, var = (cast(Tensor, getattr(self, f"switch_{name}")) for name in ("mean", "var"))
        return mean[switch, :given], var[switch, :given]

    def _activate(self, x: Tensor) -> Tensor:
        for name in ("drop", "act"):
            layer = self._modules.get(name)
            x = x if layer is None else layer(x)
        return x

    @property
    def switch_weights(self) -> nn.ParameterList:
        """Scale for each of `switches`."""
        return cast(nn.ParameterList, self._modules["switch_weight"])

    @property
    def switch_biases(self) -> nn.ParameterList:
        """Shift for each of `switches`."""
        return cast(nn.ParameterList, self._modules["switch_bias"])


def slim_batch_norm(module: nn.Module, slicing: Slicing, switches: Sequence[float] = ()) -> SlimBatchNorm2d:
    """The slimmable norm that takes the place of a plain one.

    Args:
        module: with affine and running statistics.
        slicing: of its input.
        switches: ratios below 1 of its part, for a switchable norm; empty for a universal one.

    Raises:
        ValueError: no running statistics, or a switchable norm without affine.
    """
    norm = cast(SlimBatchNorm2d, same_state(module, SlimBatchNorm2d))
    if norm.running_mean is None or (switches and norm.weight is None):
        raise ValueError(
            f"slimmable: '{slicing.path}' ({type(module).__name__}) has no running statistics or no affine, "
            "which is not supported."
        )
    if switches and len(slicing.reads) > 1:
        raise ValueError(
            f"slimmable: '{slicing.path}' is a switchable batch norm that reads several joined maps, which "
            "is not supported; use Slimmable(batch_norm='universal')."
        )
    norm.__dict__.update(slicing=slicing, plain=type(module), given=None, switches=tuple(switches))
    shape = (slicing.control.slots, norm.num_features)
    norm.register_buffer("slot_mean", norm.running_mean.new_zeros(shape))
    norm.register_buffer("slot_var", norm.running_var.new_ones(shape))
    if switches and norm.weight is not None and norm.bias is not None:
        shape = (len(switches), norm.num_features)
        norm.register_buffer("switch_mean", norm.running_mean.new_zeros(shape))
        norm.register_buffer("switch_var", norm.running_var.new_ones(shape))
        for name, item in (("switch_weight", norm.weight), ("switch_bias", norm.bias)):
            copies = [nn.Parameter(item.detach().clone()) for _ in switches]
            norm.add_module(name, nn.ParameterList(copies))
    return norm


def plain_batch_norm(norm: SlimBatchNorm2d, widths: Widths, *, fresh: bool) -> nn.Module:
    """The plain norm of the widths in force.

    Args:
        norm: has run at these widths.
        widths: in force.
        fresh: a norm without statistics starts anew instead of being refused.

    Raises:
        ValueError: it has no statistics for these widths.
    """
    given = norm.given or norm.num_features
    try:
        mean, var = norm.statistics(widths, given)
    except ValueError:
        if not fresh:
            raise
        mean, var = norm.full_statistics(given)
    weight, bias = norm.scale_and_shift(widths, given)
    affine = {name: item for name, item in (("weight", weight), ("bias", bias)) if item is not None}
    plain = plain_module(norm, {**affine, "running_mean": mean, "running_var": var}, {"num_features": given})
    for name in ("slot_mean", "slot_var", "switch_mean", "switch_var"):
        plain._buffers.pop(name, None)
    for name in ("switch_weight", "switch_bias"):
        plain._modules.pop(name, None)
    del plain.__dict__["switches"]
    return plain


@torch.no_grad()
def calibrate(network: nn.Module, images: Sequence[Tensor], widths: Iterable[WidthConfig]) -> None:
    """Give batch norms their statistics for some configurations.

    Every configuration is run alone on all batches, each normalised by its own statistics; their means are
    kept. So neither the order of batches nor that of configurations matters. Networks without batch norm, and
    the full width, need nothing.

    Args:
        network: a slimmable `mtvision.models.Network`; its mode is restored.
        images: batches (B, 3, H, W), a few of training size; use no test images.
        widths: configurations.

    Raises:
        ValueError: the network is not slimmable, has no free slot, or there is no batch.
    """
    control = slimming_of(network)
    norms = [item for item in network.modules() if isinstance(item, SlimBatchNorm2d)]
    try:
        with in_mode(network, training=False):
            for value in widths if norms else ():
                if control.complete(value).full:
                    continue
                context = Context(widths=value.to_plain())
                control.collecting = True
                found = collect(norms, images, partial(network, context=context))
                slot = control.claim(value)
                for norm, collected in zip(norms, found, strict=True):
                    norm.fill(slot, collected)
    finally:
        control.collecting = False


def has_statistics(network: nn.Module, value: WidthConfig) -> bool:
    """Whether every batch norm of a slimmable network can be used at these widths."""
    control = slimming_of(network)
    widths = control.complete(value)
    norms = [item for item in network.modules() if isinstance(item, SlimBatchNorm2d)]
    return all(
        min(norm.slicing.seen(widths)) >= 1
        or norm.switches
        or control.slot(norm.slicing.part, widths, norm.slicing.sees) is not None
        for norm in norms
    )


def slimming_of(network: nn.Module) -> Slimming:
    """The state of a slimmable network.

    Raises:
        ValueError: the network is not slimmable.
    """
    for item in network.children():
        if isinstance(item, Slimming):
            return item
    raise ValueError(
        "this network is not slimmable. Train it with model.adapters=[dict(type='Slimmable')], see "
        "docs/slimmable.md."
    )
