"""Small networks of timm's encoder families, and what the suite can do with each, found by trying."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor

from mtvision.architecture.tree import Tree
from mtvision.architecture.widths import WidthConfig
from mtvision.balance import FixedWeights
from mtvision.core.context import Context
from mtvision.engine.optimization.optimizer import build_optimizer
from mtvision.models.adapters.low_rank.adapter import updated_layers
from mtvision.models.backbones.timm_backbone import TimmBackbone
from mtvision.models.factory import build_network
from mtvision.models.network import Network
from mtvision.testing.inputs import random_image, toy_tasks
from mtvision.testing.kinds.backbones import Levels
from mtvision.testing.modules import check_export, disturb

EXACT = 1e-6
"""Largest difference, as a share of the largest value, that counts as equal."""

UNTRIED = "not tried yet"
"""A cell without an outcome."""
REFUSED = "refused: "
"""How the outcome of a refusal begins."""

_PLAIN = {"depth": 4, "embed_dim": 32, "num_heads": 2}
_HIERA = {"embed_dim": 16, "stages": (1, 2, 2, 1)}


@dataclass(frozen=True)
class Encoder:
    """A small network of a family.

    Args:
        name: of timm, that of the smallest network with pre-trained weights or near it.
        options: that make it small; blocks are those of the large ones.
    """

    name: str
    options: Mapping[str, Any]

    def config(self) -> dict[str, Any]:
        """The backbone in a config."""
        return {"type": "TimmBackbone", "name": self.name, **self.options}


ENCODERS: dict[str, Encoder] = {
    "ViT, DeiT, MAE": Encoder("vit_base_patch16_224", _PLAIN),
    "DINOv2": Encoder("vit_small_patch14_dinov2", _PLAIN),
    "DINOv2, registers": Encoder("vit_small_patch14_reg4_dinov2", _PLAIN),
    "DINOv3": Encoder("vit_small_patch16_dinov3", _PLAIN),
    "EVA": Encoder("eva_giant_patch14_224", _PLAIN),
    "EVA-02": Encoder("eva02_small_patch14_224", _PLAIN),
    "PE core": Encoder("vit_pe_core_small_patch16_384", _PLAIN),
    "PE spatial": Encoder("vit_pe_spatial_small_patch16_512", _PLAIN),
    "CLIP": Encoder("vit_base_patch16_clip_224", _PLAIN),
    "SigLIP": Encoder("vit_base_patch16_siglip_224", _PLAIN),
    "SigLIP 2, NaFlex": Encoder("naflexvit_base_patch16_siglip", _PLAIN),
    "RADIO": Encoder("vit_base_patch16_radio_v3", _PLAIN),
    "RADIO, NaFlex": Encoder("naflexvit_base_patch16_radio_v3", _PLAIN),
    "BEiT": Encoder("beit_base_patch16_224", _PLAIN),
    "SAM": Encoder("samvit_base_patch16", {**_PLAIN, "global_attn_indexes": (1, 3), "window_size": 3}),
    "SAM 2 (Hiera)": Encoder("sam2_hiera_tiny", {**_HIERA, "global_att_blocks": (4,)}),
    "Hiera": Encoder("hiera_tiny_224", _HIERA),
    "Hiera, absolute windows": Encoder("hiera_small_abswin_256", _HIERA),
    "Swin": Encoder(
        "swin_tiny_patch4_window7_224", {"embed_dim": 16, "depths": (1, 2, 1, 1), "num_heads": (1, 1, 2, 2)}
    ),
    "Swin v2": Encoder(
        "swinv2_tiny_window8_256", {"embed_dim": 16, "depths": (1, 2, 1, 1), "num_heads": (1, 1, 2, 2)}
    ),
    "ConvNeXt, DINOv3 too": Encoder("test_convnext", {}),
    "ConvNeXt v2": Encoder("test_convnext2", {}),
    "MambaOut": Encoder("test_mambaout", {}),
    "ResNet": Encoder("test_resnet", {}),
    "EfficientNet": Encoder("test_efficientnet", {}),
}
"""{family: its small network}; rows of docs/encoders.md."""


class Refused(Exception):  # noqa: N818
    """The suite says in one line that it cannot do this."""


def timm_maps(backbone: TimmBackbone, encoder: Encoder, image: Tensor) -> list[Tensor]:
    """The maps of timm's own network with the weights of a backbone.

    Args:
        backbone: of this encoder, without norms of its own.
        encoder: what timm builds.
        image: (B, 3, H, W), padded already. timm takes it as it is, so networks of one size need that size.
    """
    twin = _timm_model(encoder)
    twin.load_state_dict(backbone.model.state_dict(), strict=False)
    levels = list(backbone.level_indices)
    with torch.no_grad():
        maps: list[Tensor] = twin.eval().forward_intermediates(image, indices=levels, intermediates_only=True)
        if backbone.norms_last:
            maps[-1:] = twin.forward_intermediates(
                image, indices=levels[-1:], intermediates_only=True, norm=True
            )
    return maps


def _timm_model(encoder: Encoder) -> Any:
    for any_size in ({"dynamic_img_size": True}, {"strict_img_size": False}, {}):
        try:
            return timm.create_model(encoder.name, **{**any_size, **encoder.options})
        except TypeError:
            continue
    raise AssertionError("the last attempt adds no argument")


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference as a share of the largest value."""
    return float((ours - theirs).detach().abs().max() / theirs.detach().abs().max())


