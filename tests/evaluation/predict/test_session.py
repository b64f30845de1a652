"""Reading, predicting and writing overlap; results keep the order of the inputs."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import numpy as np

from mtvision.evaluation.predict import session
from mtvision.evaluation.predict.inputs import Source
from mtvision.evaluation.predict.outputs import Places

WAIT = 20  # seconds; only a failure waits


class Slow:
    """A network that ends a batch only when the next images were read and the last ones are being written."""

    def __init__(self, read, writes):
        self.read, self.writes, self.calls, self.overlapped = read, writes, 0, []

    def batch(self, images, context):
        del context
        ahead = self.calls + 1 == len(self.read) or self.read[self.calls + 1].wait(WAIT)
        behind = self.calls == 0 or self.writes[self.calls - 1].wait(WAIT)
        self.overlapped.append((ahead, behind))
        self.calls += 1
        return [{} for _ in images]


def test_the_next_image_is_read_and_the_last_written_while_the_network_computes(tmp_path, monkeypatch):
    names = [f"{index}.png" for index in range(4)]
    read, writes = ([Event() for _ in names] for _ in range(2))

    def read_source(source):
        read[names.index(source.text)].set()
        if source.text == names[3]:
            raise ValueError("damaged")
        return np.zeros((2, 2, 3), dtype=np.uint8)

    def write_image(places, kinds, name, image, prediction):
        writes[order.index(name)].set()
        return [Path(name)]

    order = names[:3]  # the damaged one never reaches the network
    monkeypatch.setattr(session, "read_source", read_source)
    monkeypatch.setattr(session, "write_image", write_image)
    network = Slow(read[:3], writes)
    sources = [(Source(name, "image", Path(name), (name,)), name) for name in names]
    results = list(session.Session(network, Places(tmp_path, [], ["panel"])).run(sources))
    assert network.overlapped == [(True, True)] * 3
    assert [item.source.text for item in results] == names
    assert [item.outputs for item in results] == [[Path(name)] for name in order] + [[]]
    assert results[3].error == "3.png: damaged"
