"""What `--check` asks of a model, each law seen to reject what breaks it."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from gradest import Problem
from gradest.checks import check_task, passed
from gradest.contracts import Model
from gradest.costs import Cost
from gradest.randomness import draws


@dataclass(eq=False)
class Tiny(Model):
    """Three bits of five grey pixels."""

    def networks(self, seed: int) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        layers = nn.ModuleDict(
            {"encoder": skip_init(nn.Linear, 5, 6), "decoder": skip_init(nn.Linear, 6, 5)}
        )
        for parameter in layers.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)
        return layers

    def problem(self, batch: Tensor | None = None) -> Problem:
        networks = self.networks(0).double().requires_grad_(False)
        return self.problem_at(networks, self.data("test").double() if batch is None else batch)

    def problem_at(self, networks: nn.Module, x: Tensor) -> Problem:
        logits = networks["encoder"](x).unflatten(-1, (3, 2))

        def cost(z: Tensor, decoder: nn.Module) -> Tensor:
            pixels = decoder(z.flatten(-2))
            target = x.to(z).reshape(len(x), *(1,) * (z.ndim - 3), -1)
            return (pixels - target).square().sum(-1)

        prior = logits.new_zeros(3, 2)
        f = Cost(cost, networks["decoder"], prior=prior, kl="exact", logits=logits)
        return Problem(logits, f)

    def data(self, split: str) -> Tensor:
        return torch.linspace(0, 1, 40).reshape(8, 5)

    def preprocess(self, items: Tensor, dtype: torch.dtype) -> Tensor:
        return (draws().uniform(items.shape, items) < items).to(dtype)

    def decode_images(self, networks: nn.Module, x: Tensor, z: Tensor) -> Tensor:
        return networks["decoder"](z.flatten(-2)).sigmoid().unsqueeze(-2)


class Unseeded(Tiny):
    def networks(self, seed: int) -> nn.Module:
        return super().networks(int(torch.randint(1000, ())))


class Deaf(Tiny):
    def networks(self, seed: int) -> nn.Module:
        return super().networks(0)


class Flat(Tiny):
    def data(self, split: str) -> Tensor:
        return super().data(split)[0] if split == "valid" else super().data(split)


class Global(Tiny):
    def preprocess(self, items: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.bernoulli(items).to(dtype)


class Endless(Tiny):
    def preprocess(self, items: Tensor, dtype: torch.dtype) -> Tensor:
        return items.to(dtype) / 0


class Cut(Tiny):
    def problem_at(self, networks: nn.Module, x: Tensor) -> Problem:
        logits, f = super().problem_at(networks, x)
        return Problem(logits.detach(), f)


class Doubled(Tiny):
    def problem_at(self, networks: nn.Module, x: Tensor) -> Problem:
        logits, f = super().problem_at(networks, x)
        return Problem(logits.double(), f)


class Line(Tiny):
    def decode_images(self, networks: nn.Module, x: Tensor, z: Tensor) -> Tensor:
        return super().decode_images(networks, x, z)[:, 0]


def failed(cls: type[Model]) -> set[str]:
    cls.name = cls.__name__
    return {finding.law for finding in check_task(cls) if finding.status == "failed"}


def test_a_sound_model_is_certified():
    Tiny.name = "tiny"
    assert passed(check_task(Tiny))


@pytest.mark.parametrize(
    ("cls", "laws"),
    [
        (Deaf, {"networks"}),
        (Flat, {"data"}),
        (Global, {"data"}),
        (Endless, {"data", "training"}),
        (Cut, {"training"}),
        (Doubled, {"training"}),
        (Line, {"training"}),
    ],
)
def test_what_breaks_a_law_is_rejected_by_that_law(cls, laws):
    assert failed(cls) == laws


def test_networks_that_no_seed_decides_are_rejected():
    assert "networks" in failed(Unseeded)  # and its problem differs from call to call


def test_previous_method_names_work_and_warn_once():
    with pytest.warns(DeprecationWarning) as caught:

        class Old(Line):
            def posed(self, networks: nn.Module, x: Tensor) -> Problem:
                return super().problem_at(networks, x)

            def pictures(self, networks: nn.Module, x: Tensor, z: Tensor) -> Tensor:
                return super().decode_images(networks, x, z).unsqueeze(-2)

    assert [str(w.message) for w in caught] == [
        "Old defines posed, which is deprecated; rename it to problem_at",
        "Old defines pictures, which is deprecated; rename it to decode_images",
    ]
    assert {Path(w.filename).name for w in caught} == {Path(__file__).name}
    Old.name = "old"
    assert passed(check_task(Old))

    class Older(Old):
        def problem_at(self, networks: nn.Module, x: Tensor) -> Problem:
            return super().posed(networks, x)  # must not call itself

    model = Older()
    networks, items = model.networks(0), model.data("train")
    with pytest.warns(DeprecationWarning) as caught:
        x = model.observed(items, torch.float32)
    assert x.shape == items.shape
    (warning,) = caught
    assert str(warning.message) == "observed is deprecated; call preprocess instead"
    assert Path(warning.filename).name == Path(__file__).name
    with pytest.warns(DeprecationWarning, match="posed is deprecated; call problem_at instead"):
        logits, _ = model.problem_at(networks, x)
    assert torch.equal(logits, Tiny().problem_at(networks, x).logits)
