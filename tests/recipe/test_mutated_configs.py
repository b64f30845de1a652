"""300 configs with a change each: accepted where an oracle says so, refused with the dotted key elsewhere.

`pytest -s` prints the table of outcomes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from mutated_configs import Mutator

from mtvision.core.naming import ConfigError, ReportedError
from mtvision.recipe.check import TO_TRAIN, check_config
from mtvision.recipe.config import load_config

ROOT = Path(__file__).parents[2]
SHIPPED = (
    "camvid/parallel_lite0_camvid_1xb8_300",
    "kendall/kendall_tiny_synthetic_1xb6_900",
    "kendall/kendall_resnet101_cityscapes_1xb8_100k",
    "branching/bmtas_resnet10t_synthetic_1xb8_200",
    "branching/rsa_resnet10t_synthetic_1xb8_200",
    "slimmable/slimmable_regnetx_002_synthetic_1xb8_400",
    "mtmamba/mtmamba_tiny_synthetic_1xb8_300",
    "mtan/mtan_resnet50_nyud_survey_1xb8_100ep",
)
RICH = """
protocol = "synthetic-scenes"
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet18"),
    decoder=dict(type="ParallelDecoder", width=64, task_widths=dict(edge=32)),
    head=dict(type="ConvHead", hidden=32),
    heads=dict(edge=dict(type="ConvHead", kernel=3)),
)
balancer = dict(
    type="FixedWeights", weights=dict(semseg=1, depth=1, normals=10, edge=50, saliency=1, human_parts=1)
)
_train = [dict(type="RandomScale", low=0.5, high=2.0), dict(type="RandomHorizontalFlip", p=0.5)]
train_data = dict(
    dataset=dict(type="SyntheticScenes", split="train", length=20, transforms=_train), batch_size=2
)
val_data = dict(dataset=dict(type="SyntheticScenes", split="val", transforms="tensor"), batch_size=2)
test_data = dict(dataset=dict(type="SyntheticScenes", split="test", transforms=dict(preset="pad")))
optimizer = dict(type="AdamW", lr=1e-3, betas=[0.9, 0.95], layer_decay=0.9, lr_factors={"heads.*": 2.0})
schedule = [dict(type="LinearLR", start_factor=0.1, end=10), dict(type="PolyLR", power=0.9, begin=10)]
training = dict(iterations=100, val_interval=10, loss_options=dict(edge=dict(positive_weight=0.8)))
evaluation = dict(
    metric_options=dict(edge=dict(thresholds=9)),
    during_training=dict(edge=dict(thresholds=3)),
    baseline=dict(semseg=1, depth=1, normals=1, edge=1, saliency=1, human_parts=1),
)
"""
KINDS = {
    "value": 110,
    "misspelt_key": 50,
    "removed_key": 40,
    "unknown_name": 30,
    "absent_task": 20,
    "swapped_sections": 15,
    "wrong_section": 15,
    "several": 20,
}


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """Completed configs as plain data."""
    rich = tmp_path_factory.mktemp("configs") / "rich.py"
    rich.write_text(re.sub(r"\b_train\b", "TRAIN", RICH))
    found = {name: dict(load_config(name)) for name in SHIPPED} | {"rich": dict(load_config(rich))}
    for config in found.values():
        check_config(config, TO_TRAIN)
    return found


def told(config):
    """What is said about a config, and how many mistakes; an empty text for none."""
    try:
        check_config(config, TO_TRAIN)
    except ConfigError as error:
        return str(error), len(error.mistakes)
    except (ReportedError, ValueError, TypeError) as error:
        return str(error), 1
    return "", 0


def has(message, key):
    """Whether a message has a key, and not just one that begins or ends like it."""
    return re.search(rf"(?<![\w.]){re.escape(key)}(?![\w])", message) is not None


def test_300_mutated_configs(configs):
    draws = Mutator(configs, seed=17)
    outcomes, wrong = Counter(), []
    start = time.process_time()
    for kind, number in KINDS.items():
        for _ in range(number):
            mutation = draws.draw(kind)
            message, _ = told(mutation.config)
            if not mutation.keys:
                outcome = "refused wrongly" if message else "accepted rightly"
            elif not message:
                outcome = "accepted wrongly"
            else:
                every = all if kind == "several" else any
                named = every(has(message, key) for key in mutation.keys)
                outcome = "refused with key" if named else "refused without key"
            outcomes[kind, outcome] += 1
            if outcome not in ("accepted rightly", "refused with key"):
                wrong.append(f"{outcome}: {mutation.what}, expected {mutation.keys}: {message[:300]}")
    columns = sorted({outcome for _, outcome in outcomes})
    print("\n| mutation | " + " | ".join(columns) + " |")
    for kind in KINDS:
        print(f"| {kind} | " + " | ".join(str(outcomes[kind, column]) for column in columns) + " |")
    print(f"{sum(KINDS.values())} configs, {time.process_time() - start:.1f} s of CPU")
    assert not wrong, "\n".join(wrong)
    assert sum(KINDS.values()) == 300


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("test_data.dataset.lenght=4", "test_data.dataset.lenght"),
        ("evaluation.metric_options={'edge':{'treshold':9}}", "evaluation.metric_options.edge.treshold"),
        ("schedule=[{'type':'PolyLR','powr':1}]", "schedule.0.powr"),
    ],
)
def test_a_command_tells_the_key_before_torch_is_imported(option, key):
    code = (
        "import sys\n"
        "from mtvision.cli.main import call\n"
        f"code = call('train', ['{SHIPPED[6]}', '--cfg-options', {option!r}])\n"
        "print(code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "2 False\n"
    assert has(done.stderr, key)
