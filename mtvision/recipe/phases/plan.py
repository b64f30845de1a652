"""Phases of a config as plain data: first and last step, what changes, and what continues.

The sections of the config are those of the last phase, so that a checkpoint of a whole run fits the config.
Each phase names what differs from them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtvision.core.naming import Mistakes
from mtvision.recipe.config import RunConfig
from mtvision.recipe.phases.found import phases_asked
from mtvision.recipe.phases.start import PhaseError as PhaseError
from mtvision.recipe.phases.start import check_start
from mtvision.recipe.settings import to_plain_data

MERGED = ("train_data", "val_data", "training")
"""Sections of which a phase may give single keys; every other section is replaced as a whole."""
SECTIONS = ("tasks", "model", *MERGED, "balancer", "step", "optimizer", "schedule")
"""What a phase may change."""
_OF_THE_NETWORK = ("tasks", "model")
_OF_THE_DATA = ("tasks", "train_data")
_NEW_OPTIMIZER = ("tasks", "model", "optimizer", "schedule", "training.freeze")
_WHOLE_RUN = (
    *("iterations", "time_limit_minutes", "stuck_minutes", "first_look", "first_look_errors"),
    *("init_from_data", "keep_checkpoints", "keep_every"),
)
"""Keys of `training` that belong to the whole run."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Some consecutive steps of a run.

    Args:
        name: unique; empty for a run without phases.
        before: name of the phase before; empty for the first.
        index: from 0.
        start: steps of the run before it.
        end: steps of the run when it is done.
        last: whether no phase follows.
        schedule: first and last step of the run that its schedule spans. Phases share a schedule and the
            state of the optimizer until one changes what the optimizer sees.
        data_from: step of the run at which its order of the training data begins.
        fresh: it starts with new weights, not with those of the phase before.
        begins_from: `start` where it names earlier phases; empty otherwise.
        changed: sections, and keys of `training`, that differ from the phase before.
        options: {section: value} for `RunConfig.with_options`.
    """

    name: str
    before: str
    index: int
    start: int
    end: int
    last: bool
    schedule: tuple[int, int]
    data_from: int
    fresh: bool
    begins_from: Mapping[str, Any]
    changed: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def same_network(self) -> bool:
        """Whether the weights of the phase before fit one to one."""
        return not self.fresh and not _among(_OF_THE_NETWORK, self.changed)

    @property
    def same_optimizer(self) -> bool:
        """Whether optimizer and schedule continue from the phase before."""
        return self.schedule[0] < self.start

    @property
    def schedule_steps(self) -> int:
        """Steps that the schedule spans."""
        return self.schedule[1] - self.schedule[0]

    def config_of(self, config: RunConfig) -> RunConfig:
        """The config with the sections of this phase, without phases of its own."""
        return config.with_options({**self.options, "phases": []}) if self.name else config

    def to_meta(self) -> dict[str, Any]:
        """What a checkpoint says of the phase it was written in; empty for a run without phases."""
        if not self.name:
            return {}
        return {"phase": {"name": self.name, "index": self.index, "start": self.start, "end": self.end}}

    def follows(self, meta: Mapping[str, Any], place: str) -> bool:
        """Whether a checkpoint is the end of the phase before; False if it is of this phase itself.

        Args:
            meta: of the checkpoint.
            place: its file, for the message.

        Raises:
            PhaseError: it belongs to neither.
        """
        found, steps = meta.get("phase"), meta.get("iter")
        if found is None:
            if self.name:
                raise PhaseError(
                    f"{place} was written by a run without phases, and this config has phases. Start them "
                    "anew, with training.load_from in the first one."
                )
            return False
        known = (found.get("name"), found.get("index"), found.get("start"))
        if known == (self.name, self.index, self.start):
            return False
        if self.name and (found.get("name"), found.get("end"), steps) == (
            self.before,
            self.start,
            self.start,
        ):
            return True
        own = f"'{self.name}' from step {self.start}" if self.name else "no phase"
        raise PhaseError(
            f"{place} was written at step {steps} in phase '{found.get('name')}', which began at step "
            f"{found.get('start')}; this config has {own} there. Resume with the phases of the run."
        )


def phases_of(config: Mapping[str, Any]) -> tuple[Phase, ...]:
    """The phases of a checked config; one without a name where it names none."""
    plain = to_plain_data(config)
    given = plain.get("phases") or [{"name": "", "iterations": plain["training"]["iterations"]}]
    sections = [changed_sections(plain, entry) for entry in given]
    ends = [sum(entry["iterations"] for entry in given[: index + 1]) for index in range(len(given))]
    starts = [0, *ends[:-1]]
    changes = [(), *(_changed(*pair) for pair in itertools.pairwise(sections))]
    fresh = [index == 0 or _is_fresh(entry) for index, entry in enumerate(given)]
    new = [fresh[index] or _among(_NEW_OPTIMIZER, names) for index, names in enumerate(changes)]
    other_data = [index == 0 or _among(_OF_THE_DATA, names) for index, names in enumerate(changes)]
    found = []
    for index, entry in enumerate(given):
        first = max(place for place in range(index + 1) if new[place])
        after = next((place for place in range(index + 1, len(given)) if new[place]), len(given))
        data = max(place for place in range(index + 1) if other_data[place])
        found.append(
            Phase(
                name=entry["name"],
                before=given[index - 1]["name"] if index else "",
                index=index,
                start=starts[index],
                end=ends[index],
                last=index == len(given) - 1,
                schedule=(starts[first], ends[after - 1]),
                data_from=starts[data],
                fresh=fresh[index],
                begins_from=entry["start"] if isinstance(entry.get("start"), Mapping) else {},
                changed=changes[index],
                options={name: sections[index][name] for name in SECTIONS if name in entry},
            )
        )
    return tuple(found)


def changed_sections(config: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """{section: value} of a phase, for every section that a phase may change.

    Args:
        config: completed, plain data.
        entry: of its `phases`.
    """
    found = {}
    for name in SECTIONS:
        found[name] = entry.get(name, config[name])
        both = isinstance(found[name], Mapping) and isinstance(config[name], Mapping)
        if name in MERGED and both:
            found[name] = {**config[name], **found[name]}
    return found


def check_phases(found: Mistakes, config: Mapping[str, Any]) -> None:
    """Note what contradicts itself in a list of phases; what is in their sections is not looked at.

    Args:
        found: collects; its present key is that of the config.
        config: completed, plain data, whose `phases` have the right types.
    """
    given, names = config["phases"], [entry["name"] for entry in config["phases"]]
    with found.at("phases"):
        for index, entry in enumerate(given):
            with found.at(index):
                _check_entry(found, entry, names[:index])
                _check_asked(found, config, changed_sections(config, entry)["model"], names[:index])
        steps, total = sum(entry["iterations"] for entry in given), config["training"]["iterations"]
        if steps != total:
            raise PhaseError(
                f"the phases have {' + '.join(str(entry['iterations']) for entry in given)} = {steps} steps, "
                f"and training.iterations is {total}. Set training.iterations={steps}, or change a phase."
            )
        last = changed_sections(config, given[-1])
        for name in _OF_THE_NETWORK:
            if last[name] != config[name]:
                raise PhaseError(
                    f"the last phase, '{names[-1]}', has another '{name}' than the config. What is scored is "
                    f"the network of the config: give '{name}' to the phases before instead."
                )


def _check_entry(found: Mistakes, entry: Mapping[str, Any], earlier: Sequence[str]) -> None:
    with found.at("name"):
        if not _NAME.fullmatch(entry["name"]):
            raise PhaseError(
                f"phase '{entry['name']}': a name has letters, digits, - and _ only, such as 'fine_tune'."
            )
        if entry["name"] in earlier:
            raise PhaseError(f"two phases are called '{entry['name']}'; give every phase its own name.")
    with found.at("start"):
        if entry.get("start") == "previous" and not earlier:
            raise PhaseError(f"phase '{entry['name']}' is the first one; no phase is before it.")
        if isinstance(entry.get("start"), Mapping):
            check_start(entry["start"], earlier)
    with found.at("training"):
        own = [name for name in entry.get("training") or {} if name in _WHOLE_RUN]
        if own:
            raise PhaseError(
                f"phase '{entry['name']}': training.{own[0]} belongs to the whole run. Set it in the "
                "config's own 'training'; the length of a phase is its 'iterations'."
            )
        if entry.get("start") not in (None, "fresh") and (entry.get("training") or {}).get("load_from"):
            raise PhaseError(
                f"phase '{entry['name']}' starts from a phase before and from training.load_from; use one."
            )


def _check_asked(
    found: Mistakes, config: Mapping[str, Any], model: Mapping[str, Any], earlier: Sequence[str]
) -> None:
    """Refuse a network that is built from the result of a phase which does not come before."""
    with found.at("model"):
        for name in sorted(phases_asked(model)):
            if name not in earlier:
                known = f"Those before are {', '.join(earlier)}." if earlier else "No phase is before it."
                raise PhaseError(f"the network asks for the result of phase '{name}'. {known}")
            if not config.get("search"):
                raise PhaseError(
                    f"the network asks for what phase '{name}' finds. Name its searcher: "
                    "search=dict(type='LTBSearcher')."
                )


def _is_fresh(entry: Mapping[str, Any]) -> bool:
    start = entry.get("start")
    return (
        start == "fresh" or isinstance(start, Mapping) or bool((entry.get("training") or {}).get("load_from"))
    )


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Sections that differ, and of `training` the keys."""
    names = [name for name in SECTIONS if name != "training" and before[name] != now[name]]
    one, two = before["training"], now["training"]
    keys = dict.fromkeys([*one, *two])
    return (*names, *(f"training.{key}" for key in keys if one.get(key) != two.get(key)))


def _among(keys: Sequence[str], changed: Sequence[str]) -> bool:
    return any(key in changed for key in keys)
