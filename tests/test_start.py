"""What a command imports before it has something to do; modules are counted, not seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mtvision.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
HEAVY = (
    *(
        "torch",
        "torchvision",
        "timm",
        "mmengine",
        "numpy",
        "scipy",
        "cv2",
        "albumentations",
        "PIL",
        "skimage",
    ),
    *("matplotlib", "pycocotools", "h5py", "torchjd", "wandb", "tensorboard", "jinja2", "safetensors"),
)


def run(code, *forbidden):
    """Run code in a fresh process and refuse the imports; returns the process."""
    guard = f"\nimport sys; print([name for name in {forbidden} if name in sys.modules], file=sys.stderr)"
    return subprocess.run(
        [sys.executable, "-c", code + guard], capture_output=True, text=True, check=False, cwd=ROOT
    )


def imported(done):
    """The forbidden modules that a process imported."""
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    code = (
        "from mtvision.cli.main import command_line\n"
        f"try: command_line(['{command}', '--help'])\n"
        "except SystemExit: pass\n"
    )
    done = run(code, *HEAVY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: mtvision {command}")
    assert imported(done) == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["table", "results/tiny_synthetic", "--format", "markdown"],
        ["leaderboard", "check", "results"],
        ["leaderboard", "build", "results", "--out", "SITE"],
    ],
    ids=" ".join,
)
def test_tables_and_leaderboards_do_not_import_torch(arguments, tmp_path):
    arguments = [str(tmp_path) if item == "SITE" else item for item in arguments]
    done = run(
        f"from mtvision.cli.main import command_line; assert command_line({arguments}) == 0", "torch", "cv2"
    )
    assert done.returncode == 0, done.stderr
    assert imported(done) == "[]"


@pytest.mark.slow
def test_a_backbone_is_imported_without_the_others():
    code = (
        "from mtvision.core.registry import BACKBONES; BACKBONES['TimmBackbone']; "
        "BACKBONES.build({'type': 'TimmBackbone', 'name': 'resnet10t'})"
    )
    others = [f"mtvision.models.backbones.{name}" for name in ("swin", "vim", "vmamba", "hrnet")]
    done = run(code, *others, "mmengine", "mtvision.ops")
    assert done.returncode == 0, done.stderr
    assert imported(done) == "[]"


CONFIG = "configs/parallel/parallel_tiny_synthetic_1xb8_300.py"
MISTAKES = {  # option: what the message must hold (key, what was found, what is expected or near)
    "sed=1": ("Unknown key of the config 'sed'", "'seed'"),
    "seed=-1": ("seed must be an integer between 0 and 4294967295, got -1",),
    "seed=1.5": ("seed must be an integer", "got 1.5"),
    "name=3": ("name must be a string or None, got 3",),
    "protocol=nyud-invtp": ("Unknown protocol 'nyud-invtp'", "'nyud-invpt'"),
    "tasks=3": ("tasks: expected names such as ['depth']", "got 3"),
    "tasks=dept": ("Unknown task of protocol synthetic-scenes 'dept'", "'depth'"),
    "tasks=['dept']": ("Unknown task of protocol synthetic-scenes 'dept'", "'depth'"),
    "training.iteratoins=3": ("Unknown key of training 'iteratoins'", "'iterations'"),
    "training.iterations=5.5": ("training.iterations must be an integer of at least 1, got 5.5",),
    "training.iterations=100.0": ("training.iterations", "got 100.0", "Did you mean 100?"),
    "training.iterations=0": ("training.iterations must be an integer of at least 1, got 0",),
    "training.val_interval=-3": ("training.val_interval must be an integer of at least 0, got -3",),
    "training.micro_batches=True": ("training.micro_batches must be an integer", "got True"),
    "training.precision=fp61": ("Unknown training.precision 'fp61'", "'fp16'", "bf16"),
    "training.clip_grad=0": ("training.clip_grad must be a number above 0", "got 0"),
    "training.channels_last=often": ("training.channels_last must be true or false, got 'often'",),
    "training.loss_options={'edg':{}}": ("Unknown task in training.loss_options 'edg'", "'edge'"),
    "training.loss_options={'edge':{'positive_wight':1}}": (
        "training.loss_options.edge",
        "'positive_weight'",
    ),
    "evaluation.pictures=-1": ("evaluation.pictures must be an integer of at least 0, got -1",),
    "evaluation.workers=two": ("evaluation.workers must be an integer between 0 and 256, got 'two'",),
    "evaluation.select=bets": ("Unknown evaluation.select 'bets'", "best_compat"),
    "evaluation.baseline=nobody": ("Unknown baseline of protocol synthetic-scenes 'nobody'",),
    "evaluation.baseline={'dept':1.0}": ("Unknown task in evaluation.baseline 'dept'", "'depth'"),
    "evaluation.metric_options={'edge':{'treshold':9}}": ("evaluation.metric_options.edge", "'thresholds'"),
    "evaluation.metric_options={'edge':{'thresholds':9.5}}": (
        "evaluation.metric_options.edge.thresholds must be an integer",
    ),
    "evaluation.during_training={'egde':{}}": ("Unknown task in evaluation.during_training 'egde'", "'edge'"),
    "logging.wandb=maybe": ("logging.wandb must be true or false, got 'maybe'",),
    "model.decodr=1": ("Unknown key of model 'decodr'", "'decoder'"),
    "model={'backbone':{'type':'TimmBackbone','name':'resnet18'}}": (
        "model.decoder is missing; expected a dict with the key 'type'",
    ),
    "model.backbone.type=TimBackbone": (
        "model.backbone.type: Unknown backbone 'TimBackbone'",
        "'TimmBackbone'",
    ),
    "model.backbone.name=resnt18": ("model.backbone.name: Unknown timm model 'resnt18'", "'resnet18'"),
    "model.backbone.levels=2": ("model.backbone.levels must be a list of integers", "got 2", "[2]"),
    "model.decoder.type=ParalelDecoder": (
        "model.decoder.type: Unknown decoder 'ParalelDecoder'",
        "'ParallelDecoder'",
    ),
    "model.decoder.widht=3": ("Unknown ParallelDecoder argument 'widht'", "'width'"),
    "model.decoder.width=wide": ("model.decoder.width must be an integer of at least 1, got 'wide'",),
    "model.decoder.norm=bacth": ("Unknown model.decoder.norm 'bacth'", "'batch'"),
    "model.decoder.tasks=['depth']": ("ParallelDecoder: 'tasks' is supplied by the suite",),
    "model.head.type=ConvHaed": ("model.head.type: Unknown head 'ConvHaed'", "'ConvHead'"),
    "balancer.type=Uncertanty": ("balancer.type: Unknown balancer 'Uncertanty'", "'Uncertainty'"),
    "balancer.wieghts=1": ("Unknown FixedWeights argument 'wieghts'", "'weights'"),
    "balancer=UPGrad": ("balancer must be a dict with the key 'type', got 'UPGrad'", "{'type': 'UPGrad'}"),
    "step.type=Sandwich": ("step.type: Unknown step 'Sandwich'", "'SandwichStep'"),
    "optimizer.type=AdamV": ("optimizer.type: Unknown optimizer 'AdamV'", "'AdamW'"),
    "optimizer.lr=fast": ("optimizer.lr must be a number of at least 0, got 'fast'",),
    "optimizer.wieght_decay=0": (
        "optimizer.wieght_decay: Unknown AdamW argument 'wieght_decay'",
        "'weight_decay'",
    ),
    "optimizer={'type':'SGD'}": ("optimizer.lr is missing; expected a number of at least 0",),
    "schedule=[{'type':'PolyL'}]": ("schedule.0.type: Unknown schedule 'PolyL'", "'PolyLR'"),
    "train_data.batch_size=2.5": ("train_data.batch_size must be an integer of at least 1, got 2.5",),
    "train_data.batchsize=2": ("Unknown key of train_data 'batchsize'", "'batch_size'"),
    "train_data=None": ("config: 'train_data' is missing",),
    "train_data.dataset.transforms=lite": (
        "train_data.dataset.transforms: Unknown transforms preset 'lite'",
        "'light'",
    ),
    "train_data.dataset.transforms={'preset':'light','sise':3}": (
        "train_data.dataset.transforms.sise: Unknown light argument 'sise'",
        "size",
    ),
    "train_data.dataset.transforms=[{'type':'RandomCropp'}]": (
        "Unknown transform 'RandomCropp'",
        "RandomCrop",
    ),
    "test_data.dataset.lenght=4": (
        "test_data.dataset.lenght: Unknown SyntheticScenes argument 'lenght'",
        "'length'",
    ),
    "test_data.dataset.type=NYUDv3": ("test_data.dataset.type: Unknown dataset 'NYUDv3'", "'NYUDv2'"),
    "test_data.num_workers=-1": ("test_data.num_workers must be an integer between 0 and 256, got -1",),
    "test_data={'batch_size':2}": ("test_data.dataset is missing; expected a dict with the key 'type'",),
}
COMMANDS_WITH_CONFIG = {
    "validate": [CONFIG],
    "test": [CONFIG, "no.pth"],
    "predict": ["no.pth", "docs", "--out", "no", "--config", CONFIG],
    "cost": [CONFIG],
    "search": [CONFIG],
    "controllable": [CONFIG, "no.pth"],
    "pareto": [CONFIG, "no.pth"],
    "rounds": [CONFIG],
    "surgery": [CONFIG, "no.pth", "--parents", "a=b", "--out", "no"],
    "launch": [CONFIG, "--dry-run"],
    "browse-dataset": [CONFIG],
    "check-dataset": [CONFIG],
    "score": ["no", "--config", CONFIG],
}


def tell(calls):
    """Run commands one after another in a fresh process: [(exit code, message)], and what was imported."""
    code = (
        "import contextlib, io, json, sys\n"
        "from mtvision.cli.main import call\n"
        "answers = []\n"
        f"for command, arguments in {calls!r}:\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as text:\n"
        "        answers.append((call(command, arguments), text.getvalue()))\n"
        "print(json.dumps(answers))"
    )
    slow = ("torch", "timm", "torchvision", "cv2", "albumentations", "mmengine.runner", "scipy", "matplotlib")
    done = run(code, *slow, "wandb", "torchjd", "safetensors")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), imported(done)


@pytest.fixture(scope="module")
def told():
    """{option: (exit code, message)} of `mtvision train`."""
    answers, modules = tell([("train", [CONFIG, "--cfg-options", option]) for option in MISTAKES])
    assert modules == "[]"
    return dict(zip(MISTAKES, answers, strict=True))


@pytest.mark.parametrize("option", MISTAKES)
def test_a_mistake_in_a_config_is_told_before_torch_is_imported(told, option):
    code, message = told[option]
    assert code == 2
    assert all(part in message for part in MISTAKES[option]), message


def test_every_command_with_a_config_tells_mistakes_before_torch_is_imported():
    options = ("model.decoder.widht=3", "test_data.dataset.lenght=4", "training.iterations=5.5")
    calls = [
        (command, [*arguments, "--cfg-options", option])
        for command, arguments in COMMANDS_WITH_CONFIG.items()
        for option in options
    ]
    answers, modules = tell(calls)
    assert modules == "[]"
    for (command, arguments), (code, message) in zip(calls, answers, strict=True):
        assert code == 2, (command, arguments, message)
        assert any(part in message for part in ("'width'", "'length'", "training.iterations must")), message


def test_a_search_without_a_searcher_is_told_before_torch_is_imported():
    answers, modules = tell([("search", [CONFIG])])
    assert modules == "[]"
    assert answers[0][0] == 2
    assert "config: 'search' is missing" in answers[0][1]


def test_scoring_does_not_import_the_runner():
    done = run("import mtvision.engine.evaluate", "mmengine.runner", "mmengine.hooks", "torchjd", "wandb")
    assert done.returncode == 0, done.stderr
    assert imported(done) == "[]"
