"""mmengine's Runner with exact, safe checkpoints."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import get_rank, get_world_size
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mtvision.core.files.foreign import ForeignError, cause, foreign_errors
from mtvision.core.non_finite import NonFiniteWeightsError, non_finite
from mtvision.core.non_finite import in_words as non_finite_in_words
from mtvision.engine.average import TRAINED
from mtvision.engine.optimization.optimizer import regrouped
from mtvision.engine.phases.carry import carry_weights
from mtvision.engine.records import batches_in_words
from mtvision.engine.run_dir.random_states import random_states, set_random_states
from mtvision.engine.run_dir.start import from_main
from mtvision.recipe.differences import Difference, ResumeError, differences, in_words, refuse_impossible
from mtvision.recipe.phases.plan import Phase
from mtvision.runtime.atomic import write_text
from mtvision.runtime.checkpoint import (
    CheckpointError,
    load_checkpoint,
    to_plain,
)
from mtvision.runtime.checkpoint_writer import CheckpointWriter
from mtvision.runtime.launch import gather
from mtvision.runtime.state_dicts import some
from mtvision.runtime.whole import CONTINUED, missing_fields

_log = logging.getLogger("mtvision")


class ExactRunner(Runner):
    """Runner whose checkpoints continue bit for bit and hold nothing but tensors and plain data.

    mmengine 0.10.7 pickles its log buffers, which `torch.load(weights_only=True)` rejects. It does not save
    random states, so a resumed run with dropout differs from an uninterrupted one.

    Args:
        checkpoint_meta: plain data stored in every checkpoint (config, protocol, architecture, …).
        phase: the part of the run that this runner trains.
        run_config: text of the config of the whole run.
        batch_size: images per process and step. Checkpoints hold how many images and processes there were
            since which iteration, and `changes` says what a resumed run does differently.
        writer: of the checkpoints.
        examined: this process has found the checkpoint whole from which it continues.
        options: as for mmengine's Runner.
    """

    def __init__(
        self,
        *,
        checkpoint_meta: dict[str, Any],
        phase: Phase,
        run_config: str,
        batch_size: int,
        writer: CheckpointWriter | None = None,
        examined: bool = False,
        **options: Any,
    ) -> None:
        self._checkpoint_meta = {**checkpoint_meta, **phase.to_meta()}
        self.phase, self._run_config = phase, run_config
        self._examined = examined
        self.writer = writer or CheckpointWriter()
        self.batches: list[dict[str, int]] = [
            {"after": 0, "processes": get_world_size(), "images": batch_size}
        ]
        super().__init__(**options)
        log_dir = Path(self.log_dir)
        if get_rank() == 0 and not any(log_dir.iterdir()):
            log_dir.rmdir()  # mmengine makes it for log files that this suite writes elsewhere

    @property
    def plain_model(self) -> nn.Module:
        """The training module without its DDP wrapper."""
        model: nn.Module = self.model.module if is_model_wrapper(self.model) else self.model
        return model

    def save_now(self) -> Path:
        """Write a checkpoint between two steps; returns its path when it is on the disk."""
        return self.save(self.iter, wait=True)

    def finish_writing(self) -> None:
        """Wait until all checkpoints are on the disk; every process calls this.

        Raises:
            OSError: one could not be written; on every process.
        """
        from_main(self.writer.finish)

    def save(self, iteration: int, *, wait: bool = False) -> Path:
        """Write a checkpoint; every process calls this.

        Args:
            iteration: steps that are done.
            wait: return when it is on the disk, also where checkpoints are written in the background.

        Raises:
            NonFiniteWeightsError: weights are NaN or infinite; nothing is written.
            OSError: it, or the one before, could not be written; on every process.
        """
        path = Path(self.work_dir) / f"iter_{iteration}.pth"
        found = non_finite(self.plain_model.state_dict().items()) if get_rank() == 0 else {}
        gathered = gather((random_states(), found))  # every rank has its own states
        self.optim_wrapper.collect_state()
        states, (found, *_) = (list(item) for item in zip(*gathered, strict=True))
        if found:
            tensors = non_finite_in_words(found, len(self.plain_model.state_dict()))
            raise NonFiniteWeightsError(
                f"{path} is not written: after iteration {iteration} {tensors} are NaN or infinite. Earlier "
                "checkpoints are left as they are. Try a lower learning rate, training.clip_grad, or fp32."
            )
        # The other ranks wait, because they may read the file next.
        from_main(lambda: self.writer.write(path, self._content(iteration, states), wait=wait))
        return path

    def _content(self, iteration: int, states: Sequence[Any]) -> dict[str, Any]:
        """What a checkpoint holds."""
        content = {
            "meta": {
                **self._checkpoint_meta,
                "iter": iteration,
                "seed": self.seed,
                "batches": self.batches,
            },
            "state_dict": to_plain(dict(self.plain_model.state_dict())),
            "optimizer": to_plain(self.optim_wrapper.state_dict()),
            "optimizer_names": self._optimizer_names(),
            "param_schedulers": [to_plain(item.state_dict()) for item in self.param_schedulers or []],
            "random_states": list(states),
        }
        self.call_hook("before_save_checkpoint", checkpoint=content)
        return content

    def load_or_resume(self) -> None:
        """Resume if asked to, then write the config; a config that is refused does not replace the run's."""
        super().load_or_resume()
        if get_rank() == 0:
            write_text(Path(self.work_dir) / "config.py", self._run_config)

    def resume(self, filename: str, *_: Any, **__: Any) -> None:
        """Continue from a checkpoint: weights, optimizer, schedule, iteration and random states.

        Every setting that differs from the checkpoint's is said. The config's hold: a changed learning rate
        or schedule is that of a run which had it from the start.

        Raises:
            CheckpointError: the file is unreadable, of another architecture, or has no optimizer state.
            ResumeError: the config differs in something that a run cannot change.
        """
        checkpoint = load_checkpoint(filename, examined=self._examined)
        absent = missing_fields(checkpoint, CONTINUED)
        if absent:
            raise CheckpointError(
                f"{filename} has no {', '.join(absent)}; start with training.load_from instead of --resume."
            )
        iteration = int(checkpoint["meta"]["iter"])
        if iteration > self.max_iters:
            raise CheckpointError(
                f"{filename} is at iteration {iteration}, beyond training.iterations={self.max_iters}."
            )
        if self.phase.follows(checkpoint["meta"], Path(filename).name):
            self._begin_phase(checkpoint, filename)
            return
        found = self._differences(checkpoint, filename)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        fresh = self._rates()
        try:
            # Without an average in this run, its weights are those that were trained (`AverageHook`).
            trained = {**checkpoint["state_dict"], **checkpoint.get(TRAINED, {})}
            self.plain_model.load_state_dict(trained)
            self.optim_wrapper.load_state_dict(self._optimizer_state(checkpoint))
        except (RuntimeError, ValueError, KeyError) as error:
            text = "\n".join([*str(error).splitlines()[:8], *map(str, found)])
            raise CheckpointError(
                f"{filename} does not fit this config; resume with its own.\n{text}"
            ) from error
        if any(item.of_rates for item in found):
            self._set_rates(fresh, iteration - self.phase.schedule[0])
        else:
            self._load_schedules(checkpoint)
        self._note_changes(checkpoint["meta"], found, iteration)
        if found and get_rank() == 0:
            _log.warning(in_words(found, Path(filename).name))
        self._train_loop.start_from(iteration)
        self._note_batches(checkpoint["meta"].get("batches"), iteration)
        self._set_random_states(checkpoint, filename)

    def _begin_phase(self, checkpoint: dict[str, Any], filename: str) -> None:
        """Start this phase from the last checkpoint of the phase before."""
        iteration = self.phase.start
        if self.phase.same_network:
            self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        carry_weights(self.plain_model, self.phase, checkpoint, filename)
        if self.phase.same_optimizer:
            fresh = self._rates()
            # Another balancer has other parameters of its own.
            self.optim_wrapper.load_state_dict(self._optimizer_state(checkpoint, partly=True))
            if checkpoint["optimizer_names"] == self._optimizer_names():
                self._load_schedules(checkpoint)
            else:
                self._set_rates(fresh, iteration - self.phase.schedule[0])
        self._note_changes(checkpoint["meta"], [], iteration)
        self.batches = [{**item, "after": iteration} for item in self.batches]
        self._train_loop.start_from(iteration)
        self._set_random_states(checkpoint, filename)

    def _load_schedules(self, checkpoint: Mapping[str, Any]) -> None:
        for one, state in zip(self.param_schedulers or [], checkpoint["param_schedulers"], strict=True):
            one.load_state_dict(state)

    def _set_random_states(self, checkpoint: Mapping[str, Any], filename: str) -> None:
        states = checkpoint["random_states"]
        if len(states) == get_world_size():
            try:
                with foreign_errors():
                    set_random_states(states[get_rank()])
            except ForeignError as foreign:
                raise CheckpointError(
                    f"{filename}: its random states are not ones of this machine's generators "
                    f"({cause(foreign.error)}). Continue from another checkpoint."
                ) from foreign.error
        else:
            _log.warning(
                f"{filename} was written by {len(states)} processes; random states are not restored."
            )

    def _differences(self, checkpoint: Mapping[str, Any], filename: str) -> list[Difference]:
        """What this run does differently from the one that wrote a checkpoint.

        Raises:
            ResumeError: the run cannot continue with it, e.g. with another optimizer.
        """
        before = checkpoint["meta"].get("options")
        now = self._checkpoint_meta.get("options")
        found = differences(before, now) if before and now else []  # an older version kept no options
        refuse_impossible(found, filename)
        saved, own = set(checkpoint["optimizer"]["param_groups"][0]), set(self.optim_wrapper.param_groups[0])
        if saved - own and own - saved:
            raise ResumeError(
                f"{filename} holds the state of another optimizer: its options are "
                f"{some(sorted(saved - own))}, those of {type(self.optim_wrapper.optimizer).__name__} "
                f"{some(sorted(own - saved))}. Resume with its own config, or start anew with "
                "training.load_from."
            )
        return found

    def _optimizer_names(self) -> list[list[str]]:
        """Names of the parameters in every group of the optimizer."""
        names = {id(item): name for name, item in self.plain_model.named_parameters()}
        groups = self.optim_wrapper.optimizer.param_groups
        return [[names[id(item)] for item in group["params"]] for group in groups]

    def _optimizer_state(self, checkpoint: Mapping[str, Any], *, partly: bool = False) -> dict[str, Any]:
        """The checkpoint's, in this run's groups: torch numbers parameters in the order of groups."""
        saved: dict[str, Any] = dict(checkpoint["optimizer"])
        then, now = checkpoint.get("optimizer_names"), self._optimizer_names()
        if then is None or then == now:
            return saved
        return regrouped(saved, then, now, self.optim_wrapper.state_dict(), partly=partly)

    def _rates(self) -> list[dict[str, Any]]:
        """Learning rates and other options of every parameter group, as the config has them."""
        groups = self.optim_wrapper.param_groups
        return [{name: value for name, value in group.items() if name != "params"} for group in groups]

    def _set_rates(self, fresh: Sequence[Mapping[str, Any]], iteration: int) -> None:
        """Set the config's options and schedules to what a run that started with them has by now."""
        for group, values in zip(self.optim_wrapper.param_groups, fresh, strict=True):
            group.update(values)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of steps without steps of the optimizer
            for _ in range(iteration):
                for one in self.param_schedulers or []:
                    one.step()

    def _note_changes(self, meta: Mapping[str, Any], found: Sequence[Difference], iteration: int) -> None:
        """Carry on the history of settings that were changed on resume, for the record."""
        changes = [dict(item) for item in meta.get("changes", ())]
        serious = [str(item) for item in found if not item.harmless]
        if serious:
            changes.append({"after": iteration, "settings": serious})
        if changes:
            self._checkpoint_meta["changes"] = changes

    def _note_batches(self, earlier: list[dict[str, int]] | None, iteration: int) -> None:
        """Carry on the history of batches; say so where they change."""
        (now,) = self.batches
        if not earlier:  # of an older version of the suite
            return
        self.batches = [dict(item) for item in earlier]
        if {**earlier[-1], "after": 0} != {**now, "after": 0}:
            self.batches.append({**now, "after": iteration})
            if get_rank() == 0:
                changed = earlier[-1]["processes"] * earlier[-1]["images"] != now["processes"] * now["images"]
                advice = " --keep-batch keeps the number of images per step." if changed else ""
                _log.warning(batches_in_words(self.batches[-2:]) + advice)

    def build_logger(self, **_: Any) -> MMLogger:
        """Errors to the terminal only; `losses.jsonl` and the record are the log."""
        return MMLogger.get_instance(self._experiment_name, log_level="ERROR", distributed=self.distributed)

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        """Nothing: the record holds versions and environment."""

    def dump_config(self) -> None:
        """Nothing: the completed config is in the work dir already."""
