"""Learning to Branch (Guo et al., ICML 2020): every node draws one parent on the level before.

A fifth of the training images is held out for the choice of parents. A config adds the options of `ADAPTER`
that depend on its network, puts it into `model.adapters`, and sets `optimizer.architecture_lr`.
"""

ADAPTER = dict(type="BranchingSearch", mixing="straight_through")
step = dict(type="SearchStep", held_out=0.2)
search = dict(type="LTBSearcher", held_out=0.2)
