"""Estimators as parts of a model: any axes, modes, state, autocast, compilation, checkpointing."""

import copy
import io
import os
import subprocess
import sys
from collections import defaultdict

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gradest
from gradest import Cost, SurrogateSample
from gradest.categorical import sample
from gradest.errors import ContractError, CostError, Inapplicable, StateError, UsageError
from gradest.nn import Expectation, Sample
from gradest.plugins import all_estimators, make_estimator
from gradest.randomness import Draws, drawing_from
from gradest.support import RecordedDraws, ReplayedDraws
from tests.support import EXACT

N, K = 3, 4
SAMPLES = [n for n in all_estimators() if issubclass(all_estimators()[n], SurrogateSample)]
STATEFUL = [n for n, cls in all_estimators().items() if cls.adapt_steps]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
    ),
]


def f(z: Tensor) -> Tensor:
    """Neither symmetric in the latents nor quadratic: [..., N, K] -> [...]."""
    u = (z * torch.linspace(-1, 2, z.shape[-2] * z.shape[-1]).to(z).view(z.shape[-2:])).sum(
        (-2, -1)
    )
    return (u - 0.3) ** 2 + u**3 / 4


def logits_for(name: str, *leading: int, dtype: torch.dtype = torch.float64) -> Tensor:
    categories = all_estimators()[name].categories or K
    generator = torch.Generator().manual_seed(3)
    shape = (*leading, N, categories)
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


