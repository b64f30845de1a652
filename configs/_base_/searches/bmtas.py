"""BMTAS (Brueggemann et al., BMVC 2020): every task is a stream that chooses which copy of a block it passes.

A fifth of the training images is held out for the choice of copies. A config adds the options of `ADAPTER`
that depend on its network, puts it into `model.adapters`, and sets `optimizer.architecture_lr`.
"""

ADAPTER = dict(type="BranchingSearch", mixing="streams")
step = dict(type="SearchStep", held_out=0.2)
search = dict(type="BMTASSearcher", held_out=0.2)