def network_of(encoder: Encoder, *adapters: Mapping[str, Any]) -> Network:
    """A small network with random weights that depend on the encoder alone."""
    torch.manual_seed(0)
    config = {
        "backbone": encoder.config(),
        "adapters": list(adapters),
        "decoder": {"type": "ParallelDecoder", "width": 8},
        "head": {"type": "ConvHead"},
    }
    return build_network(config, toy_tasks()[:2]).eval()


def outcome(column: str, encoder: Encoder) -> str:
    """What a family does in a column of the table: a short word, or the line that refuses it.

    Args:
        column: a key of `COLUMNS`.
        encoder: is built anew.
    """
    try:
        return COLUMNS[column](encoder)
    except (NotImplementedError, ValueError, Refused) as error:
        return REFUSED + re.sub(r"\s+", " ", str(error))


def _blocks(encoder: Encoder) -> str:
    """How many; they run one after another and give the maps of timm."""
    backbone = TimmBackbone(encoder.name, **encoder.options).eval()
    disturb(backbone)
    height, width = backbone.model.pretrained_cfg.get("input_size", (3, 64, 64))[1:]
    fixed = bool(backbone.model.pretrained_cfg.get("fixed_input_size"))
    image = backbone.pad(random_image(1, (height, width) if fixed else (96, 64)))
    size = (int(image.shape[2]), int(image.shape[3]))
    with torch.no_grad():
        state = backbone.stem(image)
        states = [state, *((state := block(state)) for block in backbone.blocks)]
        maps = [backbone.to_map(states[at], level, size) for level, at in enumerate(backbone.exits)]
    apart = max(map(difference, maps, timm_maps(backbone, encoder, image)))
    if apart > EXACT:
        raise Refused(f"the maps differ from those of timm by {apart:.0e}")
    strides = sorted(set(backbone.strides))
    return f"{len(backbone.blocks)}, stride {'–'.join(str(item) for item in {strides[0]: 0, strides[-1]: 0})}"


def _layer_decay(encoder: Encoder) -> str:
    """Every block learns faster than the one before it, and the stem slowest of all."""
    network = network_of(encoder)
    optimizer = build_optimizer(
        network, FixedWeights(tasks=network.task_names), {"lr": 1.0, "layer_decay": 0.5}
    )
    rates = {id(item): group["lr"] for group in optimizer.param_groups for item in group["params"]}
    names = network.backbone.block_names()
    by_block = [
        {rates[id(item)] for item in network.backbone.get_submodule(name).parameters()} for name in names
    ]
    known = [rate for found in by_block for rate in found]
    if known != sorted(known) or max(map(len, by_block)) > 1:
        raise Refused(f"rates of blocks are {by_block}")
    return f"{len({rates[id(item)] for item in network.backbone.parameters()})} rates"


def _freeze(encoder: Encoder) -> str:
    """Only biases of the backbone get a gradient (BitFit)."""
    network = network_of(encoder)
    network.freeze(["backbone.*", "!backbone.*.bias"])
    network.train()
    _backward(network(_image()))
    moved = {name for name, item in network.backbone.named_parameters() if item.grad is not None}
    wrong = [name for name in moved if not name.endswith("bias")]
    if wrong or not moved:
        raise Refused(f"gradients reach {wrong or 'nothing'}")
    return "yes"


def _low_rank(encoder: Encoder) -> str:
    """Updates of all linear layers: nothing changes at first, then every update gets a gradient."""
    plain = network_of(encoder)
    network = network_of(encoder, {"type": "LowRank", "shared": {"*": 1}})
    network.load_state_dict(plain.state_dict(), strict=False)
    image = _image()
    _same(network(image), plain(image), "LowRank before training")
    updates = {n: p for n, p in network.backbone.named_parameters() if p.requires_grad}
    disturb(network)  # norms of Swin v2 start at 0 and let no gradient through
    _backward(network(image))
    idle = [name for name, item in updates.items() if item.grad is None or not item.grad.any()]
    if idle:
        raise Refused(f"no gradient reaches {', '.join(idle[:3])}")
    return f"{len(updated_layers(network))} layers"


