"""One network for every budget and every preference, on synthetic scenes; see `make controllable-demo`.

    python tools/train.py configs/slimmable/slimmable_regnetx_002_synthetic_1xb8_400.py
    python tools/controllable.py configs/slimmable/slimmable_regnetx_002_synthetic_1xb8_400.py CHECKPOINT

Re-implementation of Aich et al. (ICCV 2023) from its abstract and figures, see docs/slimmable.md; no paper
reports on this data. Ours: see README.md in this folder.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.slimmable_synthetic import balancer, evaluation, model, optimizer, tasks, training

name = "slimmable"
model.update(adapters=[dict(type="Slimmable")])
WIDTHS = dict(encoder=[0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0], decoders=[0.25, 0.5, 0.75, 1.0])
step = dict(type="SandwichStep", **WIDTHS, distillation="nested", warmup=40)
search = dict(type="WidthSearcher", **WIDTHS, population=8, generations=4, calibration=4, latency=10)
