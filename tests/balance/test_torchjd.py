"""Jacobian balancers: equality with torchjd, properties of UPGrad, state, randomness, errors."""

import pytest
import torch
from torchjd import Stateful
from torchjd.aggregation import MGDA, Aggregator, AlignedMTL, ConFIG
from torchjd.aggregation import UPGrad as TheirUPGrad

from mtvision.balance import TorchJD, UPGrad
from mtvision.balance.jacobian.aggregators import AGGREGATORS
from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import BALANCERS

TASKS = ("semseg", "depth", "edge")
NEEDS_OTHER_SOLVER = {"CAGrad", "NashMTL"}
OPTIONS = {
    "Krum": {"n_byzantine": 0},
    "TrimmedMean": {"trim_number": 1},
    "FairGrad": {"alpha": 1.0},
}
USABLE = sorted(set(AGGREGATORS) - NEEDS_OTHER_SOLVER)
STATEFUL = ["ExcessMTL", "GradVac", "PCD"]


def matrix(columns: int = 7, tasks: int = 3) -> torch.Tensor:
    return torch.randn(tasks, columns, dtype=torch.float64)


def build(name: str) -> TorchJD:
    return TorchJD(tasks=TASKS, aggregator=name, **OPTIONS.get(name, {}))


# --------------------------------------------------------------------------------------------- UPGrad


def test_upgrad_by_hand():
    """The example of torchjd's documentation."""
    J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    balancer = UPGrad(tasks=("a", "b"))
    torch.testing.assert_close(
        balancer.aggregate(J, ("a", "b")), torch.tensor([0.2929, 1.9004, 1.9004]), rtol=0, atol=1e-4
    )
    weights = {name: float(value) for name, value in balancer.weights().items()}
    assert weights == pytest.approx({"a": 1.1109, "b": 0.7894}, abs=1e-4)


def test_upgrad_without_conflict_is_the_mean():
    J = matrix().abs()
    torch.testing.assert_close(UPGrad(tasks=TASKS).aggregate(J, TASKS), J.mean(dim=0), rtol=1e-6, atol=0)


def test_upgrad_harms_no_task():
    balancer = UPGrad(tasks=TASKS)
    for _ in range(20):
        J = matrix()
        harm = J @ balancer.aggregate(J, TASKS)
        assert harm.min() > -1e-3 * J.norm() ** 2  # torchjd regularises the Gramian by 1e-4


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**-12, 2.0**16])
def test_upgrad_does_not_depend_on_the_scale(scale):
    """torchjd alone stops resolving conflicts below a squared norm of 1e-4."""
    J = matrix()
    balancer = UPGrad(tasks=TASKS)
    torch.testing.assert_close(
        balancer.aggregate(scale * J, TASKS), scale * balancer.aggregate(J, TASKS), rtol=1e-9, atol=0
    )


def test_upgrad_preference_goes_with_the_tasks_present():
    preference = {"semseg": 3.0, "depth": 2.0, "edge": 1.0}
    balancer = UPGrad(tasks=TASKS, preference=preference)
    J = matrix(tasks=2)
    expected = TheirUPGrad(pref_vector=torch.tensor([3.0, 1.0], dtype=torch.float64))(J)
    torch.testing.assert_close(balancer.aggregate(J, ("semseg", "edge")), expected, rtol=1e-12, atol=0)


# --------------------------------------------------------------------------------- any aggregator by name


def test_names_are_torchjds():
    assert {"UPGrad", "MGDA", "AlignedMTL", "PCGrad", "CAGrad", "NashMTL", "IMTLG", "ConFIG"} <= set(
        AGGREGATORS
    )
    assert not {"Aggregator", "Constant"} & set(AGGREGATORS)


def test_options_reach_the_aggregator():
    J = matrix()
    balancer = BALANCERS.build(
        {"type": "TorchJD", "aggregator": "AlignedMTL", "scale_mode": "rmse"}, tasks=TASKS, default_weights={}
    )
    torch.testing.assert_close(balancer.aggregate(J, TASKS), AlignedMTL(scale_mode="rmse")(J))
    assert not torch.allclose(balancer.aggregate(J, TASKS), AlignedMTL()(J))
    torch.testing.assert_close(TorchJD(tasks=TASKS, aggregator="MGDA").aggregate(J, TASKS), MGDA()(J))


@pytest.mark.parametrize("name", USABLE)
def test_zero_and_non_finite_gradients_pass_through(name):
    balancer = build(name)
    assert torch.equal(balancer.aggregate(torch.zeros(3, 4), TASKS), torch.zeros(4))
    broken = torch.ones(3, 4)
    broken[1, 2] = torch.inf
    assert balancer.aggregate(broken, TASKS).isfinite().tolist() == [True, True, False, True]
    broken[1, 2] = torch.nan
    assert balancer.aggregate(broken, TASKS).isnan().any()


@pytest.mark.parametrize("name", ["GradDrop", "Random"])
def test_random_draws_differ_between_calls_and_seeds(name):
    J = matrix()
    balancer = build(name)
    assert not torch.equal(balancer.aggregate(J, TASKS), balancer.aggregate(J, TASKS))
    other = TorchJD(tasks=TASKS, aggregator=name, seed=1)
    assert not torch.equal(other.aggregate(J, TASKS), build(name).aggregate(J, TASKS))


