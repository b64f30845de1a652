"""Parameters of configured networks against known counts; append rows, do not edit them.

Counts of officially released models hold parameters that nothing uses; the third number is how many of them
are not here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mtvision.core.shapes import without_values
from mtvision.models.factory import build_network
from mtvision.recipe.building import without_pretrained
from mtvision.recipe.config import load_config
from mtvision.recipe.settings import protocol_of

CONFIGS = Path(__file__).parents[2] / "configs"

# {config without .py: (parameters here, in official code or None, of those not here)}
KNOWN = {
    "invpt/invpt_vit_large_nyud_invpt_3xb2_40k": (395_453_326, 402_092_888, 6_639_562),
    "invpt/invpt_vit_large_pascal_invpt_3xb2_40k": (415_957_608, 422_929_522, 6_971_914),
    "invpt/invpt_vit_base_nyud_invpt_3xb2_40k": (155_511_438, None, 0),
    "invpt/invpt_vit_base_pascal_invpt_3xb2_40k": (170_702_696, None, 0),
    "invpt/invpt_swin_large_nyud_invpt_3xb2_40k": (341_655_234, None, 0),
    "taskprompter/taskprompter_vit_large_nyud_invpt_2xb2_40k": (512_471_469, 513_505_709, 1_034_240),
    "taskprompter/taskprompter_vit_large_pascal_invpt_2xb2_40k": (400_054_240, 401_104_864, 1_050_624),
    "taskprompter/taskprompter_vit_base_pascal_invpt_2xb2_40k": (417_544_246, 418_332_214, 787_968),
    "taskprompter/taskprompter_vit_base_nyud_invpt_2xb2_40k": (257_733_741, None, 0),
    "taskprompter/taskprompter_swin_base_cityscapes3d_4xb1_40k": (274_604_494, 291_558_934, 16_954_440),
    "cross_stitch/cross_stitch_resnet18_pascal_survey_1xb12_20ep": (79_525_921, None, 0),
    "cross_stitch/cross_stitch_resnet50_nyud_survey_1xb8_50ep": (79_292_841, 79_292_841, 0),
    "mtan/mtan_resnet50_nyud_survey_1xb8_100ep": (72_052_713, 72_052_713, 0),
    "mti_net/mti_net_helpers_hrnet_w18s_nyud_survey_1xb8_100ep": (14_838_121, None, 0),
    "mti_net/mti_net_hrnet_w18s_nyud_survey_1xb8_100ep": (8_578_179, 8_578_179, 0),
    "mti_net/mti_net_hrnet_w18s_pascal_invpt_1xb8_40k": (24_494_716, None, 0),
    "mti_net/mti_net_hrnet_w18s_pascal_survey_1xb8_100ep": (24_494_171, 24_494_171, 0),
    "mti_net/mti_net_hrnet_w48_nyud_invpt_4xb2_40k": (165_402_153, None, 0),
    "multi_decoder/multi_decoder_hrnet_w18s_nyud_invpt_1xb8_40k": (4_167_755, None, 0),
    "multi_decoder/multi_decoder_hrnet_w18s_nyud_survey_1xb8_100ep": (4_019_251, 4_019_251, 0),
    "multi_decoder/multi_decoder_hrnet_w18s_pascal_survey_1xb8_100ep": (4_238_213, None, 0),
    "multi_decoder/multi_decoder_resnet18_pascal_survey_1xb6_100ep": (34_795_873, None, 0),
    "multi_decoder/multi_decoder_resnet50_nyud_survey_1xb8_100ep": (55_769_449, 55_769_449, 0),
    "multi_decoder/single_task_hrnet_w18s_pascal_survey_1xb8_60ep": (3_940_121, None, 0),
    "nddr/nddr_resnet50_nyud_survey_1xb8_50ep": (101_591_721, 101_591_721, 0),
    "pad_net/pad_net_helpers_hrnet_w18s_nyud_survey_1xb8_100ep": (12_161_332, None, 0),
    "pad_net/pad_net_hrnet_w18s_nyud_invpt_1xb8_40k": (19_521_848, None, 0),
    "pad_net/pad_net_hrnet_w18s_nyud_survey_1xb8_100ep": (7_019_056, 7_019_056, 0),
    "pad_net/pad_net_hrnet_w18s_pascal_invpt_1xb8_40k": (29_305_506, None, 0),
    "pad_net/pad_net_hrnet_w18s_pascal_survey_1xb8_100ep": (12_083_608, None, 0),
}


def build(name):
    config = load_config(CONFIGS / f"{name}.py")
    with without_values():
        return build_network(without_pretrained(config["model"]), protocol_of(config).tasks)


@pytest.mark.conformance("{name}", "counts")
@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_parameters(name):
    here, official, missing = KNOWN[name]
    assert sum(p.numel() for p in build(name).parameters()) == here
    assert official is None or here + missing == official
