"""Unknown names: the message, its hints, its type."""

import pytest

from mtvision.core.naming import UnknownNameError, look_up


def test_message_is_printed_as_written():
    error = UnknownNameError("decoder", "ParalelDecoder", ["TaskExpert", "ParallelDecoder"])
    assert str(error) == (
        "Unknown decoder 'ParalelDecoder'. Did you mean 'ParallelDecoder'?\n"
        "Known: ParallelDecoder, TaskExpert."
    )
    assert isinstance(error, KeyError)


def test_nothing_near_gives_no_hint():
    assert "Did you mean" not in str(UnknownNameError("loss", "zzz", ["L1Loss", "EdgeLoss"]))


def test_several_near_names_are_all_offered():
    message = str(UnknownNameError("task", "part", ["parts", "party", "depth"]))
    assert "'parts'" in message
    assert "'party'" in message
    assert " or " in message


def test_empty_table_asks_for_the_import():
    assert "name its module in `plugins`" in str(UnknownNameError("step", "PlainStep", []))


def test_look_up():
    assert look_up("task", "a", {"a": 1}) == 1
    with pytest.raises(UnknownNameError, match="Unknown task 'b'") as caught:
        look_up("task", "b", {"a": 1})
    assert caught.value.__suppress_context__  # no "during handling of ..." above the message