def test_config_equals_torchjd():
    J = matrix(columns=20)
    torch.testing.assert_close(build("ConFIG").aggregate(J, TASKS), ConFIG()(J), rtol=1e-9, atol=1e-12)
    preference = {"semseg": 3.0, "depth": 2.0, "edge": 1.0}
    ours = TorchJD(tasks=TASKS, aggregator="ConFIG", preference=preference)
    theirs = ConFIG(pref_vector=torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(ours.aggregate(J, TASKS), theirs(J), rtol=1e-9, atol=1e-12)


def test_config_of_large_models_is_not_zero():
    """torchjd's pseudo-inverse of a float32 matrix with more than 8.4 million columns is 0."""
    J = torch.randn(2, 9_000_000)
    result = TorchJD(tasks=("a", "b"), aggregator="ConFIG").aggregate(J, ("a", "b"))
    cosines = torch.cosine_similarity(J, result[None], dim=1)
    torch.testing.assert_close(cosines[0], cosines[1], rtol=1e-3, atol=0)  # ConFIG's defining property
    assert cosines.min() > 0.5


# ----------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize("name", STATEFUL)
def test_state_matters(name):
    """Guards the test above: a fresh object must answer differently."""
    J, K = matrix(), matrix()
    used, fresh = build(name), build(name)
    used.aggregate(J, TASKS)
    fresh._calls = 1
    assert not torch.equal(used.aggregate(K, TASKS), fresh.aggregate(K, TASKS))


@pytest.mark.parametrize("name", STATEFUL)
def test_stateful_aggregators_refuse_missing_tasks(name):
    with pytest.raises(ValueError, match=f"{name} keeps state.*without state"):
        build(name).aggregate(matrix(tasks=2), ("semseg", "edge"))


def test_state_of_another_aggregator_is_refused():
    state = build("PCGrad").state_dict()
    with pytest.raises(ValueError, match="holds the state of PCGrad, the config asks for UPGrad"):
        UPGrad(tasks=TASKS).load_state_dict(state)


# ---------------------------------------------------------------------------------------------- errors


def test_unknown_aggregator_and_option():
    with pytest.raises(UnknownNameError, match="Unknown torchjd aggregator 'UpGrad'. Did you mean 'UPGrad'"):
        TorchJD(tasks=TASKS, aggregator="UpGrad")
    with pytest.raises(UnknownNameError, match="Unknown MGDA argument 'max_iter'. Did you mean 'max_iters'"):
        TorchJD(tasks=TASKS, aggregator="MGDA", max_iter=3)
    with pytest.raises(TypeError, match="TrimmedMean needs trim_number"):
        TorchJD(tasks=TASKS, aggregator="TrimmedMean")


def test_preference_only_where_there_is_one():
    with pytest.raises(ValueError, match=r"MGDA takes no preference; these do: .*UPGrad"):
        TorchJD(tasks=TASKS, aggregator="MGDA", preference=dict.fromkeys(TASKS, 1.0))
    with pytest.raises(ValueError, match="no number in .* for edge"):
        UPGrad(tasks=TASKS, preference={"semseg": 1, "depth": 1})


def test_missing_solver_says_what_to_install(monkeypatch):
    import torchjd._mixins

    monkeypatch.setattr(torchjd._mixins, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"balancer UPGrad: .*quadprog.*pip install.*mtvision\[balancers\]"):
        UPGrad(tasks=TASKS)
    with pytest.raises(ImportError, match=r"balancer CAGrad: .*pip install \"torchjd\[cagrad\]\""):
        TorchJD(tasks=TASKS, aggregator="CAGrad", c=0.4)


def test_state_that_cannot_be_saved_is_refused(monkeypatch):
    pytest.importorskip("cvxpy")  # NashMTL's constructor needs it
    import torchjd._mixins

    monkeypatch.setattr(torchjd._mixins, "find_spec", lambda _: object())  # the solver is not called here
    with pytest.raises(ValueError, match=r"balancer NashMTL: its state.*cannot be saved"):
        TorchJD(tasks=TASKS, aggregator="NashMTL", n_tasks=3)


class Remembers(Aggregator, Stateful):
    """Mean of the rows; a part of it keeps a buffer, and so does it itself."""

    def __init__(self, kept=None):
        super().__init__()
        self.register_buffer("seen", torch.zeros(2))
        self.part = Part()
        if kept is not None:
            self.kept_value = kept

    def forward(self, matrix):
        return matrix.mean(dim=0)

    def reset(self):
        self.seen.zero_()


class Part(torch.nn.Module, Stateful):
    def __init__(self):
        super().__init__()
        self.register_buffer("inner", torch.ones(3))
        self.register_buffer("later", None)

    def reset(self):
        self.inner.fill_(1)


def test_every_stateful_part_is_saved_once(monkeypatch):
    monkeypatch.setitem(AGGREGATORS, "Remembers", Remembers)
    balancer = TorchJD(tasks=TASKS, aggregator="Remembers")
    state = balancer.get_extra_state()["state"]
    assert {path: set(values) for path, values in state.items()} == {"": {"seen"}, "part": {"inner", "later"}}
    balancer.aggregator.part.inner.fill_(5)
    other = TorchJD(tasks=TASKS, aggregator="Remembers")
    other.set_extra_state(balancer.get_extra_state())
    other.aggregate(matrix(), TASKS)
    assert other.aggregator.part.inner.tolist() == [5, 5, 5]


def test_state_of_an_unknown_kind_is_refused(monkeypatch):
    monkeypatch.setitem(AGGREGATORS, "Remembers", Remembers)
    with pytest.raises(ValueError, match=r"Remembers: its state \(kept_value: object\) cannot be saved"):
        TorchJD(tasks=TASKS, aggregator="Remembers", kept=object())


def test_wrong_number_of_rows():
    with pytest.raises(ValueError, match=r"jacobian has shape \(2, 7\) for the 3 tasks"):
        UPGrad(tasks=TASKS).aggregate(matrix(tasks=2), TASKS)
    with pytest.raises(UnknownNameError, match="'dept'"):
        UPGrad(tasks=TASKS).aggregate(matrix(tasks=1), ["dept"])