def values_and_gradient(expect: Expectation, logits: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    objective = expect.estimator.objective
    cost = Cost(f, samples=2, objective=objective) if objective else f
    value = expect(logits, cost)
    return value.detach(), torch.autograd.grad(value.sum(), logits)[0]


@pytest.mark.parametrize("name", SAMPLES)
def test_the_sample_of_a_row_has_the_estimate_of_its_cost(name: str) -> None:
    logits = logits_for(name, 5)
    torch.manual_seed(0)
    z = Sample(name)(logits)
    (gradient,) = torch.autograd.grad(f(z).sum(), logits)
    value, estimate = values_and_gradient(Expectation(name), logits, 0)
    assert torch.equal(f(z).detach(), value)
    torch.testing.assert_close(gradient, estimate, rtol=EXACT, atol=EXACT)
    assert estimate.abs().max() > 0


@pytest.mark.parametrize("name", SAMPLES)
def test_a_few_rows_get_what_a_measurement_gets_of_the_same_noise(name: str) -> None:
    # Outside of a measurement other kernels serve a few rows; --check does not see them.
    logits = logits_for(name, 2)
    recorder = RecordedDraws(Draws.seeded(4))
    with drawing_from(recorder):
        z = Sample(name)(logits)
        (expected,) = torch.autograd.grad(f(z).sum(), logits)
    with drawing_from(ReplayedDraws(recorder.record, lean=True)):
        lean = Sample(name)(logits)
        (gradient,) = torch.autograd.grad(f(lean).sum(), logits)
    torch.testing.assert_close(lean, z, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(gradient, expected, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("rows", [4, 4096])  # small enough for other kernels, and not
def test_the_global_source_draws_from_the_probabilities(rows: int) -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0]]).expand(rows, 1, -1)
    torch.manual_seed(0)
    total = 40_000
    z = torch.cat([sample(logits) for _ in range(total // rows)])
    p = logits[0, 0].softmax(-1)
    error = (z.mean(0)[0] - p) / (p * (1 - p) / len(z)).sqrt().clamp(min=1e-12)
    assert error.abs().max() < 4.5  # 2 · 3 comparisons at LEVEL
    assert (z[..., 2] == 0).all()


@pytest.mark.parametrize("leading", [(), (5,), (2, 5), (2, 1, 3)])
def test_logits_may_have_any_leading_axes(leading: tuple[int, ...]) -> None:
    logits = logits_for("rloo", *leading)
    flat = logits.detach().reshape(-1, N, K).requires_grad_()
    for name in ("reinmax", "gumbel_softmax"):
        torch.manual_seed(1)
        z = Sample(name)(logits)
        torch.manual_seed(1)
        assert torch.equal(z, Sample(name)(flat).view_as(logits)) and z.shape == logits.shape
    seen = []

    def watched(z: Tensor) -> Tensor:
        seen.append(z.shape)
        return f(z)

    torch.manual_seed(1)
    value = Expectation("rloo", samples=3)(logits, watched)
    assert value.shape == leading and seen == [(*leading, 3, N, K)]
    torch.manual_seed(1)
    assert torch.equal(value.flatten(), Expectation("rloo", samples=3)(flat, f))


def test_logits_of_one_latent_need_no_axis_for_it() -> None:
    logits = torch.randn(K, requires_grad=True)
    expect = Expectation("rloo", samples=3)
    value = expect(logits, lambda z: (z * torch.arange(K)).sum(-1).square())
    assert value.shape == () and Sample("reinmax")(logits).shape == (K,)
    z, ticket = expect.ask(logits)
    assert z.shape == (3, K) and expect.tell(ticket, z[:, 0]).shape == ()


def test_a_function_and_a_cost_are_the_same() -> None:
    logits = logits_for("self_critical", 2, 3)
    for name in ("self_critical", "rebar", "local_expectation"):
        a = values_and_gradient(Expectation(name), logits, 2)
        torch.manual_seed(2)
        value = Expectation(name)(logits, Cost(f))
        assert torch.equal(value, a[0])
        assert torch.equal(torch.autograd.grad(value.sum(), logits)[0], a[1])


def test_a_bound_and_a_module_of_a_cost_are_used() -> None:
    logits, weight = logits_for("vimco", 3), nn.Linear(K, 1).double()

    def cost(z: Tensor, module: nn.Module) -> Tensor:
        return module(z).squeeze(-1).sum(-1)

    value = Expectation("vimco")(logits, Cost(cost, weight, samples=3))
    value.sum().backward()
    assert value.shape == (3,) and weight.weight.grad.abs().max() > 0
    with pytest.raises(Inapplicable, match="needs a multi-sample bound"):
        Expectation("vimco")(logits, f)


def test_eval_gives_discrete_samples_without_a_derivative() -> None:
    logits = logits_for("reinmax", 200)
    for name in SAMPLES:
        z = Sample(name).eval()(logits)
        assert set(z.unique().tolist()) == {0.0, 1.0} and (z.sum(-1) == 1).all()
        assert not z.requires_grad
        assert not torch.equal(z, Sample(name).eval()(logits))
        likeliest = Sample(name, mode="argmax").eval()(logits)
        assert torch.equal(likeliest.argmax(-1), logits.argmax(-1))
        assert (likeliest.sum(-1) == 1).all()
    assert Sample("reinmax", mode="argmax")(logits).requires_grad  # in train mode it samples


def test_the_function_is_the_module() -> None:
    logits = logits_for("reinmax", 5)
    torch.manual_seed(0)
    z = gradest.sample("reinmax", logits, temperature=1.3)
    torch.manual_seed(0)
    assert torch.equal(z, Sample(make_estimator("reinmax", temperature=1.3))(logits))


@pytest.mark.parametrize("name", STATEFUL)
def test_state_is_built_adapted_in_train_mode_and_rests_in_eval(name: str) -> None:
    logits, expect = logits_for(name, 8), Expectation(name, adapt_every=2)
    states = []
    for _ in range(4):
        values_and_gradient(expect, logits, 0)
        states.append(frozen_state(expect))
    assert states[0] != states[2]
    # Between the first and the second call only the number of calls differs.
    assert [s.replace(f"'calls': {i}", "") for i, s in enumerate(states, 1)][0::2] == [
        s.replace(f"'calls': {i}", "") for i, s in enumerate(states, 1)
    ][1::2]
    expect.eval()
    before = frozen_state(expect)
    values_and_gradient(expect, logits, 0)
    assert frozen_state(expect) == before


def frozen_state(module: nn.Module) -> str:
    torch.set_printoptions(precision=17, threshold=100_000)
    try:
        return str(module.state_dict())
    finally:
        torch.set_printoptions(profile="default")


@pytest.mark.parametrize("name", STATEFUL)
def test_a_state_dict_holds_all_of_the_state(name: str) -> None:
    logits, expect = logits_for(name, 8), Expectation(name)
    for seed in range(3):
        values_and_gradient(expect, logits, seed)
    file = io.BytesIO()
    torch.save(expect.state_dict(), file)
    file.seek(0)
    other = Expectation(name)
    used = Expectation(name)
    values_and_gradient(used, logits, 8)
    state = torch.load(file, weights_only=True)
    copies = [copy.deepcopy(expect), other, used]
    for module in copies[1:]:
        module.load_state_dict(state)
    whole = io.BytesIO()
    torch.save(expect, whole)
    whole.seek(0)
    copies.append(torch.load(whole, weights_only=False))
    expected = [values_and_gradient(expect, logits, seed) for seed in range(3, 6)]
    for module in copies:
        for seed, pair in zip(range(3, 6), expected, strict=True):
            assert all(map(torch.equal, values_and_gradient(module, logits, seed), pair))
        assert frozen_state(module) == frozen_state(expect)


@pytest.mark.parametrize("name", STATEFUL)
def test_a_module_moves_to_another_dtype(name: str) -> None:
    expect = Expectation(name)
    values_and_gradient(expect, logits_for(name, 4, dtype=torch.float32), 0)
    expect.double()
    value, gradient = values_and_gradient(expect, logits_for(name, 4), 1)
    assert value.dtype == gradient.dtype == torch.float64 and gradient.isfinite().all()
    state = expect.state_dict()["_extra_state"]["state"]
    for slots in state.get("_optimiser", {"state": {}})["state"].values():
        # As bfloat16 the number of steps would end at 256.
        assert slots["step"].dtype == torch.float32 and slots["exp_avg"].dtype == torch.float64


def test_a_state_belongs_to_latents_and_categories() -> None:
    expect = Expectation("relax")
    expect(logits_for("relax", 3), f)
    expect(logits_for("relax", 2, 5), f)  # any number of rows
    with pytest.raises(UsageError, match=r"state of relax was built for logits \[..., 3, 4\], got"):
        expect(torch.randn(3, N + 1, K, requires_grad=True), f)
    bound = Expectation("relax")  # of two codes, which are one of twice as many latents
    assert bound(logits_for("relax", 3), Cost(f, samples=2)).shape == (3,)


def test_the_state_of_an_instance_is_kept() -> None:
    estimator = make_estimator("reinforce_ema")
    estimator.reset(logits_for("reinforce_ema", 3))
    estimator.adapt(logits_for("reinforce_ema", 3), Cost(f))
    mean = estimator._mean.clone()
    expect = Expectation(estimator).eval()
    expect(logits_for("reinforce_ema", 3), f)
    assert torch.equal(estimator._mean, mean)
    other = Expectation("reinforce_ema")
    other.load_state_dict(expect.state_dict())
    assert torch.equal(other.estimator._mean, mean)
    with pytest.raises(UsageError, match="expected the state of rloo, got that of reinforce_ema"):
        Expectation("rloo").load_state_dict(expect.state_dict())


def test_the_draws_of_an_estimate_do_not_depend_on_adaptation() -> None:
    logits = logits_for("nvil", 4)
    expect = Expectation("nvil")
    costs = []
    for mode in (True, False):
        expect.train(mode)
        torch.manual_seed(5)
        costs.append(expect(logits, f).detach())
    assert torch.equal(*costs)


@pytest.mark.parametrize("name", ["relax", "nvil", "reinforce_ema", "rebar"])
def test_an_estimator_without_its_state_says_what_to_call(name: str) -> None:
    estimator = make_estimator(name)
    with pytest.raises(StateError, match=f"^{name} has no state yet.*gradest.nn.Expectation"):
        estimator(logits_for(name, 2), Cost(f))
    assert not hasattr(estimator, "_mean")
    copy.deepcopy(estimator).reset(logits_for(name, 2))
    with pytest.raises(AttributeError, match="no attribute 'slope'"):
        _ = make_estimator("rloo").slope


class Halved(SurrogateSample):
    """A sample of another shape, or dtype, than the logits."""

    dtype = None

    def draw(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1).to(self.dtype) if self.dtype else logits[..., :2]


def test_a_draw_that_is_not_like_the_logits_is_an_error() -> None:
    wrong = Halved()
    with pytest.raises(ContractError, match=r"float64 \[2, 3, 4\], like the logits, got .*2\]"):
        Sample(wrong)(logits_for("rloo", 2))
    wrong.dtype = torch.float32
    with pytest.raises(ContractError, match=r"got torch\.float32"):
        wrong(logits_for("rloo", 2), Cost(f))


class Pooled(gradest.ScoreFunction):
    def advantages(self, cost: Tensor) -> Tensor:
        return cost.mean(1)


def test_advantages_of_another_shape_are_an_error() -> None:
    with pytest.raises(ContractError, match=r"Pooled: expected advantages.*\[2, 1\].*got.*\[2\]"):
        Pooled()(logits_for("rloo", 2), Cost(f))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sample("rloo"), r"rloo needs f.*Expectation\(.rloo.\)"),
        (lambda: Sample("reinmax", mode="best"), "mode = 'best'; expected 'sample' or 'argmax'"),
        (lambda: Sample("reinmx"), "reinmx.*did you mean"),
        (lambda: Sample("reinmax", temprature=2.0), "no knob 'temprature'"),
        (lambda: Sample(make_estimator("reinmax"), temperature=2.0), "no knobs besides an inst"),
        (lambda: Sample(3), "estimator = 3; expected the name"),
        (lambda: Expectation("rloo", adapt_every=0), "adapt_every = 0; expected a whole number"),
        (
            lambda: Sample("reinmax")(torch.tensor([1, 2])),
            r"floating logits.*got torch.int64 \[2\]",
        ),
        (lambda: Sample("reinmax")([0.0]), "got a list"),
        (lambda: Expectation("rloo")(torch.randn(5, 1), f), "at least 2 categories"),
        (lambda: Expectation("arm")(torch.randn(2, N, K), f), "arm needs K = 2, this problem has"),
        (
            lambda: Expectation("rloo")(torch.randn(2, N, K), lambda z: z),
            r"shape \[2, 2\], one number for each code, got shape \[2, 2, 3, 4\]",
        ),
        (
            lambda: Expectation("muprop")(torch.randn(2, N, K), lambda z: f(z.detach())),
            "with a gradient with respect to z",
        ),
    ],
)
def test_wrong_use_is_explained_in_one_line(make, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_the_cost_errors_are_cost_errors() -> None:
    with pytest.raises(CostError):
        Expectation("rloo")(torch.randn(2, N, K), lambda z: 1.0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", [*SAMPLES, "rloo", "relax", "local_expectation"])
def test_autocast(name: str, device: str) -> None:
    torch.manual_seed(0)
    gate, body = nn.Linear(6, N * K).to(device), nn.Linear(N * K, 1).to(device)
    dtypes = set()

    def cost(z: Tensor) -> Tensor:
        out = body(z.flatten(-2)).squeeze(-1)
        dtypes.add((z.dtype, out.dtype))
        return out.square()

    with torch.autocast(device, torch.bfloat16):
        logits = gate(torch.randn(64, 6, device=device)).unflatten(-1, (N, K))
        assert logits.dtype == torch.bfloat16
        if name in SAMPLES:
            z = Sample(name)(logits)
            assert z.dtype == torch.bfloat16 and z.shape == logits.shape
            value = cost(z)
        else:
            value = Expectation(name)(logits, cost)
            assert value.dtype == torch.float32  # estimates are too noisy as they are
        value.float().sum().backward()
    # f is called as it would be outside: with autocast, and codes like the logits.
    assert dtypes == {(torch.bfloat16, torch.bfloat16)}
    assert gate.weight.grad.isfinite().all() and gate.weight.grad.abs().max() > 0


@pytest.mark.weekly
@pytest.mark.filterwarnings("ignore:.*Function.* should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", [*SAMPLES, "reinforce", "rloo", "self_critical"])
def test_compilation_without_a_graph_break(name: str, device: str) -> None:
    logits = logits_for(name, 5, dtype=torch.float32).detach().to(device).requires_grad_()
    module = Sample(name) if name in SAMPLES else Expectation(name)

    def loss(logits: Tensor) -> Tensor:
        return f(module(logits)) if name in SAMPLES else module(logits, f)

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    results = []
    for function in (loss, compiled, compiled):
        torch.manual_seed(1)
        value = function(logits)
        results.append((value.detach(), torch.autograd.grad(value.sum(), logits)[0]))
    for value, gradient in results[1:]:
        torch.testing.assert_close(value, results[0][0])
        torch.testing.assert_close(gradient, results[0][1])
    with torch.no_grad():  # other draws at the next call: the noise is not a constant
        assert not torch.equal(compiled(logits), compiled(logits))


@pytest.mark.weekly
@pytest.mark.filterwarnings("ignore:.*Function.* should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled_code_draws_from_the_source_of_its_block() -> None:
    module, logits = Sample("st_gumbel_softmax"), logits_for("st_gumbel_softmax", 5)
    torch._dynamo.reset()
    compiled = torch.compile(module, backend="aot_eager")
    compiled(logits)  # outside of a block, from torch's generator
    with drawing_from(Draws.seeded(1)):
        expected = module(logits)
    with drawing_from(Draws.seeded(1)):
        assert torch.equal(compiled(logits), expected)


@pytest.mark.parametrize("name", [*SAMPLES, "rloo", "local_expectation"])
def test_checkpointing_recomputes_the_same_sample(name: str) -> None:
    module = Sample(name) if name in SAMPLES else Expectation(name)

    def loss(logits: Tensor) -> Tensor:
        return f(module(logits)) if name in SAMPLES else module(logits, f)

    logits, results = logits_for(name, 5), []
    for function in (loss, lambda x: checkpoint(loss, x, use_reentrant=False)):
        torch.manual_seed(1)
        value = function(logits)
        results.append((value.detach(), torch.autograd.grad(value.sum(), logits)[0]))
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("name", ["reinmax", "st_gumbel_softmax", "rloo", "relax"])
def test_gradients_accumulate(name: str) -> None:
    module = (Sample if name in SAMPLES else Expectation)(name)
    logits, separate = logits_for(name, 5), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        value = f(module(logits)) if name in SAMPLES else module(logits, f)
        value.sum().backward()
        separate.append(logits.grad.clone())
    module = (Sample if name in SAMPLES else Expectation)(name)
    parts = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        value = f(module(logits)) if name in SAMPLES else module(logits, f)
        parts.append(torch.autograd.grad(value.sum(), logits)[0])
    torch.testing.assert_close(separate[1], parts[0] + parts[1], rtol=EXACT, atol=EXACT)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", ["reinmax", "rloo", "relax", "rebar", "nvil"])
def test_nothing_keeps_a_device(name: str) -> None:
    module = (Sample if name in SAMPLES else Expectation)(name)
    for device in ("cpu", "cuda", "cpu"):
        module.to(device)
        logits = logits_for(name, 4).detach().to(device).requires_grad_()
        value = f(module(logits)) if name in SAMPLES else module(logits, f)
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert gradient.device.type == device and gradient.isfinite().all()


SCRIPT = """
import sys
from collections import defaultdict
import torch
from torch import nn
from gradest.nn import Expectation, Sample

file, start, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def train(kind, state):
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = (x[:, :2] > 0).long() @ torch.tensor([2, 1])
    gate, body = nn.Linear(8, 12), nn.Linear(6, 4)
    choose = Sample(kind) if kind in ("reinmax", "st_gumbel_softmax") else None
    expect = Expectation(kind, **({"samples": 4} if kind == "rloo" else {}))
    model = nn.ModuleList([gate, body, expect])
    optimiser = torch.optim.Adam([*gate.parameters(), *body.parameters()], lr=0.02)
    if state:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
    for step in range(start, end):
        rows = torch.randint(256, (32,))
        logits, target = gate(x[rows]).unflatten(-1, (6, 2)), y[rows]

        def cost(z):  # [B, ..., 6, 2] -> [B, ...]
            log_p = body(z[..., 1]).log_softmax(-1)
            own = target.view(-1, *(1,) * (log_p.ndim - 1)).expand(*log_p.shape[:-1], 1)
            return -log_p.gather(-1, own).squeeze(-1)

        loss = (cost(choose(logits)) if choose else expect(logits, cost)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        print(kind, loss.item().hex())
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
    return {**state, "random": torch.get_rng_state()}


states = torch.load(file, weights_only=True) if start else {}
kinds = ["reinmax", "st_gumbel_softmax", "rloo", "relax"]
torch.save({kind: train(kind, states.get(kind)) for kind in kinds}, file)
"""


@pytest.mark.weekly
def test_trainings_resume_in_another_process_with_the_same_losses(tmp_path) -> None:
    def run(file: str, start: int, end: int) -> dict[str, list[str]]:
        words = [sys.executable, "-c", SCRIPT, str(tmp_path / file), str(start), str(end)]
        one = {**os.environ, "OMP_NUM_THREADS": "1"}  # tests run side by side, one a core
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=one)
        losses = defaultdict(list)
        for line in done.stdout.splitlines():
            kind, loss = line.split()
            losses[kind].append(loss)
        return losses

    whole, half, rest = run("whole", 0, 60), run("half", 0, 30), run("half", 30, 60)
    assert len(whole) == 4
    for kind, all_losses in whole.items():
        assert half[kind] + rest[kind] == all_losses
        losses = [float.fromhex(x) for x in all_losses]
        assert sum(losses[-10:]) < sum(losses[:10])  # it learns


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", [*STATEFUL, "muprop", "reinmax_cv", "rloo", "reinmax", "exact"])
def test_without_gradients_an_expectation_has_the_same_value(name, context) -> None:
    logits = logits_for(name, 2)
    expect, other = Expectation(name), Expectation(name)
    value, _ = values_and_gradient(expect, logits, seed=1)
    with context():
        objective = expect.estimator.objective
        cost = Cost(f, samples=2, objective=objective) if objective else f
        torch.manual_seed(1)
        result = other(logits.detach().clone(), cost)
    assert torch.equal(result, value) and not result.requires_grad
