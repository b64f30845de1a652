"""A table of classes by name, which knows its classes without importing them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any, TypeVar

from mtvision.core.naming import Mistakes, ReportedError, UnknownNameError, building, gathering, meant
from mtvision.core.registry.entries import check_kind
from mtvision.core.registry.options import Option, options_at, options_of_callable
from mtvision.core.registry.outside import OUTSIDE
from mtvision.core.registry.sources import (
    Definition,
    constant_of,
    loaded_file,
    parameters_of,
    registered_names,
)

Kind = TypeVar("Kind", bound=Callable[..., Any])


def _place(kind: Callable[..., Any]) -> Definition:
    """Where a class or function is defined; of another callable, its class."""
    named = kind if inspect.isclass(kind) or inspect.isfunction(kind) else type(kind)
    return Definition(named.__module__, named.__qualname__)


class TakenNameError(ReportedError, KeyError):
    """A name that another entry of a table has already; the message is one line."""

    def __str__(self) -> str:
        return str(self.args[0])


class Registry(MutableMapping[str, Any]):
    """{name: class or function}, or {name: value}. Its errors name the wrong config entry.

    A name that is in none of the locations is looked for in installed plugins, see `mtvision.recipe.plugins`.

    Args:
        name: what one entry is called in messages, e.g. `decoder`.
        variable: how the files at the locations call the table, e.g. `DECODERS`.
        locations: packages whose files register classes with `@<variable>.register_module()`.
        supplied: arguments that the suite passes to every entry it builds; a config must not.
        foreign: {name: class of another package}, which registers nothing itself.
        filled_by: module of the suite that calls `register` for the table's values when it is imported.
        shared: {argument: kind} of arguments that mean the same in every entry.
    """

    def __init__(
        self,
        name: str,
        variable: str = "",
        locations: Collection[str] = (),
        *,
        supplied: Collection[str] = (),
        foreign: Mapping[str, Definition] | None = None,
        filled_by: str | None = None,
        shared: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.supplied = frozenset(supplied)
        self._variable = variable
        self._locations = tuple(locations)
        self._foreign = dict(foreign or {})
        self._filled_by = filled_by
        self.shared = {
            name: Option(name, kind, required=False, default=None) for name, kind in (shared or {}).items()
        }
        self._loaded: dict[str, Any] = {}
        self._places: dict[str, Definition] = {}  # of registered values, which do not tell their module
        self._known: dict[str, Definition] | None = None

    def __getitem__(self, name: str) -> Any:
        """The entry of that name; its module is imported now.

        Raises:
            UnknownNameError: there is none; the message lists near and known names.
        """
        if name not in self:
            OUTSIDE.search()
        if name not in self._loaded:
            if name not in self._definitions():
                raise UnknownNameError(self.name, name, self)
            definition = self._definitions()[name]
            self._loaded.setdefault(name, getattr(import_module(definition.module), definition.name))
        return self._loaded[name]

    def __setitem__(self, name: str, kind: Any) -> None:
        self._refuse_unnamed(name, kind)
        self._places.pop(name, None)
        self._loaded[name] = kind

    def __delitem__(self, name: str) -> None:
        self._places.pop(name, None)
        del self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._loaded or name in self._definitions()

    def __iter__(self) -> Iterator[str]:
        return iter({**self._definitions(), **self._loaded})

    def __len__(self) -> int:
        return len({**self._definitions(), **self._loaded})

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def _definitions(self) -> dict[str, Definition]:
        if self._known is None:
            self._known = dict(self._foreign)
            for package in self._locations:
                self._known |= registered_names(package, self._variable)
            if self._filled_by is not None:
                import_module(self._filled_by)
        return self._known

    def saved(self) -> tuple[dict[str, Any], dict[str, Definition]]:
        """The entries that are imported or registered so far, for `restore`."""
        if self._filled_by is not None:
            self._definitions()  # the suite's own values come first, or `restore` would forget them
        return dict(self._loaded), dict(self._places)

    def restore(self, saved: tuple[dict[str, Any], dict[str, Definition]]) -> None:
        """Forget what was registered since `saved()`."""
        self._loaded, self._places = saved

    def replaced(self) -> dict[str, str]:
        """{shipped name: dotted path of what an outsider put in its place}; empty where none was replaced."""
        places = {name: self.place(name) for name in self._loaded if name in self._definitions()}
        return {
            name: f"{place.module}.{place.name}"
            for name, place in places.items()
            if place != self._definitions()[name]
        }

    def place(self, name: str) -> Definition:
        """Where an entry that is imported or registered is defined."""
        return self._places.get(name) or _place(self._loaded[name])

    def shipped(self, name: str) -> Definition | None:
        """Where an entry of the suite is defined; None if a plugin added or replaced it, or there is none."""
        definition = self._definitions().get(name)
        replaced = name in self._loaded and self.place(name) != definition
        return None if replaced else definition

    def constant(self, name: str, attribute: str) -> Any:
        """A class attribute of one entry, from its source file if the class is not imported yet.

        Args:
            name: registered name.
            attribute: of the class or of a base in its own package, a literal there.

        Returns:
            The value; None if the class has none.

        Raises:
            UnknownNameError: the name is not registered.
        """
        if name not in self._loaded and name in self._definitions():
            return constant_of(self._definitions()[name], attribute)
        return inspect.getattr_static(self[name], attribute, None)

    def register_module(self, name: str | None = None, force: bool = False) -> Callable[[Kind], Kind]:
        """Decorator that adds a class or function.

        Args:
            name: what configs call it, by default its own name.
            force: replace another one of that name.

        Raises:
            TakenNameError: the name is taken by another one and `force` is off.
        """

        def register(kind: Kind) -> Kind:
            key = name or kind.__name__
            own = self._definitions().get(key) == Definition(kind.__module__, kind.__name__)
            if own and key in self._loaded:  # replaced by an outsider before its module was imported
                return kind
            if not own:
                self._refuse_taken(key, kind, force=force)
            self._loaded[key] = kind
            return kind

        return register

    def register(self, name: str, value: Any, *, by: str, force: bool = False) -> None:
        """Add a value, such as a protocol.

        Args:
            name: what configs call it.
            value: the entry.
            by: dotted name of the module that defines it, usually `__name__`.
            force: replace another one of that name.

        Raises:
            TakenNameError: the name is taken by another one and `force` is off.
        """
        place = Definition(by, name)
        if by == self._filled_by:
            self._definitions().setdefault(name, place)
            if name in self._loaded:
                return
        elif self._places.get(name) != place:
            self._refuse_taken(name, value, force=force)
        self._loaded[name], self._places[name] = value, place

    def _refuse_taken(self, name: str, kind: Any, *, force: bool) -> None:
        if force:
            self._refuse_unnamed(name, kind)
        elif name in self and self._loaded.get(name) is not kind:
            raise TakenNameError(
                f"{self.name} '{name}' is registered already, by {self._whose(name)}. Choose another name, "
                "or replace it on purpose with force=True, which records then say."
            )

    def _refuse_unnamed(self, name: str, kind: Any) -> None:
        """What an entry point announces is loaded only where a name is not found; it must change nothing."""
        origin = OUTSIDE.origin
        if origin is not None and not origin.named and name in self and self._loaded.get(name) is not kind:
            raise TakenNameError(
                f"{self.name} '{name}' of {self._whose(name)} cannot be replaced by a plugin that only an "
                f"entry point announces. Name it: plugins = ['{origin.module}'] in the config, or --plugin."
            )

    def _whose(self, name: str) -> str:
        """Module and file of the entry of that name."""
        home = self._definitions().get(name)
        module = (self.place(name) if home is None or name in self._loaded else home).module
        file = loaded_file(module)
        return f"{module} ({file})" if file else module

    def choose(self, kind: Any) -> Callable[..., Any]:
        """The class that a config's `type` means: a registered name, a dotted path or the class itself.

        Raises:
            UnknownNameError: the name is neither registered nor the path of a class.
        """
        if not isinstance(kind, str):
            chosen: Callable[..., Any] = kind
            return chosen
        module, _, attribute = kind.rpartition(".")
        if module and kind not in self:
            try:
                return getattr(import_module(module), attribute)  # type: ignore[no-any-return]
            except (ImportError, AttributeError):
                pass
        entry: Callable[..., Any] = self[kind]
        return entry

    def check(self, cfg: Any, supplied: Collection[str] | None = None) -> Mapping[str, inspect.Parameter]:
        """Say what `build(cfg)` would refuse, without importing a module of the locations.

        Args:
            cfg: one config entry.
            supplied: arguments that the suite passes, by default those of the table.

        Returns:
            The parameters of the entry's class, `supplied` ones included.

        Raises:
            TypeError: `cfg` is not a mapping with a `type`, or a required argument is missing.
            UnknownNameError: the name is not registered, or the class has no such argument.
            ConfigError: several of these.
        """
        with gathering(self.name) as found:
            self._check_arguments(cfg, found, "type", self.supplied if supplied is None else supplied)
        return self.parameters(cfg["type"])

    def check_config(
        self, cfg: Any, found: Mistakes | None = None, *, key: str = "type", beside: Collection[str] = ()
    ) -> None:
        """As `check`, and compare the values with the types that the class declares.

        Args:
            cfg: one config entry.
            found: collects the mistakes; its present key is that of the entry. None = raise them.
            key: that names the class.
            beside: arguments that stand beside the entry and were checked there.
        """
        if found is None:
            with gathering(self.name) as own:
                self.check_config(cfg, own, key=key, beside=beside)
            return
        if not self._check_arguments(cfg, found, key, self.supplied, beside):
            return
        options = self.options(cfg[key])
        for name, value in cfg.items():
            kinds = [item for item in (options.get(name), self.shared.get(name)) if item is not None]
            with found.at(name):
                for option in kinds if name != key else ():
                    stated = option is options.get(name) and option.default != "None"  # `width: int = None`
                    if value is not None or stated:
                        check_kind(found, value, option.kind, option.note)

    def _check_arguments(
        self,
        cfg: Any,
        found: Mistakes,
        key: str,
        supplied: Collection[str],
        beside: Collection[str] = (),
    ) -> bool:
        """Note wrong names; whether the class is known."""
        if not isinstance(cfg, Mapping):
            found.add(TypeError(f"{self.name}: expected a dict with the key '{key}', got {cfg!r}."))
            return False
        if key not in cfg:
            wrong = next((name for name in cfg if meant([name], [key])), None)
            with found.at(key if wrong is None else wrong):
                if wrong is not None:
                    raise UnknownNameError(f"key of a {self.name}", wrong, [key])
                raise TypeError(f"{self.name}: expected a dict with the key '{key}', got {cfg!r}.")
            return False
        with found.at(key):
            parameters, name = self.parameters(cfg[key]), self._class_name(cfg[key])
        if found.below(f"{found.key}.{key}".lstrip(".")):
            return False
        accepts_any = any(item.kind is item.VAR_KEYWORD for item in parameters.values())
        known = {*parameters, *beside} - set(supplied)
        for argument in cfg:
            with found.at(argument):
                if argument not in (key, *parameters) and not accepts_any:
                    raise UnknownNameError(f"{name} argument", argument, known)
                if argument in supplied:
                    raise TypeError(
                        f"{name}: '{argument}' is supplied by the suite; remove it from the config."
                    )
        given = sorted(set(cfg) - {key})
        misspelt = meant(
            set(cfg) - {key, *parameters}, known
        )  # a wrong name and a missing one are one mistake
        for argument, item in parameters.items():
            needed = item.default is item.empty and item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)
            if needed and argument not in {*cfg, *supplied, *beside, *misspelt}:
                with found.at(argument):
                    raise TypeError(f"{name}: missing argument {argument} (given: {given}).")
        return True

    def require(self, name: Any) -> None:
        """Refuse a name that is not registered; nothing of the suite is imported.

        Raises:
            UnknownNameError: as looking it up.
        """
        if name not in self:
            OUTSIDE.search()
        if name not in self:
            raise UnknownNameError(self.name, name, self)

    def options(self, kind: Any) -> dict[str, Option]:
        """{argument: option} of what `type` means, without those that the suite supplies.

        Raises:
            UnknownNameError: the name is not registered.
        """
        home = self.shipped(kind) if isinstance(kind, str) else None
        found = options_of_callable(self.choose(kind)) if home is None else options_at(home)
        return {name: option for name, option in found.items() if name not in self.supplied}

    def parameters(self, kind: Any) -> Mapping[str, inspect.Parameter]:
        """The parameters of what `type` means; of the suite's own entries, those in its source file.

        mmengine's schedulers take `*args, **kwargs` once they are imported.

        Raises:
            UnknownNameError: the name is not registered.
        """
        home = self.shipped(kind) if isinstance(kind, str) else None
        if home is not None:
            return parameters_of(home)
        return inspect.signature(self.choose(kind)).parameters

    def _class_name(self, kind: Any) -> str:
        definition = self._definitions().get(kind) if isinstance(kind, str) else None
        return definition.name if definition else str(self.choose(kind).__name__)

    def build(self, cfg: Mapping[str, Any], **context: Any) -> Any:
        """Build `cfg["type"](**rest, **context)`; `type` is a registered name or the class itself.

        Args:
            cfg: one config entry. It is not modified.
            context: arguments the suite supplies (channels, tasks, ...), never the config.

        Raises:
            TypeError, UnknownNameError: as `check`.
            BuildError: the class fails with its arguments, other than by an error that says what is wrong.
        """
        self.check(cfg, context)
        given = {key: value for key, value in cfg.items() if key != "type"}
        chosen = self.choose(cfg["type"])
        with building(f"{self.name} {cfg['type']!r}"):
            return chosen(**given, **context)