def _branching(encoder: Encoder) -> str:
    """Tasks part in the middle; with the weights of one backbone they get the same maps as without."""
    plain = network_of(encoder)
    count = len(plain.backbone.block_names())
    first, *others = plain.task_names
    levels = ((plain.task_names,), ((first,), tuple(others)))
    tree = Tree(levels, (count // 2, count - count // 2))
    network = network_of(encoder, {"type": "Branched", "tree": tree.to_plain()})
    image = _image()
    for name, maps in plain_maps(network, image).items():
        for found, want in zip(maps, plain.backbone(image).maps, strict=True):
            if difference(found, want) > EXACT:
                raise Refused(f"the maps of {name} differ from those without branches")
    return "yes"


def plain_maps(network: Network, image: Tensor) -> dict[str, tuple[Tensor, ...]]:
    """{task: maps of the backbone}."""
    pyramid = network.backbone(image)
    return {name: tuple(pyramid.for_task(name).maps) for name in network.task_names}


def _slimming(encoder: Encoder) -> str:
    """Full width is the plain network; at half width everything is finite."""
    plain, network = network_of(encoder), network_of(encoder, {"type": "Slimmable"})
    network.load_state_dict(plain.state_dict(), strict=False)
    image = _image()
    _same(network(image), plain(image), "Slimmable at full width")
    half = WidthConfig(0.5, dict.fromkeys(network.task_names, 0.5))
    network.train()
    for name, logits in network(image, context=Context(widths=half.to_plain())).items():
        if not logits.isfinite().all():
            raise Refused(f"logits of {name} are not finite at half width")
    return "yes"


def _export(encoder: Encoder) -> str:
    """`torch.export` traces the backbone at one size, and the program gives the same maps."""
    module, image = Levels(network_of(encoder).backbone), _image()
    with torch.no_grad():
        check_export(module, (image,), module(image), torch.float32)
    return "yes"


COLUMNS: dict[str, Callable[[Encoder], str]] = {
    "blocks": _blocks,
    "layer decay": _layer_decay,
    "BitFit": _freeze,
    "LoRA": _low_rank,
    "branching": _branching,
    "slimming": _slimming,
    "export": _export,
}
"""{column of docs/encoders.md: how its cells are found}."""


def page(found: Mapping[str, Mapping[str, str]]) -> str:
    """The page, of all families.

    Args:
        found: {family: {column: outcome}}.
    """
    notes: dict[str, int] = {}
    rows = [_row(family, outcomes, notes) for family, outcomes in found.items()]
    return "\n".join(
        [
            _HEAD,
            "| family | small network | " + " | ".join(COLUMNS) + " |",
            "|" + "---|" * (2 + len(COLUMNS)),
            *rows,
            "",
            "Lines of the refusals:",
            "",
            "```text",
            *(f"{number}. {line}" for line, number in notes.items()),
            "```",
            "",
        ]
    )


_HEAD = """\
# What each encoder can do

`python tools/encoder_table.py --out docs/encoders.md` makes this page. No cell is typed: each one is what
a trial with a small network of the family gave. A number in brackets is the line that refuses it.
`backbone=dict(type="TimmBackbone", name=...)` takes any timm name of the family.

* *blocks*: how many the small network has, and the strides of its levels. Run one after another, they
  give the maps of timm's own network to 1e-6.
* *layer decay*: different rates with `optimizer.layer_decay`, which rise from the stem to the last block.
* *BitFit*: `training.freeze=["backbone.*", "!backbone.*.bias"]` trains biases alone.
* *LoRA*: linear layers with an update by `LowRank`. Nothing changes before training. Gradients reach all
  updates.
* *branching*: tasks part in the middle and get the same maps as without branches.
* *slimming*: `Slimmable` gives the plain network at full width, and runs at half width.
* *export*: `torch.export` traces the backbone, and the program gives the same maps.
"""


def _row(family: str, outcomes: Mapping[str, str], notes: dict[str, int]) -> str:
    cells = []
    for column in COLUMNS:
        text = outcomes.get(column, UNTRIED)
        if text.startswith(REFUSED):
            line = text.removeprefix(REFUSED)
            text = f"no [{notes.setdefault(line, len(notes) + 1)}]"
        cells.append(text)
    return f"| {family} | `{ENCODERS[family].name}` | " + " | ".join(cells) + " |"


def _backward(logits: Mapping[str, Tensor]) -> None:
    torch.autograd.backward(torch.stack([item.square().mean() for item in logits.values()]).sum())


def _image() -> Tensor:
    return random_image(2, (64, 64))


def _same(found: Mapping[str, Tensor], want: Mapping[str, Tensor], what: str) -> None:
    apart = max(difference(found[name], want[name]) for name in want)
    if apart > EXACT:
        raise Refused(f"{what} changes logits by {apart:.0e}")
