"""The formulas of the mergers once more, entry by entry, without tensors: slow and obvious."""

from __future__ import annotations

import random


def flat(state):
    """[(name, index, value)] of the weights of a state, as Python numbers."""
    return [
        (name, index, value)
        for name, tensor in state.items()
        if tensor.is_floating_point() and "running" not in name
        for index, value in enumerate(tensor.double().flatten().tolist())
    ]


def deltas(base, parents):
    """[[τ_t of every entry] for t], and where each entry is."""
    start = flat(base)
    places = [(name, index) for name, index, _ in start]
    vectors = [
        [value - begin for (_, _, value), (_, _, begin) in zip(flat(state), start, strict=True)]
        for _, state in sorted(parents.items())
    ]
    return places, [value for _, _, value in start], vectors


def sign(value):
    return (value > 0) - (value < 0)


def trim(vector, kept):
    if kept == 0:
        return [0.0] * len(vector)
    least = sorted((abs(value) for value in vector), reverse=True)[kept - 1]
    return [value if abs(value) >= least else 0.0 for value in vector]


def elect_and_merge(trimmed, combine="mean", zero_sum="zero"):
    totals = [sum(column) for column in zip(*trimmed, strict=True)]
    signs = [sign(total) for total in totals]
    if zero_sum == "majority":
        most = sign(sum(signs))
        signs = [item or most for item in signs]
    merged = []
    for elected, column in zip(signs, zip(*trimmed, strict=True), strict=True):
        agreeing = [value for value in column if value and sign(value) == elected]
        total = sum(agreeing)
        merged.append(total / max(len(agreeing), 1) if combine == "mean" else total)
    return merged


def ties(vectors, density, combine="mean", zero_sum="zero", one_more=False):
    kept = min(int(density * len(vectors[0])) + one_more, len(vectors[0]))
    return elect_and_merge([trim(vector, kept) for vector in vectors], combine, zero_sum)


def by_tensor(places):
    """{name: positions of its entries}."""
    found = {}
    for position, (name, _) in enumerate(places):
        found.setdefault(name, []).append(position)
    return found


def breadcrumbs_of_tensors(places, vectors, keep, outliers):
    masked = []
    for vector in vectors:
        kept = [0.0] * len(vector)
        for positions in by_tensor(places).values():
            order = sorted(positions, key=lambda position: -abs(vector[position]))
            first = min(round(outliers * len(order)), len(order) - 1)
            for position in order[first : first + max(round(keep * len(order)), 1)]:
                kept[position] = vector[position]
        masked.append(kept)
    return [sum(column) for column in zip(*masked, strict=True)]


def breadcrumbs_of_rows(base, places, vectors, keep, outliers):
    masked = []
    for vector in vectors:
        kept = [0.0] * len(vector)
        for name, positions in by_tensor(places).items():
            if base[name].ndim == 0:
                kept[positions[0]] = vector[positions[0]]
                continue
            width = base[name].shape[-1]
            for start in range(0, len(positions), width):
                row = sorted(positions[start : start + width], key=lambda position: -abs(vector[position]))
                first = int(outliers * width)
                for position in row[first : first + int(keep * width)]:
                    kept[position] = vector[position]
        masked.append(kept)
    return [sum(column) for column in zip(*masked, strict=True)]


def tall(vectors, total, thresholds):
    """[[whether the mask is on] for t]."""
    return [
        [abs(value) > limit * abs(whole - value) for value, whole in zip(vector, total, strict=True)]
        for vector, limit in zip(vectors, thresholds, strict=True)
    ]


def emr(places, vectors, task, zero_sum="zero", rescale="entries"):
    unified = []
    for column in zip(*vectors, strict=True):
        elected = sign(sum(column)) or (-1 if zero_sum == "negative" else 0)
        agreeing = [abs(value) for value in column if sign(value) == elected and elected]
        unified.append(elected * max(agreeing, default=0.0))
    masked = [whole if own * whole > 0 else 0.0 for own, whole in zip(vectors[task], unified, strict=True)]
    groups = [range(len(unified))] if rescale == "entries" else by_tensor(places).values()
    divide = [1 if rescale == "entries" else len(group) for group in groups]
    own = sum(
        sum(abs(vectors[task][i]) for i in group) / by for group, by in zip(groups, divide, strict=True)
    )
    of_mask = sum(sum(abs(masked[i]) for i in group) / by for group, by in zip(groups, divide, strict=True))
    return [own / of_mask * value for value in masked]


def shuffled(values, seed):
    """A copy in another order."""
    return random.Random(seed).sample(list(values), len(values))
