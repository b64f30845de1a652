"""The digest changes with everything that changes a number, and with nothing else."""

import subprocess
import sys
from dataclasses import fields, replace

import pytest

from mtvision.core.task import Task
from mtvision.protocols import PROTOCOLS, SYNTHETIC, Protocol, digest, own_protocol
from mtvision.protocols.tasks import depth, semseg

SHIPPED = {
    "synthetic-scenes": "8d18d282681de19b",
    "synthetic-instances": "975b905302ea29ae",
    "synthetic-units": "767eaeeee92b49b4",
    "nyud-invpt": "e2a055ee5c395736",
    "pascal-invpt": "83ee3262ce33b793",
    "cityscapes-mtmamba": "a65883a5c26f06df",
    "cityscapes3d-taskprompter": "c447078fcf54237d",
    "cityscapes-kendall": "1e207e63f4f452ba",
    "nyud-survey": "217b6da002ddf674",
    "pascal-survey": "6e378f46c7701ef2",
    "nyuv2-mtan": "70be8b5a8ab3128d",
    "cityscapes-mtan-7": "be83202c47807aac",
    "cityscapes-mtan-19": "e8d3c66b37c3b61a",
}
"""Records hold these. A digest that changes makes every earlier result of its protocol incomparable."""
PROTOCOL = Protocol(
    id="mine", title="Mine", family="own", tasks=(semseg(("a", "b")), depth()), splits={"test": 100}
)
OTHER_FIELDS = {
    "id": "other", "title": "Other", "family": "mtan", "source": "a paper", "train_size": (8, 8),
    "eval_size": (8, 8), "splits": {"test": 60}, "loss_weights": {"depth": 2.0},
    "baselines": {"x": {"depth": 1.0}}, "checkpoint_rule": "best",
}  # fmt: skip
OTHER_TASK_FIELDS = {
    "name": "other", "out_channels": 3, "label": "values", "geometry": "direction", "label_channels": 2,
    "activation": "identity", "loss": {"type": "Other"}, "metrics": ({"type": "depth"},),
    "headline": "pixel_accuracy", "higher_is_better": False, "class_names": ("b", "a"),
    "palette": ((0, 0, 0), (1, 1, 1)), "colours": "gray", "unit": "px",
}  # fmt: skip


def changed_task(**changes):
    return replace(PROTOCOL, tasks=(replace(PROTOCOL.tasks[0], **changes), PROTOCOL.tasks[1]))


@pytest.mark.parametrize("name", [item.name for item in fields(Protocol)])
def test_every_field_of_a_protocol_counts_unless_it_is_listed(name):
    if name in ("tasks", "unselected"):
        changed = replace(
            PROTOCOL,
            **{
                name: (
                    *getattr(PROTOCOL, name),
                    depth(max_depth=3),
                )[-1:]
            },
        )
        assert changed.digest() != PROTOCOL.digest()
        return
    changed = replace(PROTOCOL, **{name: OTHER_FIELDS[name]})
    assert (changed.digest() == PROTOCOL.digest()) == (name in digest.NOT_IN_PROTOCOL)


@pytest.mark.parametrize("name", [item.name for item in fields(Task)])
def test_every_field_of_a_task_counts_unless_it_is_listed(name):
    changed = changed_task(**{name: OTHER_TASK_FIELDS[name]})
    assert (changed.digest() == PROTOCOL.digest()) == (name in digest.NOT_IN_TASK)


def test_what_is_left_out_exists_and_is_no_rule_of_scoring():
    assert digest.NOT_IN_PROTOCOL.keys() <= {item.name for item in fields(Protocol)}
    assert digest.NOT_IN_TASK.keys() == {"loss", "palette", "colours"}


def test_class_order_and_one_class_more():
    def own(names):
        return own_protocol("discs", {"semseg": {"class_names": names}}).digest()

    assert len({own(["a", "b"]), own(["b", "a"]), own(["a", "b", "c"])}) == 3


def test_evaluator_version_and_ignored_id(monkeypatch):
    before = PROTOCOL.digest()
    monkeypatch.setattr(digest, "EVALUATOR_VERSION", 2)
    version = PROTOCOL.digest()
    monkeypatch.setattr(digest, "IGNORE", 254)
    assert len({before, version, PROTOCOL.digest()}) == 3


def test_some_tasks_are_scored_as_all_are():
    assert SYNTHETIC.select(["depth"]).digest() == SYNTHETIC.digest()
    assert replace(PROTOCOL, tasks=PROTOCOL.tasks[::-1]).digest() == PROTOCOL.digest()


def test_the_spelling_of_a_number_does_not_count():
    spelt = {"type": "iou", "num_classes": 2.0, "absent": "zero"}
    assert changed_task(metrics=(spelt,)).digest() == PROTOCOL.digest()
    assert changed_task(metrics=({**spelt, "num_classes": 3},)).digest() != PROTOCOL.digest()
    with pytest.raises(TypeError, match="protocol digest: found set"):
        changed_task(metrics=({"type": "iou", "ids": {1}},)).digest()


def test_a_further_metric_and_its_options_count():
    iou = PROTOCOL.tasks[0].metrics[0]
    further = [changed_task(metrics=(iou, {"type": "mine", "window": size})).digest() for size in (3, 5)]
    assert len({*further, PROTOCOL.digest()}) == 3


def test_protocols_differ_and_other_processes_agree():
    digests = {name: protocol.digest() for name, protocol in PROTOCOLS.items()}
    assert len(set(digests.values())) == len(digests)
    assert all(len(value) == digest.LENGTH for value in digests.values())
    code = "from mtvision.protocols import PROTOCOLS; print({n: p.digest() for n, p in PROTOCOLS.items()})"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        )  # fmt: skip
        assert eval(done.stdout) == digests


def test_a_digest_is_frozen():
    """No version of Python, and no change of the suite, moves a digest unnoticed."""
    assert PROTOCOL.digest() == "66b332eeee012a7d"
    assert {name: protocol.digest() for name, protocol in PROTOCOLS.items() if name in SHIPPED} == SHIPPED
