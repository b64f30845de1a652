"""VTAGML: biases of a task inside windows, gains of norms, the side stream, and what trains."""

from __future__ import annotations

import pytest
import torch
from disturbed import disturb
from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention
from torch import nn
from torch.nn import functional as F

from mtvision.core.context import Context, use_context
from mtvision.models.adapters import VTAGML
from mtvision.models.adapters.vtagml import task_similarities
from mtvision.models.adapters.vtagml.layers import Bottleneck, TaskAttention, TaskScaledNorm
from mtvision.models.adapters.vtagml.similarities import TaskSimilarities, TaskTable
from mtvision.models.backbones import TimmBackbone
from mtvision.protocols.tasks import depth, normals
from mtvision.testing.inputs import ToyBackbone

TASKS = (depth(), normals())
NAMES = ("depth", "normals")


def swin():
    options = {"embed_dim": 6, "depths": (2, 1), "num_heads": (1, 2), "window_size": 2}
    return TimmBackbone("swin_tiny_patch4_window7_224", **options)


@pytest.mark.conformance("VTAGML", "formulas")
def test_the_bias_of_a_task_lies_among_the_pixels_of_one_row():
    table = TaskTable(2, 5)
    layer = disturb(TaskAttention(WindowAttention(6, num_heads=2, window_size=(3, 3)), table, NAMES))
    with torch.no_grad(), use_context(Context(task="normals")):
        found = layer._get_rel_pos_bias() - WindowAttention._get_rel_pos_bias(layer)
        gamma, beta = F.linear(
            table.weight[1], layer.taa_attn.gb_weights.weight, layer.taa_attn.gb_weights.bias
        ).chunk(2)
        rows = ((1 + gamma) * layer.random_weight_matrix + beta).view(3, 3, 3)
    want = torch.zeros(9, 9)
    for row in range(3):
        want[3 * row : 3 * row + 3, 3 * row : 3 * row + 3] = rows[row]
    torch.testing.assert_close(found[0], want.expand(2, -1, -1))


def test_a_norm_has_a_gain_of_the_task_and_a_stream_no_non_linearity():
    table, x = TaskTable(2, 5), torch.randn(3, 7, 6)
    norm = disturb(TaskScaledNorm(nn.LayerNorm(6), table, NAMES))
    step = disturb(Bottleneck(6, table, NAMES))
    with torch.no_grad(), use_context(Context(task="depth")):
        gamma, beta = norm.ln_weight_modulation.gb_weights(table.weight[0]).chunk(2)
        want = F.layer_norm(x, (6,)) * ((1 + gamma) * norm.weight + beta) + norm.bias
        torch.testing.assert_close(norm(x), want)
        torch.testing.assert_close(step(x) + step(-x), 2 * step(torch.zeros_like(x)))
    assert step.down_proj_layer.out_features == 2


def test_decoders_read_the_stream_at_the_coarsest_level_alone():
    torch.manual_seed(0)
    plain = swin().eval()
    adapted = VTAGML(embedding=4, blocks=["model.layers.1.blocks.0"]).apply(swin(), TASKS).eval()
    adapted.inner.load_state_dict(
        {
            next(own for own in adapted.inner.state_dict() if own.replace(".block.", ".") == name): value
            for name, value in plain.state_dict().items()
        },
        strict=False,
    )
    image = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        want, found = plain(image), adapted(image)
        states = [x.chunk(2, -1)[0] for x in states_of(adapted, image, "depth")]
        for state, other in zip(plain._states(image), states, strict=True):
            torch.testing.assert_close(state, other)
    assert torch.equal(found.for_task("depth").maps[0], want.maps[0])
    assert not torch.allclose(found.for_task("depth").maps[1], want.maps[1])
    assert not torch.allclose(found.for_task("depth").maps[1], found.for_task("normals").maps[1])


def states_of(backbone, image, task):
    with use_context(Context(task=task)):
        return list(backbone._states(image))


def test_what_trains_when_frozen():
    backbone = VTAGML(embedding=4, freeze=True, blocks=["model.layers.0.blocks.1"]).apply(swin(), TASKS)
    frozen = {name for name, item in backbone.named_parameters() if not item.requires_grad}
    assert frozen
    assert all(".block." in name and "blocks.1." not in name for name in frozen)
    assert "task_type_embeddings.weight" not in frozen


def test_other_backbones_are_refused():
    with pytest.raises(TypeError, match="no blocks of timm's Swin. Use it with a swin_"):
        VTAGML().apply(ToyBackbone(), TASKS)


def test_similarities_are_softmaxes_of_mean_cosines_of_gradients():
    similarities = TaskSimilarities(3)
    start = similarities()
    torch.testing.assert_close(start.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(start[0, 1] / start[0, 0], torch.tensor(-4.0).exp())
    similarities.update()  # the first pass has no step before it
    similarities.note(0, torch.tensor([1.0, 0.0]))
    similarities.note(2, torch.tensor([1.0, 1.0]))
    similarities.update()
    want = torch.eye(3)
    want[0, 2] = want[2, 0] = 0.01 * 0.5**0.5  # task 1 had no gradient
    torch.testing.assert_close(similarities.cosines, want)
    similarities.update()
    torch.testing.assert_close(similarities.cosines, want)
    shares = similarities()
    assert shares[0, 2] > shares[0, 1]
    similarities.cosines[0, 1] = 0.9
    assert similarities()[0, 1] != similarities()[1, 0]


def test_embeddings_are_mixed_and_gradients_of_training_passes_are_seen():
    backbone = VTAGML(embedding=4, similarities=True).apply(swin(), TASKS)
    table, image = backbone.task_type_embeddings, torch.randn(2, 3, 16, 24)
    shares = table.similarities()
    torch.testing.assert_close(table.of(1), shares[1] @ table.weight)
    gradients, last = {}, backbone.get_submodule(backbone.block_names()[-1])
    last.register_forward_hook(lambda module, given, out: gradients.setdefault(len(gradients), out))
    maps = backbone.train()(image)
    for output in gradients.values():
        output.retain_grad()
    loss = maps.for_task("depth").maps[-1].square().sum() - 3 * maps.for_task("normals").maps[-1].sum()
    loss.backward()
    want = F.cosine_similarity(gradients[0].grad.flatten(), gradients[1].grad.flatten(), dim=0)
    backbone(image)
    torch.testing.assert_close(table.similarities.cosines[0, 1], 0.01 * want)
    before = table.similarities.cosines.clone()
    backbone.eval()(image)
    assert torch.equal(table.similarities.cosines, before)
    found = task_similarities(backbone)
    assert list(found) == list(found["depth"]) == list(NAMES)
    with pytest.raises(ValueError, match="no VTAGML with similarities=True"):
        task_similarities(VTAGML(embedding=4).apply(swin(), TASKS))


def test_scores_are_not_divided_where_the_released_script_does_not():
    plain = swin().eval()
    unscaled = VTAGML(embedding=4, stream=False, unscaled=True).apply(swin(), TASKS).eval()
    unscaled.load_state_dict(plain.state_dict(), strict=False)
    for block in [item for item in plain.modules() if isinstance(item, WindowAttention)]:
        width = block.qkv.in_features
        with torch.no_grad():  # queries times the root of a head's width
            block.qkv.weight[:width] *= (width // block.num_heads) ** 0.5
            block.qkv.bias[:width] *= (width // block.num_heads) ** 0.5
    image = torch.randn(1, 3, 16, 24)
    with torch.no_grad():
        want, found = plain(image), unscaled(image).for_task("depth")
    for one, other in zip(want.maps, found.maps, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.conformance("VTAGML", "counts")
def test_the_released_network_has_the_values_of_its_layers():
    """Swin-S with conditioned blocks 12 to 17 of its third stage, the released script for NYUD-v2.

    No count is published; this one is written out from the layers of the released code.
    """
    with torch.device("meta"):
        plain = TimmBackbone("swin_small_patch4_window7_224")
        blocks = [path for path, item in plain.named_modules() if type(item) is SwinTransformerBlock][16:22]
        before = sum(item.numel() for item in plain.parameters())
        adapted = VTAGML(blocks=blocks).apply(plain, TASKS)

    def linear(inputs, outputs):
        return inputs * outputs + outputs

    size, width = 343, 384
    conditioned = 49 * 7 + linear(size, 2 * 7) + 2 * linear(size, 2 * width)
    stream = sum(
        depth * (linear(size, size) + linear(size, 2 * d) + linear(d, d // 3) + linear(d // 3, d))
        for d, depth in ((96, 2), (192, 2), (384, 18), (768, 2))
    )
    merging = sum(8 * d + 8 * d * d for d in (96, 192, 384))
    added = 2 * size + 6 * conditioned + stream + merging + 2 * 768
    assert sum(item.numel() for item in adapted.parameters()) - before == added
